"""Asking an engine which context it serves."""

from garrison.engines.served_context import context_of_models, context_of_properties
from garrison.instances.runner import Upstream
from garrison.net.endpoint import Server
from garrison.net.transport import Dialer, TransportError

__all__ = ["served_context"]

_ASK_SECONDS = 5.0


async def served_context(engine: str, upstream: Upstream, dialer: Dialer[Server]) -> int | None:
    """Return the context of an engine that is ready, in tokens; None where it does not tell, or not within seconds."""
    headers = {"authorization": f"Bearer {upstream.key}"} if upstream.key else {}
    path, read = ("/props", context_of_properties) if engine == "llama_cpp" else ("/v1/models", context_of_models)
    try:
        async with dialer.open(Server(base_url=upstream.url, headers=headers)) as connection:
            answer = await connection.request("GET", path, timeout=_ASK_SECONDS)
    except TransportError:
        return None
    return read(answer.body) if answer.status == 200 else None
