"""One HTTP/1.1 connection as the client sees it: a request goes out, an answer comes back, both bounded."""

import asyncio
import time
from typing import cast

import httptools

from garrison.fleet.network_errors import transport_error
from garrison.fleet.observation import Cause
from garrison.fleet.transport import Answer, TransportError

__all__ = ["Exchange"]

_HEAD_BYTES = 64 * 1024
_TLS_ALERT = b"\x15\x03"


class Exchange(asyncio.Protocol):
    """The protocol of one connection. It may be used again while `usable`.

    Attributes:
        idle_since: `time.monotonic()` of the last answer's end.
        answered_any: a byte came after the last request was sent.
    """

    __slots__ = (
        "_body",
        "_closed",
        "_head_done",
        "_headers",
        "_keep",
        "_left",
        "_length_known",
        "_limit",
        "_parser",
        "_received",
        "_transport",
        "_waiter",
        "answered_any",
        "idle_since",
    )

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Answer] | None = None
        self._closed = False
        self._keep = True
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self.answered_any = False
        self.idle_since = time.monotonic()
        self._begin(0)

    @property
    def usable(self) -> bool:
        return self._keep and not self._closed

    async def send(self, message: bytes, limit: int) -> Answer:
        """Send one request and wait for its whole answer, whose body has at most `limit` bytes. The caller keeps the
        deadline, and closes after any error.

        Raises:
            TransportError: reset, tls or malformed.
        """
        assert self._transport is not None
        assert self._waiter is None
        self._waiter = asyncio.get_running_loop().create_future()
        self._begin(limit)
        try:
            self._transport.write(message)
            return await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """At once. Nothing of ours is under way when an answer is complete, and nothing else is worth waiting for: a
        TLS farewell to a server that does not answer would hold the socket."""
        self._closed = True
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._waiter is None or self._waiter.done():
            self.close()  # bytes that nobody asked for: what follows could not be told from an answer
            return
        if not self.answered_any:
            self.answered_any = True
            if data.startswith(_TLS_ALERT):
                self._fail(Cause.TLS, "the server speaks TLS here; declare it as https")
                return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(Cause.MALFORMED, "the answer is not HTTP")
        if self._waiter.done():
            return
        if not self._head_done and self._received > _HEAD_BYTES:
            self._fail(Cause.MALFORMED, f"the answer's head is larger than {_HEAD_BYTES} bytes")
        elif self._left < 0 or self._received > 2 * self._limit + _HEAD_BYTES:
            self._fail(Cause.MALFORMED, f"the answer is larger than {self._limit} bytes")

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._transport = None
        if self._waiter is None or self._waiter.done():
            return
        if exc is None and self._head_done and not self._length_known:
            self._answer()  # a body that ends with the connection
        elif isinstance(exc, OSError):
            self._waiter.set_exception(transport_error(exc, sent=True))
        else:
            when = "in the middle of" if self.answered_any else "before"
            self._fail(Cause.RESET, f"the connection was closed {when} the answer")

    # --- httptools

    def on_message_begin(self) -> None:
        if self._waiter is None or self._waiter.done():
            self._closed = True  # an answer after the answer
        self._headers = {}
        self._head_done = self._length_known = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        self._headers[key] = f"{self._headers[key]}, {text}" if key in self._headers else text

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() < 200:
            return
        self._head_done = True
        length = self._headers.get("content-length")
        self._length_known = length is not None or "transfer-encoding" in self._headers
        if length is not None and (not length.isdecimal() or int(length) > self._limit):
            self._left = -1

    def on_body(self, body: bytes) -> None:
        self._left -= len(body)
        if self._left >= 0:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() < 200 or self._left < 0:
            return  # 100 Continue and its like: the answer follows
        self._keep = self._parser.should_keep_alive()
        self._answer()

    # ---

    def _begin(self, limit: int) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._body = []
        self._limit = limit
        self._left = limit
        self._received = 0
        self._head_done = self._length_known = False
        self.answered_any = False

    def _answer(self) -> None:
        self.idle_since = time.monotonic()
        if self._waiter is not None and not self._waiter.done():
            answer = Answer(self._parser.get_status_code(), b"".join(self._body), self._headers)
            self._waiter.set_result(answer)

    def _fail(self, cause: Cause, detail: str) -> None:
        self._closed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(TransportError(cause, detail, sent=True))
