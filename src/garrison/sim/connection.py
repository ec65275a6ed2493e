"""One HTTP/1.1 connection: parsing, order of answers, streams, and its several ends.

Bounds: bytes of a head, bytes of a body, requests read ahead, seconds an idle or a half-sent request may take. A client
that goes away cancels the task that works for it; one that does not read is not answered further. One that has sent too
many requests ahead is not read further, and so is not seen to go away either, as with uvicorn.
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

import httptools

from garrison.sim.messages import ConnectionDroppedError, Later, Request, Response, head

__all__ = ["App", "Connection", "Host", "Limits"]

App = Callable[[Request], Response | Later]
"""Answers a request at once, or with something to await for the answer; only the latter costs a task."""

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_LINGER_SECONDS = 2.0
_RESET = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a connection: bytes, requests, seconds."""

    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024
    pipelined: int = 16
    idle_seconds: float = 5.0
    head_seconds: float = 30.0


class Host(Protocol):
    """What a connection needs of its server."""

    app: App
    limits: Limits

    def opened(self, connection: "Connection") -> None:
        """A client has connected."""

    def closed(self, connection: "Connection") -> None:
        """It is gone."""

    def abandoned(self) -> None:
        """It went while it was being answered."""

    def date(self, now: float) -> str:
        """The Date header. `now` is the loop's time."""


class Connection(asyncio.Protocol):
    __slots__ = (
        "_body",
        "_body_size",
        "_busy",
        "_closing",
        "_head_bytes",
        "_head_size",
        "_headers",
        "_host",
        "_in_message",
        "_last",
        "_loop",
        "_parser",
        "_peer",
        "_queue",
        "_read_paused",
        "_refused",
        "_since",
        "_target",
        "_task",
        "_transport",
        "_writable",
    )

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpRequestParser | None = None
        self._peer = ""
        self._queue: deque[Request | Response] = deque()
        self._busy = False
        self._closing = False
        self._last = False
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._read_paused = False
        self._refused: int | None = None
        self._since = loop.time()
        self._in_message = False
        self._head_bytes = 0
        self._head_size = 0
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._body_size = 0

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpRequestParser(self)
        peer = transport.get_extra_info("peername")
        self._peer = peer[0] if isinstance(peer, tuple) else ""
        self._host.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.closed(self)
        self._closing = True
        self._parser = None
        self._queue.clear()
        if self._task is not None:
            self._host.abandoned()
            self._task.cancel()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._closing or self._last:
            return
        if self._head_bytes >= 0:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._parser = None  # what follows is not HTTP; the request itself is answered as usual
        except httptools.HttpParserError:
            self._refuse(400)
        if self._head_bytes > self._host.limits.head_bytes:
            self._refuse(431)
        if self._refused is not None and self._parser is not None:
            self._parser = None
            self._queue.append(_refusal(self._refused))
        self._pump()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None:
            if not self._writable.done():
                self._writable.set_result(None)
            self._writable = None
        self._pump()

    # --- httptools

    def on_message_begin(self) -> None:
        self._in_message = True
        self._since = self._loop.time()
        self._target = b""
        self._head_size = 0
        self._headers = {}
        self._body = []
        self._body_size = 0

    def on_url(self, url: bytes) -> None:
        self._target += url
        self._head_size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_size += len(name) + len(value) + 4
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._head_bytes = -1
        limits = self._host.limits
        if self._head_size > limits.head_bytes:
            self._refuse(431)
        length = self._headers.get("content-length", "")
        if length.isdigit() and int(length) > limits.body_bytes:
            self._refuse(413)
        expects = self._headers.get("expect", "").lower() == "100-continue"
        if expects and self._refused is None and not self._busy and self._transport is not None:
            self._transport.write(_CONTINUE)

    def on_body(self, body: bytes) -> None:
        self._body_size += len(body)
        if self._body_size > self._host.limits.body_bytes:
            self._refuse(413)
            return
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._in_message = False
        self._head_bytes = 0
        if self._refused is not None or self._parser is None:
            return
        target, _, query = self._target.decode("latin-1").partition("?")
        if "://" in target[:8]:
            target = "/" + target.split("://", 1)[1].partition("/")[2]
        self._queue.append(
            Request(
                method=self._parser.get_method().decode("latin-1"),
                path=target,
                query=query,
                headers=self._headers,
                body=b"".join(self._body) if self._body else b"",
                peer=self._peer,
                keep_alive=self._parser.should_keep_alive() and not self._parser.should_upgrade(),
                http10=self._parser.get_http_version() == "1.0",
            )
        )

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
        self._regulate_reading()

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
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        body = cast("bytes", response.body)
        close = response.close or request is None or not request.keep_alive or self._last
        self._since = self._loop.time()
        headers = head(response, self._host.date(self._since), length=len(body), chunked=False, close=close)
        if response.cut:
            transport.write(headers + body[: len(body) // 2])
            self._loop.call_soon(self.reset)
            return
        bodiless = request is not None and request.method == "HEAD"
        transport.write(headers if bodiless else headers + body)
        if close:
            self._close_gently()

    async def _stream(self, request: Request, response: Response) -> None:
        transport, body = self._transport, response.body
        assert transport is not None
        assert not isinstance(body, bytes)
        close = response.close or not request.keep_alive or request.http10 or self._last
        chunked = not request.http10
        date = self._host.date(self._loop.time())
        transport.write(head(response, date, length=None, chunked=chunked, close=close))
        try:
            async for piece in body:
                transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                if self._writable is not None:
                    await self._writable
                if self._closing:
                    return
        finally:
            if (aclose := getattr(body, "aclose", None)) is not None:
                await aclose()
        if chunked:
            transport.write(b"0\r\n\r\n")
        self._since = self._loop.time()
        if close or self._last:
            self._close_gently()

    # --- the end

    def expire(self, now: float) -> None:
        """Close a connection that has been silent too long."""
        if self._busy or self._queue or self._closing:
            return
        limits = self._host.limits
        if self._in_message or self._head_bytes > 0:
            if now - self._since > limits.head_seconds:
                self._send(None, _refusal(408))
        elif now - self._since > limits.idle_seconds:
            self.abort()

    def finish(self) -> None:
        """Close now if idle, else after the answer that is under way."""
        if self._busy:
            self._queue.clear()
            self._last = True
        else:
            self.abort()

    def abort(self) -> None:
        """Close: what was answered completely still goes out, what is under way does not."""
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        if self._busy or self._writable is not None:
            transport.abort()
        else:
            transport.close()

    def reset(self) -> None:
        """End the connection with RST, as a process that was killed does."""
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
        """Half-close and read on for a moment: closing with unread input would destroy the answer on its way."""
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        if self._refused is not None and transport.can_write_eof():
            transport.resume_reading()
            transport.write_eof()
            self._loop.call_later(_LINGER_SECONDS, transport.close)
        else:
            transport.close()

    def _refuse(self, status: int) -> None:
        if self._refused is None:
            self._refused = status

    def _regulate_reading(self) -> None:
        transport = self._transport
        if transport is None or self._closing or transport.is_closing():
            return
        full = len(self._queue) >= self._host.limits.pipelined
        if full and not self._read_paused:
            self._read_paused = True
            transport.pause_reading()
        elif not full and self._read_paused:
            self._read_paused = False
            transport.resume_reading()


def _refusal(status: int) -> Response:
    texts = {
        400: b"Invalid HTTP request received.",
        408: b"Request timed out.",
        413: b"Request body too large.",
        431: b"Request header fields too large.",
    }
    return Response(status, texts[status], "text/plain; charset=utf-8", close=True)
