"""Connections to targets: a request out, its answer in, then back to the idle ones of its target."""

import asyncio
import socket
import ssl
from typing import Protocol

from garrison.gateway.worker.table.targets import Target
from garrison.net.http1.flow import FlowControl
from garrison.net.http1.known_heads import KnownHeads
from garrison.net.http1.limits import HeaderList
from garrison.net.http1.responses import ResponseReader

__all__ = ["Answered", "Outbound", "connect"]

_MOST_IDLE = 512
_NO_LIMIT = 2**62
_HEAD_BYTES = 64 * 1024
_heads = KnownHeads(answers=True)
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds of silence before the other machine is asked, between two questions, and how many go unanswered."""
_contexts: dict[str, ssl.SSLContext] = {}


class Answered(Protocol):
    """Whoever sent the request."""

    def answer_interim(self, status: int, headers: HeaderList) -> None: ...
    def answer_head(self, reader: ResponseReader) -> None: ...
    def answer_body(self, piece: bytes) -> None: ...
    def answer_end(self) -> None: ...

    def answer_flush(self) -> None:
        """Everything that has arrived at once was reported: write it."""

    def answer_lost(self, reason: str) -> None:
        """The answer will not be complete."""

    def answer_raw(self, data: bytes) -> None:
        """Bytes of another protocol, after `Outbound.switch`."""

    def writable(self) -> None:
        """More of the request can be sent."""


class Outbound(FlowControl):
    """One connection. At most one request uses it at a time.

    Attributes:
        reader: of answers.
        used: it has carried a request before, so that the target may have closed it meanwhile.
        closed: the target has closed it in order.
    """

    __slots__ = ("_at", "_owner", "_raw", "closed", "reader", "target", "used")

    def __init__(self, target: Target) -> None:
        super().__init__()
        self.target = target
        self._at = (target.host, target.port, target.path)
        self.reader = ResponseReader(self, head_bytes=_HEAD_BYTES, heads=_heads)
        self.used = self.closed = False
        self._owner: Answered | None = None
        self._raw = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self.target.path is None:
            _watch_peer(transport.get_extra_info("socket"))

    @property
    def alive(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def request(self, owner: Answered, method: str, data: bytes, *, switch: bool = False) -> None:
        """Send a request, or its beginning."""
        self._owner = owner
        self.reader.expect(method, _NO_LIMIT, switch=switch)
        self.send(data)

    def abort(self) -> None:
        """End the connection at once, which tells the target that nobody waits for the answer."""
        self._owner = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        self._owner = None
        if self._transport is not None:
            self._transport.close()

    def rest(self) -> None:
        """Keep the connection for another request."""
        target = self.target
        self._owner = None
        self.pause_reading(False)
        here = self._at == (target.host, target.port, target.path)  # else the target has moved meanwhile
        if self.alive and here and target.open and len(target.idle) < _MOST_IDLE:
            self.used = True
            target.idle.append(self)
        else:
            self.close()

    def switch(self, owner: Answered) -> None:
        """From now on bytes pass as they are."""
        self._owner, self._raw = owner, True

    def data_received(self, data: bytes) -> None:
        owner = self._owner
        if owner is None:  # nothing was asked
            self.close()
            return
        if self._raw:
            owner.answer_raw(data)
            return
        self.reader.feed(data)
        owner.answer_flush()

    def eof_received(self) -> None:
        return None

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.closed = exc is None
        owner = self._owner
        if owner is None:
            if self in self.target.idle:
                self.target.idle.remove(self)
            return
        if exc is None and self.reader.eof():
            owner.answer_flush()
            return
        self._owner = None
        owner.answer_lost("the connection was closed" if exc is None else str(exc) or type(exc).__name__)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._owner is not None:
            self._owner.writable()

    @property
    def congested(self) -> bool:
        """What was sent has not been taken yet."""
        return self._writable is not None

    # --- of the reader

    def response_interim(self, status: int, headers: HeaderList) -> None:
        if self._owner is not None:
            self._owner.answer_interim(status, headers)

    def response_head(self) -> None:
        if self._owner is not None:
            self._owner.answer_head(self.reader)

    def response_body(self, piece: bytes) -> None:
        if self._owner is not None:
            self._owner.answer_body(piece)

    def response_end(self, keep_alive: bool) -> None:
        if self._owner is not None:
            self._owner.answer_end()

    def response_failed(self, reason: str) -> None:
        owner, self._owner = self._owner, None
        self.abort()
        if owner is not None:
            owner.answer_lost(reason)


def _watch_peer(own: socket.socket) -> None:
    """Have the kernel notice a machine that is gone, since an answer may take as long as it likes."""
    own.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:  # not on every system
            own.setsockopt(socket.IPPROTO_TCP, option, value)


async def connect(target: Target) -> Outbound:
    """Open a connection. Both uvloop and asyncio switch Nagle's algorithm off.

    Raises:
        OSError: it cannot be opened.
    """
    loop = asyncio.get_running_loop()
    if target.path is not None:
        _, made = await loop.create_unix_connection(lambda: Outbound(target), target.path)
        return made
    context = await _context(target) if target.tls else None
    _, made = await loop.create_connection(lambda: Outbound(target), target.host, target.port, ssl=context)
    return made


async def _context(target: Target) -> ssl.SSLContext:
    key = "system"
    if key not in _contexts:
        _contexts[key] = await asyncio.to_thread(ssl.create_default_context)
    return _contexts[key]
