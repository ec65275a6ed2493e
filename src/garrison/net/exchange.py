"""One HTTP/1.1 connection as the client sees it: a request goes out, a response comes back, whole or piece by piece."""

import asyncio
import time
from collections.abc import Hashable

from garrison.net.errors import TLS_NOT_PLAIN, TransportCause, TransportError, transport_error
from garrison.net.http1.flow import FlowControl
from garrison.net.http1.limits import HeaderList
from garrison.net.http1.responses import ResponseReader

__all__ = ["Exchange"]

_TLS_ALERT = b"\x15"
"""The first byte that a TLS server answers to plain text. No HTTP response begins with it."""
_AHEAD_BYTES = 64 * 1024
"""A stream buffers this much, plus one read, for a slow consumer. After that the socket is not read, which slows the
server down."""


class Exchange(FlowControl):
    """The protocol of one connection, which carries one request at a time.

    After `start`, the response is read in exactly one of two ways: `whole` and then `body`, or `head` and then `piece`
    until it returns nothing. The caller closes the exchange after any error, and when it leaves a response unread.

    Attributes:
        opened_at: `time.monotonic()` when it was opened.
        idle_since: `time.monotonic()` at the end of the last response.
        answered_any: a byte arrived after the last request was sent.
        key: what requests must have in common to share this connection, for a pool; set by the opener.
    """

    __slots__ = (
        "_buffered",
        "_closed",
        "_done",
        "_error",
        "_keep",
        "_pieces",
        "_reader",
        "_timeout",
        "_timer",
        "_waiter",
        "_whole",
        "answered_any",
        "idle_since",
        "key",
        "opened_at",
    )

    def __init__(self) -> None:
        super().__init__()
        self._reader = ResponseReader(self)
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timeout = 0.0
        self._error: TransportError | None = None
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._whole = True
        self._done = False
        self._keep = True
        self._closed = False
        self.answered_any = False
        self.opened_at = self.idle_since = time.monotonic()
        self.key: Hashable = None

    @property
    def usable(self) -> bool:
        """Whether another request can be sent."""
        return self._keep and not self._closed and not self._reader.waiting

    @property
    def status(self) -> int:
        return self._reader.status

    def headers(self) -> dict[str, str]:
        """Return the headers; names are in lower case, and the values of a repeated one are joined with commas."""
        found: dict[str, str] = {}
        for name, value in self._reader.headers:
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            found[key] = f"{found[key]}, {text}" if key in found else text
        return found

    def start(self, message: bytes, *, method: str, limit: int, timeout: float, whole: bool) -> None:
        """Send a request.

        Args:
            limit: bytes of the response's body.
            timeout: seconds until the last byte of the response must have arrived.
            whole: the response will be read with `whole`, so it is buffered up to the limit without flow control.

        Raises:
            TransportError: the connection is gone.
        """
        self._error = None
        self._pieces = []
        self._buffered = 0
        self._whole = whole
        self._done = False
        self.answered_any = False
        if self._closed:
            raise TransportError(TransportCause.RESET, "the connection was closed before the request")
        if not self.send(message):  # the server has closed it, and the loop has not reported that yet
            raise TransportError(TransportCause.RESET, "the connection was closed before the request")
        self._reader.expect(method, limit)
        self._timeout = timeout
        self._timer = asyncio.get_running_loop().call_later(timeout, self._expired)

    def body(self) -> bytes:
        """Return the body for which `whole` has waited."""
        return b"".join(self._pieces)

    async def whole(self) -> None:
        """Wait until the response is complete.

        Raises:
            TransportError: no complete response arrived.
        """
        while self._reader.waiting:
            await self._wait()
        if self._error is not None:
            raise self._error

    async def head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            TransportError: none arrived.
        """
        while not self._reader.status and self._reader.waiting:
            await self._wait()
        if self._error is not None and not self._reader.status:
            raise self._error

    async def piece(self) -> bytes:
        """Wait for more of the body, and return what has arrived since the last call; empty at its end.

        Raises:
            TransportError: the rest does not arrive.
        """
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if not self._reader.waiting:
                return b""
            await self._wait()
        pieces, self._pieces = self._pieces, []
        self._buffered = 0
        self.pause_reading(False)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close now, without TLS's closing handshake, which a server that does not answer would delay. A task that
        still waits for the response gets an error."""
        self._closed = True
        if self._reader.waiting:
            self._reader.waiting = False
            self._error = TransportError(TransportCause.RESET, "the connection was closed on this side", sent=True)
            self._wake()
        self._stop_timer()
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if not self.answered_any:
            self.answered_any = True
            if data.startswith(_TLS_ALERT) and self._reader.waiting:
                self._fail(TransportCause.TLS, TLS_NOT_PLAIN)
                return
        self._reader.feed(data)
        if self._buffered > _AHEAD_BYTES and not self._whole and self._reader.waiting:
            self.pause_reading(True)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._closed = True
        if not self._reader.waiting or (exc is None and self._reader.eof()):
            return
        if isinstance(exc, OSError):
            self._give_up(transport_error(exc, sent=True))
        else:
            when = "in the middle of" if self.answered_any else "before"
            self._fail(TransportCause.RESET, f"the connection was closed {when} the answer")

    # --- ResponseSink

    def response_interim(self, status: int, headers: HeaderList) -> None: ...

    def response_head(self) -> None:
        if not self._whole:
            self._wake()

    def response_body(self, piece: bytes) -> None:
        self._pieces.append(piece)
        if not self._whole:
            self._buffered += len(piece)
            self._wake()

    def response_end(self, keep_alive: bool) -> None:
        self._done = True
        self._keep = keep_alive
        self.idle_since = time.monotonic()
        self._stop_timer()
        self.pause_reading(False)  # otherwise a close by the server would go unnoticed
        self._wake()

    def response_failed(self, reason: str) -> None:
        self._fail(TransportCause.MALFORMED, reason)

    # ---

    async def _wait(self) -> None:
        assert self._waiter is None, "two tasks read one response"
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _expired(self) -> None:
        self._fail(TransportCause.TIMEOUT, f"no answer within {self._timeout:g} s")

    def _fail(self, cause: TransportCause, detail: str) -> None:
        self._give_up(TransportError(cause, detail, sent=True))

    def _give_up(self, error: TransportError) -> None:
        """Close, with an error if the response is incomplete. A complete one stays valid: what arrived after it only
        makes the connection unusable."""
        self._reader.waiting = False
        if not self._done:
            self._error = error
        self.close()
        self._wake()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
