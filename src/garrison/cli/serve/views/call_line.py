"""How to call an endpoint: its address, and a line that can be pasted."""

import json
import shlex

from garrison.engines.argv import Endpoint
from garrison.launch.run.address import base_url, caller_url

__all__ = ["address_line", "call_line"]


def address_line(endpoint: Endpoint) -> str | None:
    """What it is and where; None for an engine that is no server, or whose port is not known."""
    if not endpoint.can_be_asked:
        return None
    if endpoint.protocol == "grpc":
        where = f"unix:{endpoint.uds}" if endpoint.uds else base_url(endpoint).split("://")[1]
        return f"gRPC endpoint: {where}"
    if endpoint.uds:
        return f"OpenAI endpoint: {caller_url(endpoint)}, {base_url(endpoint)}/v1 on it"
    return f"OpenAI endpoint: {base_url(endpoint)}/v1"


def call_line(endpoint: Endpoint, model: str, key_env: str | None) -> str | None:
    """A curl command; None where curl is no client for it."""
    if endpoint.protocol != "http" or not endpoint.can_be_asked:
        return None
    words = ["curl"]
    if endpoint.tls:
        # Its certificate is for a public name, or signed by itself; curl would refuse either at this address.
        words.append("--insecure")
    if endpoint.client_cert:
        words += ["--cert", "CLIENT.pem"]
    if endpoint.uds:
        words += ["--unix-socket", endpoint.uds]
    words.append(f"{base_url(endpoint)}/v1/chat/completions")
    header = f' -H "Authorization: Bearer ${key_env}"' if key_env else ""
    body = {"model": model, "messages": [{"role": "user", "content": "Hello!"}]}
    return f"{shlex.join(words)}{header} -H 'Content-Type: application/json' -d {shlex.quote(json.dumps(body))}"
