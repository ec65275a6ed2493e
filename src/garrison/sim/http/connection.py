"""One HTTP/1.1 connection of the simulator: the order of answers, streams, and how it ends.

`garrison.net.http1` does the framing. This adds what a server decides: sizes of heads and bodies, requests read ahead,
and how long an idle or half-sent request may last. When a client disconnects, the task that works for it is cancelled;
a client that does not read gets no further answers. A client that has pipelined too many requests is not read any
further, so its disconnect goes unnoticed until then, as with uvicorn.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from garrison.net.http1 import limits as http1
from garrison.net.http1.flow import FlowControl
from garrison.net.http1.requests import Refusal, RequestReader
from garrison.net.http1.writing import CONTINUE, LAST_CHUNK, chunk, has_body
from garrison.sim.http.messages import ConnectionDroppedError, Later, Request, Response, head

__all__ = ["App", "Connection", "Host", "Limits"]

App = Callable[[Request], Response | Later]
"""Answers a request at once, or returns something to await. Only the latter costs a task."""

_LINGER_SECONDS = 2.0
_RESET = struct.pack("ii", 1, 0)
_REFUSALS = {
    400: b"Invalid HTTP request received.",
    408: b"Request timed out.",
    413: b"Request body too large.",
    431: b"Request header fields too large.",
    501: b"Transfer coding not supported.",
    505: b"HTTP version not supported.",
}


@dataclass(frozen=True, slots=True)
class Limits(http1.Limits):
    """Bounds of a connection: sizes of its messages, number of requests, and seconds.

    Attributes:
        pipelined: requests read ahead of the one being answered.
    """

    pipelined: int = 16
    idle_seconds: float = 5.0
    head_seconds: float = 30.0


class Host(Protocol):
    """What a connection needs from its server."""

    app: App
    limits: Limits

    def opened(self, connection: "Connection") -> None:
        """Called when a client has connected."""

    def closed(self, connection: "Connection") -> None:
        """Called when the connection is gone."""

    def abandoned(self) -> None:
        """Called when the client disconnected before it had its answer."""

    def date(self, now: float) -> str:
        """Return the Date header; `now` is the loop's time."""


