"""Who may be a worker: processes of this user, and of root."""

import asyncio
import os

from garrison.server.listeners import peer_uid
from garrison.server.workers.door import WorkerDoor

__all__ = ["Guarded"]


class Guarded(asyncio.Protocol):
    """Lets only this user's processes, and root's, be workers."""

    def __init__(self, door: WorkerDoor) -> None:
        self._peer = door.peer

    def data_received(self, data: bytes) -> None:
        self._peer.data_received(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        uid = peer_uid(transport.get_extra_info("socket"))
        self._peer.connection_made(transport)
        if uid is not None and uid not in (0, os.geteuid()):
            self._peer.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.connection_lost(exc)
