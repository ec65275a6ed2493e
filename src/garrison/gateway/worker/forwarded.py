"""`X-Forwarded-*`: what targets are told about who asked. Pure."""

from typing import TYPE_CHECKING

from garrison.net.http1.limits import HeaderList

if TYPE_CHECKING:
    from garrison.gateway.worker.inbound import Request

__all__ = ["FORWARDED", "forwarded_lines"]

_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
FORWARDED = frozenset((_FOR, _PROTO, _HOST))
"""Headers of a client that these lines stand for."""


def forwarded_lines(request: "Request", peer: str, *, tls: bool, appends: bool) -> bytes:
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