class Connection(FlowControl):
    """The protocol of one client, and the sink of what its reader finds."""

    __slots__ = (
        "_body",
        "_busy",
        "_closing",
        "_headers",
        "_host",
        "_last",
        "_loop",
        "_peer",
        "_queue",
        "_reader",
        "_refused",
        "_since",
        "_task",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._host = host
        self._loop = loop
        self._reader = RequestReader(self, host.limits)
        self._peer = ""
        self._queue: deque[Request | Response] = deque()
        self._busy = False
        self._closing = False
        self._last = False
        self._task: asyncio.Task[None] | None = None
        self._refused = False
        self._since = loop.time()
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.closed(self)
        self._closing = True
        self._queue.clear()
        if self._task is not None:
            self._host.abandoned()
            self._task.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._closing or self._last:
            return
        idle = not self._reader.under_way
        self._reader.feed(data)
        if idle and self._reader.under_way:
            self._since = self._loop.time()
        self._pump()

    def eof_received(self) -> bool:
        return False

    def resume_writing(self) -> None:
        super().resume_writing()
        self._pump()

    # --- RequestSink

    def request_head(self) -> None:
        reader = self._reader
        self._headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reader.headers}
        self._body = []
        if reader.expects_continue and not self._busy:
            self.send(CONTINUE)

    def request_body(self, piece: bytes) -> None:
        self._body.append(piece)

    def request_end(self, keep_alive: bool) -> None:
        reader = self._reader
        target, _, query = reader.target.decode("latin-1").partition("?")
        if target[:1] != "/" and "://" in target[:8]:
            target = "/" + target.split("://", 1)[1].partition("/")[2]
        body = b"".join(self._body) if self._body else b""
        method = reader.method.decode("latin-1")
        # By position: keyword arguments would cost a twelfth of the whole request.
        self._queue.append(Request(method, target, query, self._headers, body, self._peer, keep_alive, reader.http10))

    def request_refused(self, refusal: Refusal) -> None:
        self._refused = True
        self._queue.append(_refusal(refusal.status))

    # --- answering

    def _pump(self) -> None:
        while self._queue and not self._busy and not self._closing and self._writable is None:
            item = self._queue.popleft()
            if isinstance(item, Response):
                self._send(None, item)
                break
            answer = self._host.app(item)
            if isinstance(answer, Response) and isinstance(answer.body, bytes):
                self._send(item, answer)
            else:
                self._busy = True
                self._task = self._loop.create_task(self._answer_later(item, answer))
                self._task.add_done_callback(self._answered)
        full = len(self._queue) >= self._host.limits.pipelined
        if full is not self._read_paused and not self._closing:
            self.pause_reading(full)

    async def _answer_later(self, request: Request, answer: Response | Later) -> None:
        try:
            response = answer if isinstance(answer, Response) else await answer()
            if isinstance(response.body, bytes):
                self._send(request, response)
            else:
                await self._stream(request, response)
        except ConnectionDroppedError:
            self.reset()

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._task = None
        self._busy = False
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler({"message": "a simulated handler failed", "exception": error})
            self.abort()
        if not self._closing:
            self._pump()

    def _send(self, request: Request | None, response: Response) -> None:
        body = cast("bytes", response.body)
        close = response.close or request is None or not request.keep_alive or self._last
        self._since = self._loop.time()
        headers = head(response, self._host.date(self._since), length=len(body), chunked=False, close=close)
        if response.cut:
            self.send(headers + body[: len(body) // 2])
            self._loop.call_soon(self.reset)
            return
        bodiless = request is not None and not has_body(request.method, response.status)
        if self.send(headers if bodiless else headers + body) and close:
            self._close_gently()

    async def _stream(self, request: Request, response: Response) -> None:
        body = response.body
        assert not isinstance(body, bytes)
        close = response.close or not request.keep_alive or request.http10 or self._last
        bodiless = not has_body(request.method, response.status)
        chunked = not request.http10
        self.send(head(response, self._host.date(self._loop.time()), length=None, chunked=chunked, close=close))
        try:
            async for piece in body:
                if bodiless:
                    break
                self.send(chunk(piece) if chunked else piece)
                await self.drained()
                if self._closing:
                    return
        finally:
            if (aclose := getattr(body, "aclose", None)) is not None:
                await aclose()
        if chunked and not bodiless:
            self.send(LAST_CHUNK)
        self._since = self._loop.time()
        if close or self._last:
            self._close_gently()

    # --- the end

    def expire(self, now: float) -> None:
        """Close a connection that has been silent too long."""
        if self._busy or self._queue or self._closing:
            return
        limits = self._host.limits
        if self._reader.under_way:
            if now - self._since > limits.head_seconds:
                self._send(None, _refusal(408))
        elif now - self._since > limits.idle_seconds:
            self.abort()

    def finish(self) -> None:
        """Close now if idle, else after the answer in progress."""
        if self._busy:
            self._queue.clear()
            self._last = True
        else:
            self.abort()

    def abort(self) -> None:
        """Close the connection. Complete answers are still sent, an answer in progress is not."""
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        if self._busy or self._writable is not None:
            transport.abort()
        else:
            transport.close()

    def reset(self) -> None:
        """End the connection with RST, as the death of a process does."""
        transport = self._transport
        if transport is None:
            return
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.fileno() >= 0:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as twin:
                twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._closing = True
        transport.abort()

    def _close_gently(self) -> None:
        """Close after the answer. After a refusal, half-close and read for a moment longer: closing with unread input
        would reset the connection, and the client could lose the answer."""
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        if self._refused and transport.can_write_eof():
            self.pause_reading(False)
            transport.write_eof()
            self._loop.call_later(_LINGER_SECONDS, transport.close)
        else:
            transport.close()


def _refusal(status: int) -> Response:
    return Response(status, _REFUSALS[status], "text/plain; charset=utf-8", close=True)
