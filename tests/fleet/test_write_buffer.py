"""What the agent has seen reaches the history once, whatever happens to the caller of a write."""

import asyncio
import threading
from typing import Any

import pytest
from fleet_world import World

from garrison.base.errors import LockedError
from garrison.fleet.agent.write_buffer import WriteBuffer
from garrison.store.records import Event


@pytest.mark.parametrize("queued", [False, True], ids=["in progress", "queued"])
@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_write_is_continued_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, queued: bool, fails: bool
) -> None:
    begun, go_on, sight, failures = threading.Event(), threading.Event(), world.store.sight, [LockedError("busy")]

    def slow(*args: Any) -> None:
        begun.set()
        assert go_on.wait(5)
        if fails and failures:
            raise failures.pop()
        sight(*args)

    def wait_in_front() -> None:
        begun.set()
        assert go_on.wait(5)

    monkeypatch.setattr(world.store, "sight", slow)
    front = asyncio.create_task(world.fleet.db(wait_in_front)) if queued else None
    await asyncio.sleep(0)
    buffer = WriteBuffer()
    buffer.add([Event(at=world.clock.now(), kind="drift", stack="lab", cause="a test")])
    writing = asyncio.create_task(buffer.write(world.fleet))
    assert await asyncio.to_thread(begun.wait, 5)
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert buffer
    go_on.set()
    async with asyncio.timeout(5):
        if fails:
            with pytest.raises(LockedError):
                await buffer.write(world.fleet)
        while buffer:
            await buffer.write(world.fleet)
        if front is not None:
            await front
    assert [one.cause for one in world.store.events()] == ["a test"]
