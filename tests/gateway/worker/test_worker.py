"""The worker as a whole: where it listens, and until when."""

import asyncio
import socket
from pathlib import Path

import pytest

from garrison.gateway.link import messages
from garrison.gateway.worker.worker import Worker


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def opened(worker: Worker, folder: Path) -> int:
    """Have a worker listen; return the port."""
    port = free_port()
    worker._ordered(settings(port, folder))
    assert worker._opening is not None
    await worker._opening
    return port


def settings(port: int, folder: Path) -> messages.Settings:
    return messages.Settings(host="127.0.0.1", port=port, control_socket=str(folder / "control"), drain_seconds=3.0)


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


@pytest.mark.parametrize("begun", [False, True], ids=["told while it leaves", "told just before"])
async def test_one_that_leaves_does_not_listen_again(tmp_path: Path, begun: bool) -> None:
    worker = Worker(str(tmp_path / "link"))
    before, after = await opened(worker, tmp_path), free_port()
    assert await listens(before)
    if begun:
        worker._ordered(settings(after, tmp_path))
    worker._ordered(messages.Drain(seconds=1.0))
    if not begun:
        worker._ordered(settings(after, tmp_path))
    assert worker._opening is not None
    await worker._opening
    assert not await listens(after)
    assert worker._drain_seconds == 1.0
    worker._tasks = [asyncio.create_task(asyncio.sleep(0))]
    await worker.shutdown()
    assert not await listens(before)


async def test_one_that_stays_does(tmp_path: Path) -> None:
    worker = Worker(str(tmp_path / "link"))
    before = await opened(worker, tmp_path)
    after = await opened(worker, tmp_path)
    assert (await listens(before), await listens(after)) == (False, True)
    worker._tasks = [asyncio.create_task(asyncio.sleep(0))]
    await worker.shutdown()
