"""Heads on their way up and down: what is passed on, and what is replaced. Pure."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from garrison.net.http1.limits import HeaderList
from garrison.net.http1.writing import has_body, status_line

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.inbound import Request
    from garrison.net.http1.responses import ResponseReader

__all__ = [
    "DROPPED_TO_COUNT",
    "DROPPED_UP",
    "KEPT_FOR_CONTROL",
    "answer_head",
    "framed",
    "framed_request",
    "has_length",
    "is_event_stream",
    "passed_lines",
    "request_head",
    "request_id_of",
    "switched_head",
    "upgrade_lines",
]

_HOP = frozenset(
    b"connection keep-alive proxy-connection proxy-authenticate proxy-authorization te trailer "
    b"transfer-encoding upgrade".split()
)  # fmt: skip
_FRAMING = frozenset((b"content-length", b"expect"))
DROPPED_UP = _HOP | _FRAMING | {
    b"host", b"authorization", b"x-api-key", b"cookie", b"forwarded", b"origin", b"x-garrison-hop",
}  # fmt: skip
"""What does not reach a target: the client's key, above all."""
DROPPED_TO_COUNT = DROPPED_UP | {b"accept-encoding"}
"""An answer whose tokens are counted must not be compressed."""
KEPT_FOR_CONTROL = _HOP | _FRAMING | {b"x-forwarded-for", b"x-forwarded-proto", b"forwarded"}
_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))
_NEVER_NAMED = frozenset((b"content-length", b"host"))
"""Without them a message cannot be understood, whatever its sender says."""
_HOP_DOWN = _HOP - {b"trailer"}
_lines: dict[int, bytes] = {}


def request_head(request: "Request", path: bytes, own: bytes, length: int | None, dropped: frozenset[bytes]) -> bytes:
    """Return the head of a request to a target.

    Args:
        own: header lines that every request to it has.
        length: of the body; None for a chunked one.
        dropped: names of headers that are not passed on, in lower case. Those that `Connection` names are not, either.
    """
    return framed_request(request.method, path, own + passed_lines(request.headers, dropped), length)


def passed_lines(headers: HeaderList, dropped: frozenset[bytes]) -> bytes:
    """Return the lines of headers that are passed on to a target; `dropped` as in `request_head`."""
    named = _named_by_connection(headers)
    parts: list[bytes] = []
    for name, value in headers:
        lowered = name.lower()
        if lowered not in dropped and (not named or lowered not in named):
            parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def framed_request(method: bytes, path: bytes, lines: bytes, length: int | None) -> bytes:
    """Return the head of a request with these header lines; `length` as in `request_head`."""
    if length is None:
        end = b"transfer-encoding: chunked\r\n"
    elif length or method in _WITH_BODY:
        end = b"content-length: %d\r\n" % length
    else:
        end = b""
    return b"%b %b HTTP/1.1\r\n%b%b\r\n" % (method, path, lines, end)


def upgrade_lines(request: "Request") -> bytes:
    """Return the header lines that ask a target for the protocol that the client asks for."""
    asked = (b"upgrade: " + value + b"\r\n" for name, value in request.headers if name.lower() == b"upgrade")
    return b"connection: upgrade\r\n" + b"".join(asked)


def switched_head(reader: "ResponseReader", request_id: bytes = b"") -> bytes:
    """Return the head with which a target changes to another protocol, as its client gets it.

    Args:
        request_id: named in it, unless the answer has one.
    """
    lines = [b"%b: %b\r\n" % pair for pair in reader.headers]
    if request_id and not request_id_of(reader.headers):
        lines.append(b"x-request-id: %b\r\n" % request_id)
    return b"".join((_line(reader.status), *lines, b"\r\n"))


def request_id_of(headers: HeaderList) -> bytes:
    """Return the id that a request or an answer has; empty where it has none."""
    for name, value in headers:
        if len(name) == 12 and name.lower() == b"x-request-id":
            return value
    return b""


def has_length(reader: "ResponseReader") -> bool:
    """Whether an answer says how long its body is."""
    return reader.known is not None or any(name.lower() == b"content-length" for name, _ in reader.headers)


def is_event_stream(reader: "ResponseReader") -> bool:
    """Whether an answer is a stream of events that can be read as it passes."""
    events = False
    for name, value in reader.headers:
        lowered = name.lower()
        if lowered == b"content-encoding" and value.strip().lower() != b"identity":
            return False
        if lowered == b"content-type":
            events = value.strip().lower().startswith(b"text/event-stream")
    return events


def framed(
    request: "Request",
    reader: "ResponseReader",
    keep: bool,
    request_id: bytes = b"",
    own: bytes = b"",
    without: bytes = b"",
    *,
    resized: bool = False,
) -> tuple[bytes, bool]:
    """Return the head of an answer as its client gets it, and whether its body is sent in chunks.

    Args:
        request_id: named in it, unless the answer has one.
        own: further header lines.
        without: headers of the target whose names begin so are not passed on.
        resized: the body will not have the length that the target says.
    """
    known = reader.known
    if known is None or without or resized:
        sized = has_length(reader) and not resized
        left: tuple[bytes, ...] = (without,) if without else ()
        if resized:
            left += (b"content-length",)
        lines, has_id = _answer_lines(reader.status, reader.headers, left), bool(request_id_of(reader.headers))
        if known is not None and sized:
            lines += b"content-length: %d\r\n" % reader.length
    else:
        sized = True
        if known.derived is None:
            known.derived = _answer_lines(known.status, known.headers), bool(request_id_of(known.headers))
        lines, has_id = cast("tuple[bytes, bool]", known.derived)
        lines += b"content-length: %d\r\n" % reader.length
    last = b"%bx-request-id: %b\r\n" % (own, request_id) if request_id and not has_id else own
    body = sized or has_body(request.method.decode("latin-1"), reader.status)
    chunked = body and not sized and not request.http10
    if chunked:
        last += b"transfer-encoding: chunked\r\n"
    if not keep or (body and not sized and request.http10):
        last += b"connection: close\r\n"
    elif request.http10:
        last += b"connection: keep-alive\r\n"
    return b"%b%b\r\n" % (lines, last), chunked


def answer_head(status: int, headers: HeaderList, own: bytes) -> bytes:
    """Return the head of an answer, with `own` header lines at its end."""
    return b"%b%b\r\n" % (_answer_lines(status, headers), own)


def _answer_lines(status: int, headers: HeaderList, without: tuple[bytes, ...] = ()) -> bytes:
    """Return the lines of an answer that are passed on to a client, but for those whose names begin as in `without`."""
    named = _named_by_connection(headers)
    parts = [_line(status)]
    for name, value in headers:
        lowered = name.lower()
        if lowered not in _HOP_DOWN and (not named or lowered not in named):
            if without and lowered.startswith(without):
                continue
            parts += (name, b": ", value, b"\r\n")
    return b"".join(parts)


def _line(status: int) -> bytes:
    if (known := _lines.get(status)) is None:
        known = _lines[status] = status_line(status).encode() + b"\r\n"
    return known


def _named_by_connection(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes] | None:
    """Names of further headers that belong to this connection alone; None where there are none, as nearly always."""
    found: set[bytes] | None = None
    for name, value in headers:
        if len(name) == 10 and name.lower() == b"connection":
            low = value.strip().lower()
            if low not in (b"close", b"keep-alive", b"upgrade"):
                found = (found or set()) | {one.strip() for one in low.split(b",")} - _NEVER_NAMED
    return found
