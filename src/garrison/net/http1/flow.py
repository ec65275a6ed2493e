"""Flow control of one connection: stop reading what cannot be handled yet, and stop writing what is not being read."""

import asyncio
from typing import cast

__all__ = ["FlowControl"]


class FlowControl(asyncio.Protocol):
    """Base class of connections: controls the flow in both directions.

    A transport may close at any time, and uvloop's transports raise when used after that, so every use checks first.
    """

    __slots__ = ("_read_paused", "_transport", "_writable")

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._writable: asyncio.Future[None] | None = None
        self._read_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    async def drained(self) -> None:
        """Wait until the peer has read enough of what was written, or has closed the connection."""
        if self._writable is not None:
            await asyncio.shield(self._writable)  # one waiter's cancellation must not wake the others

    def send(self, data: bytes) -> bool:
        """Write, and return whether the connection was still open."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        transport.write(data)
        return True

    def pause_reading(self, paused: bool) -> None:
        """Stop reading from the socket, or resume. Repeating a call has no effect."""
        transport = self._transport
        if paused == self._read_paused or transport is None or transport.is_closing():
            return
        self._read_paused = paused
        if paused:
            transport.pause_reading()
        else:
            transport.resume_reading()
