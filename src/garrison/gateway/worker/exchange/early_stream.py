"""An answer that begins before a target has answered: comments while its model loads, then its stream.

The client has its status by then, 200. So a stream of the target goes on where the comments end, anything else that it
answers becomes one event, and a failure becomes an event of the kind that clients of the path know.
"""

from typing import TYPE_CHECKING

import msgspec

from garrison.gateway.requests.errors import speaks_anthropic
from garrison.net.http1.writing import LAST_CHUNK, chunk

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from garrison.gateway.worker.connections.inbound import Inbound, Request
    from garrison.gateway.worker.plane import Plane
    from garrison.net.http1.responses import ResponseReader

__all__ = ["Comments", "EarlyStream"]

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
_MOST_COLLECTED = 256 * 1024
_RESPONSES = b"/v1/responses"


class Comments:
    """Calls again and again while a request waits.

    Args:
        seconds: before each call.
    """

    __slots__ = ("_call", "_plane", "_seconds", "_timer")

    def __init__(self, plane: "Plane", seconds: float, call: "Callable[[], None]") -> None:
        self._plane, self._seconds, self._call = plane, seconds, call
        self._timer: asyncio.TimerHandle = plane.later(seconds, self._tick)

    def stop(self) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._plane.later(self._seconds, self._tick)
        self._call()


class EarlyStream:
    """The answer to one client, from its head on.

    Args:
        lines: further header lines.
        keep: whether the connection is kept after it.
    """

    __slots__ = ("_collected", "_inbound", "_size", "_target", "keep", "streams")

    def __init__(self, inbound: "Inbound", request: "Request", lines: bytes, *, keep: bool) -> None:
        self._inbound, self._target = inbound, request.target
        self._collected: list[bytes] = []
        self._size = 0
        self.keep = keep
        self.streams = True
        end = b"transfer-encoding: chunked\r\n" + (b"" if keep else b"connection: close\r\n")
        inbound.begun = True
        inbound.send(_HEAD + lines + end + b"\r\n")

    def comment(self, text: str) -> None:
        """Send a comment, unless the client has not read what it was sent before."""
        if not self._inbound.congested:
            self._inbound.send(chunk(b": " + text.encode() + b"\n\n"))

    def head(self, reader: "ResponseReader") -> None:
        """The target answers."""
        kinds = [value for name, value in reader.headers if name.lower() == b"content-type"]
        self.streams = reader.status == 200 and any(b"text/event-stream" in one.lower() for one in kinds)

    def collect(self, pieces: list[bytes]) -> None:
        """Take what has arrived of an answer that is no stream."""
        for piece in pieces:
            self._size += len(piece)
            if self._size <= _MOST_COLLECTED:
                self._collected.append(piece)
        pieces.clear()

    def rest(self, status: int) -> bytes:
        """The end of a body that was collected: all of it as one event."""
        body = b"".join(self._collected) if self._size <= _MOST_COLLECTED else b""
        try:
            found = msgspec.json.decode(body)
        except msgspec.MsgspecError:
            found = None
        if status < 400 and isinstance(found, dict):
            return chunk(b"data: " + msgspec.json.encode(found) + b"\n\ndata: [DONE]\n\n") + LAST_CHUNK
        if not isinstance(found, dict) or "error" not in found:
            text = body.decode(errors="replace")[:1000] or f"the target answered {status}"
            found = {"error": {"message": text, "type": "server_error", "param": None, "code": str(status)}}
        return self.failure(msgspec.json.encode(found))

    def failure(self, body: bytes) -> bytes:
        """The end of the stream for an error, in the shape that its client reads.

        Args:
            body: of the answer with which the request would otherwise have been refused.
        """
        if speaks_anthropic(self._target):
            return chunk(b"event: error\ndata: " + body + b"\n\n") + LAST_CHUNK
        if self._target.startswith(_RESPONSES):
            error = msgspec.json.decode(body).get("error")
            told = error if isinstance(error, dict) else {"message": str(error)}
            event = {name: told.get(name) for name in ("code", "message", "param")}
            data = msgspec.json.encode({"type": "error", **event, "sequence_number": 0})
            return chunk(b"event: error\ndata: " + data + b"\n\n") + LAST_CHUNK
        return chunk(b"data: " + body + b"\n\ndata: [DONE]\n\n") + LAST_CHUNK
