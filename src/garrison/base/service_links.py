"""The variables that Kubernetes sets in each pod for the services beside it. Pure."""

import re

__all__ = ["is_service_link", "service_link"]

_ADDRESS = re.compile(r"(tcp|udp|sctp)://\S+\Z")
_NAME = re.compile(r"[A-Z0-9_]+_(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)\Z")


def service_link(variable: str, value: str) -> str | None:
    """The service whose address `variable` holds, as in `VLLM_PORT=tcp://10.96.0.1:8000`; None if it holds none."""
    if not variable.endswith("_PORT") or not _ADDRESS.match(value):
        return None
    return variable.removesuffix("_PORT").lower().replace("_", "-")


def is_service_link(variable: str, value: str) -> bool:
    """Whether Kubernetes sets such a variable, rather than a person."""
    return service_link(variable, value) is not None or _NAME.match(variable) is not None
