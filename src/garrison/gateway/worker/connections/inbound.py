"""Connections of clients: requests in, in order, and their answers out."""

import asyncio
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Protocol

from garrison.base.errors import GarrisonError, InvalidError
from garrison.gateway.requests.errors import error_answer
from garrison.gateway.worker.heads.head_facts import facts_of
from garrison.net.http1.flow import FlowControl
from garrison.net.http1.limits import HeaderList, Limits
from garrison.net.http1.requests import Refusal, RequestReader
from garrison.net.http1.writing import CONTINUE, status_line

if TYPE_CHECKING:
    from garrison.gateway.worker.plane import Plane

__all__ = ["Inbound", "Request", "Work"]

_HEAD_BYTES = 64 * 1024
_MOST_WAITING = 16
"""Requests of one connection that have arrived before their turn; after that it is not read from."""
_MOST_WRITTEN = 128 * 1024
"""Bytes that wait for a client that reads slowly; then the target is not read from either."""
_MOST_STREAMED = 256 * 1024
_LINGER_SECONDS = 2.0
"""For a client to stop sending, once it has been answered before the end of its request."""
_UNREAD_SECONDS = 60.0
"""For a client to read something of its last answer."""
_RESET = struct.pack("ii", 1, 0)


class Work(Protocol):
    """Whatever answers a request."""

    def body(self, piece: bytes) -> None: ...
    def body_end(self) -> None: ...
    def cancel(self) -> None:
        """The client has gone."""

    def pause(self, paused: bool) -> None:
        """The client reads slowly, or takes more again."""


class Request:
    """One request: its head, and what has arrived of its body."""

    __slots__ = ("at", "complete", "expects", "facts", "headers", "http10", "keep_alive", "length", "method", "pieces",
                 "size", "target", "upgrade")  # fmt: skip

    def __init__(self, reader: RequestReader, at: float) -> None:
        self.method = reader.method
        self.target = reader.target
        self.headers: HeaderList = reader.headers
        self.facts = facts_of(reader)
        self.length = reader.length
        self.http10 = reader.http10
        self.expects = reader.expects_continue
        self.upgrade = reader.upgrade
        self.pieces: list[bytes] = []
        self.size = 0
        self.complete = False
        self.keep_alive = False
        self.at = at


