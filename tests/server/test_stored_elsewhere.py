"""What one worker has seen the others hear of, through the control process."""

import asyncio
import os
from pathlib import Path

import psutil
import pytest
from server_lab import Labs

import garrison
from garrison.gateway.link import messages
from garrison.gateway.link.peer import Peer, worker_peer

pytestmark = pytest.mark.system


class FakeWorker:
    """A worker that only talks."""

    def __init__(self, path: Path, start: int) -> None:
        self._path, self._start = path, start
        self.heard: asyncio.Queue[messages.FromControl] = asyncio.Queue()
        self.peer: Peer[messages.FromControl]

    async def connect(self, pid: int) -> None:
        loop = asyncio.get_running_loop()
        _, self.peer = await loop.create_unix_connection(
            lambda: worker_peer(self.heard.put_nowait, lambda: None), str(self._path)
        )
        self.peer.send(
            messages.Hello(protocol=messages.PROTOCOL, version=garrison.__version__, pid=pid, start=self._start)
        )
        async with asyncio.timeout(10):
            await self.heard.get()  # it has been greeted

    async def hears(self, kind: type) -> messages.FromControl:
        async with asyncio.timeout(10):
            while not isinstance(found := await self.heard.get(), kind):
                pass
        return found


def test_a_response_that_one_worker_has_seen_the_others_hear_of(labs: Labs) -> None:
    lab = labs(gateway_workers="4")
    lab.start()

    async def told() -> messages.FromControl:
        start = int(psutil.Process().create_time())
        one, other = (FakeWorker(lab.data_dir / "gateway.sock", start) for _ in range(2))
        seen = messages.Stored(id="resp_1", target="instance:a", model="a")
        try:
            await one.connect(os.getpid())
            await other.connect(os.getppid())
            one.peer.send(seen)
            found = await other.hears(messages.Stored)
            assert one.heard.empty() or not isinstance(one.heard.get_nowait(), messages.Stored), "it knows that"
            return found
        finally:
            one.peer.close()
            other.peer.close()

    assert asyncio.run(told()) == messages.Stored(id="resp_1", target="instance:a", model="a")
