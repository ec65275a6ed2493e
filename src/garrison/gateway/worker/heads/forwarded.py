"""The header lines of a client that reach a target, and `X-Forwarded-*`, which say who asked. Pure."""

from typing import TYPE_CHECKING

from garrison.gateway.link.messages import Settings
from garrison.gateway.requests.trace_context import TRACEPARENT, Trace
from garrison.gateway.worker.heads.heads import DROPPED_TO_COUNT, DROPPED_UP, passed_lines
from garrison.net.http1.limits import HeaderList

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.inbound import Request

__all__ = ["lines_up"]

_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
_TRACE = frozenset((TRACEPARENT,))
_NEW_TRACE = frozenset((TRACEPARENT, b"tracestate"))
"""The state belongs to the trace that the client has named."""
_FORWARDED = frozenset((_FOR, _PROTO, _HOST))


def lines_up(request: "Request", peer: str, settings: Settings, *, readable: bool, trace: Trace | None = None) -> bytes:
    """Return the header lines of a request that reach a target.

    Args:
        peer: address of the client.
        readable: the answer is read here, so that it must not be compressed.
        trace: to which the request belongs; None to pass on what the client says.
    """
    told = settings.forwarded
    if told == "off" and trace is None:
        facts = request.facts
        return facts.passed_readable(request.headers) if readable else facts.passed(request.headers)
    own, dropped = b"", DROPPED_UP
    if readable:
        own, dropped = b"accept-encoding: identity\r\n", DROPPED_TO_COUNT
    if trace is not None:
        own += trace.line()
        dropped = dropped | (_TRACE if trace.parent else _NEW_TRACE)
    if told != "off":
        own += _forwarded_lines(request, peer, tls=settings.tls_cert is not None, appends=told == "append")
        dropped = dropped | _FORWARDED
    return own + passed_lines(request.headers, dropped)


def _forwarded_lines(request: "Request", peer: str, *, tls: bool, appends: bool) -> bytes:
    """Return the header lines that say who asked.

    Args:
        peer: address of the client.
        tls: it came over TLS.
        appends: the client is a proxy that is trusted: what it says stays, and its own address follows.
    """
    headers = request.headers
    before = _values(headers, _FOR) if appends else []
    proto = _values(headers, _PROTO) if appends else []
    host = (_values(headers, _HOST) if appends else []) or _values(headers, b"host")
    found = b"x-forwarded-for: %b\r\n" % b", ".join([*before, *([peer.encode()] if peer else [])])
    found += b"x-forwarded-proto: %b\r\n" % (proto[0] if proto else b"https" if tls else b"http")
    return found + (b"x-forwarded-host: %b\r\n" % host[0] if host else b"")


def _values(headers: HeaderList, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if len(name) == len(wanted) and name.lower() == wanted]