class Inbound(FlowControl):
    """One connection of a client.

    Attributes:
        request: the one that is being answered.
        begun: bytes of its answer have been written.
        at: the loop's time of the last byte that arrived or of the last answer's end, for the limits of slow clients.
        head_at: when the first byte of an incomplete head arrived; 0 without one.
        ends: nothing more is read, and the connection is over at this time at the latest; 0 while it is in use.
    """

    __slots__ = ("_going_on", "_plane", "_reader", "_reading", "_unread", "_waiting", "at", "begun", "ends", "head_at",
                 "peer", "raw", "request", "work")  # fmt: skip

    def __init__(self, plane: "Plane") -> None:
        super().__init__()
        self._plane = plane
        limits = Limits(head_bytes=_HEAD_BYTES, body_bytes=plane.settings.max_body_bytes)
        self._reader = RequestReader(self, limits, plane.heads)
        self._reading: Request | None = None
        self._waiting: deque[Request | Refusal] = deque()
        self._going_on = False
        self._unread = 0
        self.request: Request | None = None
        self.work: Work | None = None
        self.begun = False
        self.raw = False
        self.peer = ""
        self.at = plane.now()
        self.head_at = self.ends = 0.0

    # --- of the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=_MOST_WRITTEN)
        peer = transport.get_extra_info("peername")
        self.peer = peer[0] if isinstance(peer, tuple) else ""
        self._plane.inbound.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._plane.inbound.discard(self)
        self._waiting.clear()
        self.request = None
        if (work := self.work) is not None:
            self.work = None
            work.cancel()

    def data_received(self, data: bytes) -> None:
        self.at = self._plane.now()
        if self.raw:
            if self.work is not None:
                self.work.body(data)
            return
        if self.ends:
            return
        self._reader.feed(data)
        if self._reading is None and not self.head_at and self._reader.under_way:
            self.head_at = self.at

    def eof_received(self) -> bool | None:
        # A client that shuts down its side has gone: none of those in use waits for an answer after that. What was
        # written is not waited for either, since such a client may never read it.
        if (work := self.work) is not None and not self.raw:
            self.abort()
            work.cancel()
        self.ends = self.ends or self.at + _LINGER_SECONDS
        return None

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.work is not None:
            self.work.pause(True)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.work is not None:
            self.work.pause(False)
        else:
            self._go_on()

    # --- of the reader

    def request_head(self) -> None:
        if self.ends:
            return
        self.head_at = 0.0
        request = self._reading = Request(self._reader, self.at)
        if self.request is None and not self._waiting and not self.congested:
            self._begin(request)
        else:
            self._waiting.append(request)
            if len(self._waiting) >= _MOST_WAITING:
                self.pause_reading(True)

    def request_body(self, piece: bytes) -> None:
        request = self._reading
        if request is None:
            return
        request.size += len(piece)
        if request is self.request and self.work is not None:
            self.work.body(piece)
        else:
            request.pieces.append(piece)
            if request is not self.request and request.size > _MOST_STREAMED:
                self.pause_reading(True)

    def request_end(self, keep_alive: bool) -> None:
        request, self._reading = self._reading, None
        if request is None:
            return
        request.complete, request.keep_alive = True, keep_alive and not self._plane.draining
        if request is self.request and self.work is not None:
            self.work.body_end()

    def request_refused(self, refusal: Refusal) -> None:
        """What cannot be read is answered after everything before it, and ends the connection."""
        if self.ends:
            return
        self.head_at = 0.0
        reading, self._reading = self._reading, None
        if reading is not None and reading is self.request:
            work, self.work = self.work, None
            begun = self.begun
            if begun:
                self.abort()
            if work is not None:
                work.cancel()
            if begun:
                return
            self.request = None
        elif reading is not None:
            self._waiting.pop()
        self._waiting.append(refusal)
        self._go_on()

    # --- of the work

    def answer(self, status: int, headers: HeaderList, body: bytes, *, close: bool = False) -> None:
        """Write a whole answer of the gateway's own, and go on with the next request."""
        request = self.request
        head = request is not None and request.method == b"HEAD"
        keep = request is not None and request.complete and request.keep_alive and not close
        lines = [status_line(status).encode(), *(b"%b: %b" % pair for pair in headers)]
        lines.append(b"content-length: %d" % len(body))
        if not keep:
            lines.append(b"connection: close")
        elif request is not None and request.http10:
            lines.append(b"connection: keep-alive")
        data = b"\r\n".join(lines) + b"\r\n\r\n"
        self.begun = True
        self.send(data if head else data + body)
        self.next(keep)

    def refuse(self, error: GarrisonError) -> None:
        """Answer with an error, in the shape that the client of the path expects."""
        request = self.request
        target = b"" if request is None else request.target
        self.answer(*self._plane.error_answer(error, target))

    def next(self, keep: bool) -> None:
        """The answer is complete: close, or go on with the next request."""
        complete = self.request is not None and self.request.complete
        self.request = self.work = None
        self.begun = False
        self.at = self._plane.now()
        if keep:
            self._go_on()
        else:
            self._finish(complete)

    def _go_on(self) -> None:
        """Begin what has arrived, unless the client has still to read what it was sent before."""
        if self._going_on or self._transport is None:
            return
        self._going_on = True  # as a loop, since thousands of requests can have arrived at once
        while self._waiting and self.request is None and not self.congested and not self.ends:
            request = self._waiting.popleft()
            if isinstance(request, Refusal):
                self._answer_unreadable(request)
            else:
                self._begin(request)
        self._going_on = False
        if not self._waiting:
            self.pause_reading(False)
            if self._plane.draining and self.request is None:
                self._finish(self._reading is None)

    def go_on(self) -> None:
        """The client may send the body that it has announced."""
        request = self.request
        if request is not None and request.expects and not request.complete and not request.size:
            request.expects = False
            self.send(CONTINUE)

    def switch(self) -> bytes:
        """From now on bytes pass as they are. Returns those that have arrived."""
        self.raw = True
        self.pause_reading(False)
        return self._reader.rest

    def abort(self) -> None:
        """End the connection so that the client sees that an answer is incomplete."""
        request = self.request
        self.work = self.request = None
        self.ends = self.ends or self.at
        if self._transport is None:
            return
        if request is not None and request.http10 and (own := self._transport.get_extra_info("socket")) is not None:
            # Its body may end where the connection ends. Only a reset differs from that.
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()

    def end(self, now: float) -> None:
        """The time in `ends` is over. A client that still reads its answer gets more of it."""
        if self._transport is None:
            return
        unread, self._unread = self._unread, self._transport.get_write_buffer_size()
        if self._unread and (not unread or self._unread < unread):
            self.ends = now + _UNREAD_SECONDS
        else:
            self.abort()

    def quiet(self) -> bool:
        """Nothing is in progress."""
        return self.request is None and self._reading is None and not self._waiting

    @property
    def in_body(self) -> bool:
        return self._reading is not None

    @property
    def paused(self) -> bool:
        """It is not read from, so that it cannot be slow."""
        return self._read_paused

    @property
    def congested(self) -> bool:
        """What was sent has not been read yet."""
        return self._writable is not None

    def close(self) -> None:
        self.ends = self.ends or self._plane.now() + _LINGER_SECONDS
        if self._transport is not None:
            self._transport.close()

    def _begin(self, request: Request) -> None:
        self.request = request
        self.begun = False
        try:
            self.work = work = self._plane.work_for(self, request)
        except GarrisonError as error:
            self.work = work = self._refuse_early(request, error)
        if work is None:  # it is answered
            return
        for piece in request.pieces:
            work.body(piece)
        request.pieces.clear()
        if request.complete and self.work is work:
            work.body_end()

    def _refuse_early(self, request: Request, error: GarrisonError) -> Work | None:
        """Refuse a request by its head. Its body is read and dropped if it is short, and not asked for."""
        if request.expects and not request.complete and not request.size:
            self.refuse(error)
            return None
        return _Dropped(self, error)

    def _answer_unreadable(self, refusal: Refusal) -> None:
        error = _RefusedError(refusal.reason)
        self.answer(refusal.status, *error_answer(error)[1:], close=True)

    def _finish(self, complete: bool) -> None:
        """Close once everything is written.

        A client that is not done with its request goes on sending, and what arrives at a closed socket resets the
        connection, with the answer unread. So what it sends is read and dropped for a while.
        """
        transport = self._transport
        if transport is None or self.ends:
            return
        self.ends = self._plane.now() + _LINGER_SECONDS
        self._waiting.clear()
        self._reading = None
        if complete or transport.is_closing():
            transport.close()
            return
        self.pause_reading(False)
        if transport.can_write_eof():
            transport.write_eof()


class _Dropped:
    """Reads the body of a refused request, so that the client reads the answer, and the connection goes on."""

    def __init__(self, inbound: Inbound, error: GarrisonError) -> None:
        self._inbound, self._error, self._size = inbound, error, 0

    def body(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > _MOST_STREAMED:
            self._inbound.refuse(self._error)

    def body_end(self) -> None:
        self._inbound.refuse(self._error)

    def cancel(self) -> None: ...
    def pause(self, paused: bool) -> None: ...


class _RefusedError(InvalidError):
    """A request that cannot be read."""
