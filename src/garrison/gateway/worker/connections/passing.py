"""Requests that are passed on as they are: to the control process, or to everything that an instance answers.

The body is streamed in both directions. After an upgrade, bytes pass in both directions until one side closes.
"""

from typing import TYPE_CHECKING

from garrison.base.errors import GarrisonError, UnreachableError
from garrison.gateway.worker.heads.heads import framed, has_length, request_head, switched_head, upgrade_lines
from garrison.net.http1.limits import HeaderList
from garrison.net.http1.responses import ResponseReader
from garrison.net.http1.writing import LAST_CHUNK, chunk

if TYPE_CHECKING:
    from garrison.gateway.worker.connections.inbound import Inbound, Request
    from garrison.gateway.worker.connections.outbound import Outbound
    from garrison.gateway.worker.plane import Plane
    from garrison.gateway.worker.table.targets import Target

__all__ = ["Passing"]

_SWITCHED = 101
_MOST_PENDING = 256 * 1024
"""Bytes of a body that wait for a connection."""


class Passing:
    """`Work` for one request, and `Answered` by its target.

    Args:
        path: at the target.
        own: header lines for the target.
        dropped: names of headers that are not passed on.
    """

    __slots__ = (
        "_chunked_down", "_chunked_up", "_dropped", "_ended", "_inbound", "_keep", "_out", "_own", "_path", "_pending",
        "_plane", "_raw", "_request", "_sent", "_started", "_upstream", "deadline", "target",
    )  # fmt: skip

    def __init__(
        self,
        plane: "Plane",
        inbound: "Inbound",
        request: "Request",
        target: "Target",
        path: bytes,
        own: bytes,
        dropped: frozenset[bytes],
    ) -> None:
        self._plane, self._inbound, self._request = plane, inbound, request
        self.target: Target | None = target
        self._path, self._own, self._dropped = path, own, dropped
        self._upstream: Outbound | None = None
        self._pending: list[bytes] = []
        self._out: list[bytes] = []
        self._ended = self._started = self._chunked_up = self._chunked_down = self._raw = False
        self._keep = self._sent = False
        self.deadline = 0.0

    def begin(self) -> None:
        """Open or take a connection, and send the head."""
        target = self.target
        assert target is not None
        self._plane.enter(target)
        while target.idle:
            connection = target.idle.pop()
            if connection.alive:
                self._send(connection)
                return
        self._plane.connect(target, self)

    # --- as Work

    def body(self, piece: bytes) -> None:
        data = piece if self._raw or not self._chunked_up else chunk(piece)
        connection = self._upstream
        if connection is None:
            self._pending.append(piece)
            if sum(map(len, self._pending)) > _MOST_PENDING:
                self._inbound.pause_reading(True)
            return
        self._sent = True
        if not self._raw:
            self._listen()
        connection.send(data)
        if connection.congested:
            self._inbound.pause_reading(True)

    def body_end(self) -> None:
        self._ended = True
        if self._upstream is not None and self._chunked_up:
            self._upstream.send(LAST_CHUNK)

    def cancel(self) -> None:
        connection, self._upstream = self._upstream, None
        if connection is not None and self._raw:
            connection.close()  # with what the client has sent last
        elif connection is not None:
            connection.abort()
        self._end()

    def pause(self, paused: bool) -> None:
        if self._upstream is not None:
            self._upstream.pause_reading(paused)

    # --- connecting

    def connected(self, connection: "Outbound") -> None:
        if self._inbound.work is self:
            self._send(connection)
        else:  # the client has gone meanwhile
            connection.rest()

    def not_connected(self, reason: str) -> None:
        if self._inbound.work is self:
            self.answer_lost(reason)

    def _send(self, connection: "Outbound") -> None:
        request = self._request
        self._upstream = connection
        length = request.length
        self._chunked_up = length is None
        own = self._own
        if request.upgrade:
            own += upgrade_lines(request)
        head = request_head(request, self._path, own, length, self._dropped)
        connection.request(self, request.method.decode("latin-1"), head, switch=request.upgrade)
        self._listen()
        self._plane.timed(self)
        self._inbound.go_on()
        pending, self._pending = self._pending, []
        for piece in pending:
            self.body(piece)
        if self._ended and self._chunked_up:
            connection.send(LAST_CHUNK)
        if not connection.congested:
            self._inbound.pause_reading(False)

    # --- as Answered

    def answer_interim(self, status: int, headers: HeaderList) -> None: ...

    def answer_head(self, reader: ResponseReader) -> None:
        self._started = self._inbound.begun = True
        if reader.status == _SWITCHED:
            self._out.append(switched_head(reader))
            return
        self._keep = self._request.complete and self._request.keep_alive and not self._plane.draining
        head, self._chunked_down = framed(self._request, reader, self._keep)
        self._out.append(head)

    def answer_body(self, piece: bytes) -> None:
        self._out.append(chunk(piece) if self._chunked_down else piece)

    def answer_end(self) -> None:
        connection = self._upstream
        assert connection is not None
        reader = connection.reader
        if reader.status == _SWITCHED:
            return
        if self._chunked_down:
            self._out.append(LAST_CHUNK)
        self.answer_flush()
        self._upstream = None
        if reader.keep_alive() and self._ended:
            connection.rest()
        else:
            connection.close()
        self._end()
        self._inbound.next(self._keep and (self._chunked_down or not self._until_close(reader)))

    def answer_flush(self) -> None:
        connection = self._upstream
        self._listen()
        if self._out:
            self._inbound.send(b"".join(self._out))
            self._out.clear()
        if connection is not None and connection.reader.status == _SWITCHED and not self._raw:
            self._raw = True
            self.deadline = 0.0  # another protocol, in which silence may be usual
            self._switch(connection)

    def answer_raw(self, data: bytes) -> None:
        """Bytes of another protocol."""
        self._inbound.send(data)

    def answer_lost(self, reason: str) -> None:
        connection, self._upstream = self._upstream, None
        if self._raw:
            self._end()
            self._inbound.close()
        elif self._started:
            self.answer_flush()
            self._end()
            self._inbound.abort()
        elif connection is not None and connection.used and not self._sent and self.target is not None:
            self._plane.connect(self.target, self)  # it was closed for having been idle
        else:
            self._refuse(self._plane.not_answered(self.target, reason))

    def writable(self) -> None:
        self._inbound.pause_reading(False)

    def expired(self) -> None:
        """The target has been silent for too long. A client that is slow to send its body has a limit of its own."""
        if not self._ended and not self._inbound.paused and not self._started:
            self._listen()
            return
        text = f"it sent nothing for {self._plane.silence_seconds:g} s"
        error, started = self._plane.not_answered(self.target, text), self._started
        connection, self._upstream = self._upstream, None
        if connection is not None:
            connection.abort()
        if started:
            self._end()
            self._inbound.abort()
        else:
            self._refuse(error, status=504)

    # ---

    def _listen(self) -> None:
        """From now on the target may be silent for so long."""
        self.deadline = self._plane.now() + self._plane.silence_seconds

    def _until_close(self, reader: ResponseReader) -> bool:
        return self._request.http10 and not has_length(reader)

    def _switch(self, connection: "Outbound") -> None:
        connection.switch(self)
        if connection.reader.rest:
            self._inbound.send(connection.reader.rest)
        if rest := self._inbound.switch():
            connection.send(rest)

    def _refuse(self, error: GarrisonError, status: int = 502) -> None:
        """Answer with an error; `status` where the target did not answer."""
        self._end()
        if self._inbound.work is self:
            complete = self._request.complete
            found = self._plane.error_answer(error, self._request.target)
            self._inbound.answer(
                status if isinstance(error, UnreachableError) else found[0], found[1], found[2], close=not complete
            )

    def _end(self) -> None:
        self._plane.ended(self)
        target, self.target = self.target, None
        if target is not None:
            self._plane.leave(target)
