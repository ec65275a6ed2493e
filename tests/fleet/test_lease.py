"""One writer a stack."""

import asyncio
import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from fleet_world import World

from garrison.base.errors import ConflictError
from garrison.fleet.execute import lease as lease_module
from garrison.fleet.execute.lease import hold
from garrison.store.records import Lease


async def test_it_is_given_back(world: World) -> None:
    async with hold(world.fleet, "lab", "apply"):
        assert [one.stack for one in world.store.leases()] == ["lab"]
        with pytest.raises(ConflictError, match="stack lab has been held by"):
            async with hold(world.fleet, "lab", "apply"):
                pass
        async with hold(world.fleet, "other", "apply"):
            pass
    assert world.store.leases() == []


async def test_it_is_given_back_after_an_error(world: World) -> None:
    with pytest.raises(RuntimeError):
        async with hold(world.fleet, "lab", "apply"):
            raise RuntimeError
    assert world.store.leases() == []


async def test_a_holder_that_loses_the_lease_is_stopped(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.03)

    async def work() -> None:
        async with hold(world.fleet, "lab", "apply") as held:
            world.store.release(held.token)
            await asyncio.sleep(10)

    with pytest.raises(ConflictError, match="was taken over by another command"):
        await work()


async def test_it_is_renewed_while_the_work_lasts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "LEASE_SECONDS", 0.03)
    async with hold(world.fleet, "lab", "apply") as held:
        world.clock.advance(100)
        async with asyncio.timeout(5):
            while world.store.leases()[0].expires_at == held.expires_at:
                await asyncio.sleep(0.005)


async def test_a_cancel_from_outside_stays_a_cancel(world: World) -> None:
    held = asyncio.Event()

    async def work() -> None:
        async with hold(world.fleet, "lab", "apply"):
            held.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    async with asyncio.timeout(5):
        await held.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.store.leases() == []


async def test_a_cancel_while_it_is_acquired_leaves_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The call in the database's thread cannot be cancelled: it acquires the lease after its caller has gone."""
    begun, go_on = threading.Event(), threading.Event()
    acquire = world.store.acquire

    def slow(*args: Any, **kwargs: Any) -> Any:
        begun.set()
        assert go_on.wait(5)
        return acquire(*args, **kwargs)

    monkeypatch.setattr(world.store, "acquire", slow)

    async def work() -> None:
        async with hold(world.fleet, "lab", "apply"):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(work())
    assert await asyncio.to_thread(begun.wait, 5)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.fleet.db(lambda: None)  # behind everything that thread was given
    assert world.store.leases() == []


async def test_a_process_that_cannot_be_seen_from_here_is_not_judged_dead(world: World) -> None:
    """Another container of this machine: the same name and boot, and pids of its own."""
    ours = lease_module.this_process("apply")
    machine, _, namespace = ours.host.rpartition("/")
    assert namespace.startswith("pid:")
    there = replace(ours, host=f"{machine}/pid:[1]", pid=1, started=1)
    now = world.clock.now()
    until = now + timedelta(seconds=30)
    world.store.acquire(Lease(stack="lab", token="t", holder=there, acquired_at=now, expires_at=until), now)
    with pytest.raises(ConflictError, match="stack lab has been held by"):
        async with hold(world.fleet, "lab", "apply"):
            pass


async def test_a_holder_whose_store_hangs_is_stopped_when_the_lease_expires(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may take the stack by then."""
    go_on = threading.Event()
    for name, seconds in (("LEASE_SECONDS", 0.03), ("_LEAST_SECONDS", 0.03), ("_RELEASE_SECONDS", 0.03)):
        monkeypatch.setattr(lease_module, name, seconds)
    monkeypatch.setattr(world.store, "renew", lambda *_: go_on.wait(10))

    async def work() -> None:
        async with hold(world.fleet, "lab", "apply"):
            await asyncio.sleep(5)

    try:
        async with asyncio.timeout(3):
            with pytest.raises(ConflictError, match="was taken over by another command"):
                await work()
    finally:
        go_on.set()
