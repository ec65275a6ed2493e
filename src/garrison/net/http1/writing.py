"""Writes heads and chunks as bytes, and refuses content that would change the framing. Pure."""

import re
from http import HTTPStatus

__all__ = ["CONTINUE", "LAST_CHUNK", "HeaderError", "chunk", "has_body", "header_line", "status_line"]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_REASONS = {status.value: status.phrase for status in HTTPStatus}


class HeaderError(ValueError):
    """A header that would end early or inject another. The message names the header, never its value."""


def status_line(status: int) -> str:
    """Return the first line of a response, without its line end."""
    return f"HTTP/1.1 {status} {_REASONS.get(status, '')}"


def header_line(name: str, value: str) -> str:
    """Return one header without its line end.

    Raises:
        HeaderError: the name is not a token, or the value contains a line break or a control character.
    """
    if not _TOKEN.match(name):
        raise HeaderError(f"the header {name!r} cannot be set")
    if _CONTROL.search(value):
        raise HeaderError(f"the value of the header {name!r} contains a line break or a control character")
    return f"{name}: {value}"


def chunk(piece: bytes) -> bytes:
    """Return one chunk of a chunked body; nothing for an empty piece, since an empty chunk would end the body."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def has_body(method: str, status: int) -> bool:
    """Return whether a response may carry a body. If it may not, a client would read one as the next response."""
    return method != "HEAD" and status >= 200 and status not in (204, 304)
