"""Requests and responses as values: what the HTTP layer passes to the application, and gets back."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from garrison.net.http1.writing import status_line

__all__ = ["ConnectionDroppedError", "Later", "Request", "Response", "head"]


class ConnectionDroppedError(Exception):
    """Raised by a handler or a stream to reset the connection (RST)."""


@dataclass(slots=True)
class Request:
    """One parsed request.

    Attributes:
        path: without the query, not decoded.
        query: the part after `?`, "" without one.
        headers: by lower-case name; of a repeated header, the last one.
        peer: the client's IP address.
        keep_alive: whether the connection stays open after the answer.
        http10: HTTP/1.0, where closing the connection ends a stream.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes
    peer: str
    keep_alive: bool = True
    http10: bool = False


@dataclass(slots=True)
class Response:
    """An answer. `body` is bytes, or an iterator whose pieces are sent as chunks.

    Attributes:
        cut: send the headers and half of the body, then reset the connection.
    """

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    content_type: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False
    cut: bool = False


Later = Callable[[], Awaitable[Response]]
"""An answer that takes time. Called once, when its turn comes: a coroutine created earlier might never be awaited."""


def head(response: Response, date: str, *, length: int | None, chunked: bool, close: bool) -> bytes:
    """Return the status line and the headers, in uvicorn's order."""
    start = _status_lines(response.status)
    rest = _other_headers(response.content_type, response.headers, chunked, close)
    size = "" if length is None else f"\r\ncontent-length: {length}"
    return f"{start}{date}\r\nserver: uvicorn{size}{rest}".encode("latin-1")


# Building a head line by line costs a third of a small request, and most heads differ in date and length alone.
@lru_cache(256)
def _status_lines(status: int) -> str:
    return f"{status_line(status)}\r\ndate: "


@lru_cache(256)
def _other_headers(content_type: str | None, headers: tuple[tuple[str, str], ...], chunked: bool, close: bool) -> str:
    lines = [""]
    if content_type:
        lines.append(f"content-type: {content_type}")
    lines.extend(f"{name}: {value}" for name, value in headers)
    if chunked:
        lines.append("transfer-encoding: chunked")
    if close:
        lines.append("connection: close")
    return "\r\n".join(lines) + "\r\n\r\n"
