"""One end of the connection: a protocol that sends messages and hands over those that arrive."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import msgspec

from garrison.base.logs import logger
from garrison.gateway.link.messages import FromControl, FromWorker

__all__ = ["Peer", "control_peer", "worker_peer"]

T = TypeVar("T")
_log = logger(__name__)
_LENGTH = 4
_MOST_BYTES = 256 * 2**20


class Peer(asyncio.Protocol, Generic[T]):
    """Sends messages, each with its length before it, and decodes those that arrive.

    Args:
        kind: the union of what arrives.
        received: is called with each message. What it raises ends the connection.
        lost: is called once, when the connection has ended.
    """

    def __init__(self, kind: Any, received: Callable[[T], None], lost: Callable[[], None]) -> None:
        self._decoder = msgspec.msgpack.Decoder(kind)
        self._encoder = msgspec.msgpack.Encoder()
        self._received, self._lost = received, lost
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def send(self, message: object) -> bool:
        """Send a message; False if the other end is gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        data = self._encoder.encode(message)
        transport.write(len(data).to_bytes(_LENGTH, "big") + data)
        return True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= _LENGTH:
                size = int.from_bytes(buffer[at : at + _LENGTH], "big")
                if size > _MOST_BYTES:
                    raise msgspec.DecodeError(f"a message of {size} bytes")
                if len(buffer) - at - _LENGTH < size:
                    break
                message = self._decoder.decode(memoryview(buffer)[at + _LENGTH : at + _LENGTH + size])
                at += _LENGTH + size
                self._received(message)
        except msgspec.MsgspecError as error:
            _log.warning("a message of the gateway's cannot be read", error=str(error))
            self.close()
            return
        del buffer[:at]


def worker_peer(received: Callable[[FromControl], None], lost: Callable[[], None]) -> Peer[FromControl]:
    """The end of a worker."""
    return Peer(FromControl, received, lost)


def control_peer(received: Callable[[FromWorker], None], lost: Callable[[], None]) -> Peer[FromWorker]:
    """The end of the control process."""
    return Peer(FromWorker, received, lost)
