"""Parses server-sent events from a stream of bytes, as the HTML standard defines them, within a size limit. Pure."""

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass

from garrison.net.errors import TransportCause, TransportError

__all__ = ["EventReader", "ServerEvent", "server_events"]

_LINE_END = re.compile(rb"\r\n|\n|\r")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its data lines joined with line breaks, and its type and id, if they were sent."""

    data: str
    kind: str = ""
    id: str = ""


class EventReader:
    """Parses one stream. The events do not depend on how its bytes were split.

    Args:
        limit: bytes of one event.
    """

    def __init__(self, limit: int = 1024 * 1024) -> None:
        self._limit = limit
        self._unfinished: list[bytes] = []
        self._after_cr = False
        self._first = True
        self._size = 0
        self._data: list[bytes] | None = None
        self._kind = b""
        self._id = b""

    def feed(self, piece: bytes) -> list[ServerEvent]:
        """Return the events that `piece` completes. Only a blank line completes an event, as the standard requires.

        Raises:
            TransportError: `malformed`: an event is larger than the limit.
        """
        if self._after_cr and piece:
            self._after_cr = False
            piece = piece.removeprefix(b"\n")
        if not piece:
            return []
        self._after_cr = piece.endswith(b"\r")
        *lines, rest = _LINE_END.split(piece)
        found: list[ServerEvent] = []
        for line in lines:
            self._grow(len(line) + 1)
            if self._unfinished:
                line = b"".join([*self._unfinished, line])
                self._unfinished.clear()
            if self._first:
                self._first = False
                line = line.removeprefix(_BYTE_ORDER_MARK)
            if line:
                self._field(line)
            else:
                self._dispatch(found)
        if rest:
            self._grow(len(rest))
            self._unfinished.append(rest)
        return found

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            if self._data is None:
                self._data = []
            self._data.append(value)
        elif name == b"event":
            self._kind = value
        elif name == b"id" and b"\0" not in value:
            self._id = value

    def _dispatch(self, found: list[ServerEvent]) -> None:
        if self._data is not None:
            found.append(ServerEvent(_text(b"\n".join(self._data)), _text(self._kind), _text(self._id)))
        self._data = None
        self._kind = b""
        self._size = 0

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._limit:
            raise TransportError(TransportCause.MALFORMED, f"an event is larger than {self._limit} bytes", sent=True)


async def server_events(pieces: AsyncIterable[bytes], *, limit: int = 1024 * 1024) -> AsyncIterator[ServerEvent]:
    """Iterate over the events of a streamed response as they arrive.

    Raises:
        TransportError: the stream ends early, or an event is larger than `limit` bytes.
    """
    reader = EventReader(limit)
    async for piece in pieces:
        for event in reader.feed(piece):
            yield event


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
