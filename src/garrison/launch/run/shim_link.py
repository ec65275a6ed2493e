"""The starter's end of its connection to a shim: JSON lines over a socket pair.

A stream of asyncio forgets what it has received once the peer resets the connection or a write fails. A shim that exits
while a request is on its way does both, and its last line, the engine's exit status, must not be lost.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Mapping
from typing import Any

__all__ = ["ShimLink"]

_CHUNK = 65536
_LONGEST_LINE = 1024 * 1024


class ShimLink:
    """One connection. Belongs to one event loop; one task at a time may wait for events."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._connection = connection
        self._received = b""
        self._receiving = False
        self._closed = False

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a message of any size. A shim that has exited is seen by `event`."""
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self._connection, _line(message))

    def request(self, message: Mapping[str, Any]) -> None:
        """Send a short message, unless the shim has exited or reads no more."""
        if not self._closed:
            with contextlib.suppress(OSError):
                self._connection.send(_line(message))

    async def event(self) -> dict[str, Any] | None:
        """Return the next event, skipping answers to requests; None when the shim has exited."""
        while (message := await self._next()) is not None and "event" not in message:
            pass
        return message

    async def answer(self) -> dict[str, Any] | None:
        """Return the next answer to a request, skipping events; None when the shim has exited."""
        while (message := await self._next()) is not None and "event" in message:
            pass
        return message

    async def _next(self) -> dict[str, Any] | None:
        while True:
            line, newline, rest = self._received.partition(b"\n")
            if newline:
                self._received = rest
                message: dict[str, Any] = json.loads(line)
                return message
            if len(line) > _LONGEST_LINE or not await self._receive():
                return None

    def close(self) -> None:
        """Close the connection, at which an idle shim exits. A task that waits for an event gets None."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._close_when_idle()

    async def _receive(self) -> bool:
        if self._closed:
            return False
        self._receiving = True
        try:
            data = await asyncio.get_running_loop().sock_recv(self._connection, _CHUNK)
        except OSError:
            return False
        finally:
            self._receiving = False
            self._close_when_idle()
        self._received += data
        return bool(data)

    def _close_when_idle(self) -> None:
        """Close the descriptor, but not while the event loop watches it."""
        if self._closed and not self._receiving:
            self._connection.close()


def _line(message: Mapping[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
