"""The cases of Lemonade's eviction tests, for instances: memory, idleness, interruption, weight, commands at once."""

import asyncio
import contextlib

import pytest

from garrison.base.errors import NotReadyError
from garrison.instances.room.values import HOST, Device, Limits
from garrison.instances.values.state import State
from garrison.testing.instances import MemoryRunner

from .world import World, run


def memory_for_two(*, can_sleep: bool = False, idle: float = 0.0) -> World:
    world = World(
        MemoryRunner(start_seconds=3.0, can_sleep=can_sleep), limits=Limits(residency=0.5, patience=30.0), idle=idle
    )
    world.devices.devices = [Device("gpu", 10, 10), Device(HOST, 100, 100)]
    for name in "abc":
        world.devices.needs[name] = (4, 1)
    return world


def test_for_want_of_memory_the_one_that_was_idle_longest_goes() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", "c")
        await world.use("a")
        await asyncio.sleep(2)
        await world.use("b")
        await asyncio.sleep(2)
        await world.use("c")
        assert [world.state(name) for name in "abc"] == [State.STOPPED, State.RUNNING, State.RUNNING]

    run(memory_for_two(), body)


def test_an_idle_one_gives_up_its_memory_and_stays_loaded() -> None:
    async def body(world: World) -> None:
        await world.create("a", idle_seconds=5.0)
        await world.use("a")
        await asyncio.sleep(6)
        assert world.state("a") is State.SLEEPING
        assert world.manager.get("a").held == {"gpu": 0, HOST: 0}
        assert "a" in world.runner.alive

    run(memory_for_two(can_sleep=True), body)


@pytest.mark.parametrize("after", [3.0, 3.1, 3.2, 3.5, 20.0])
def test_a_request_interrupts_that_and_is_served(after: float) -> None:
    async def body(world: World) -> None:
        await world.create("a", idle_seconds=3.0)
        await world.use("a")
        await asyncio.sleep(after)
        await world.use("a")
        assert world.state("a") is State.RUNNING
        assert world.runner.starts == ["a"]

    run(memory_for_two(can_sleep=True), body)


def test_one_that_is_costly_to_bring_back_is_spared() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", "c")
        world.runner.start_seconds = 300.0
        lease = await world.manager.acquire("a", timeout=400)
        lease.release()
        world.runner.start_seconds = 3.0
        await asyncio.sleep(2)
        await world.use("b")
        await asyncio.sleep(2)
        await world.use("c")
        assert [world.state(name) for name in "abc"] == [State.RUNNING, State.STOPPED, State.RUNNING]

    run(memory_for_two(), body)


def test_commands_in_the_middle_of_rests_and_wakes_are_safe() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", idle_seconds=1.0)

        async def churn(name: str, pause: float) -> None:
            for _ in range(30):
                with contextlib.suppress(NotReadyError):  # the other one ejected it just then
                    await world.manager.start(name)
                    await asyncio.sleep(pause)
                    await world.use(name)
                    await asyncio.sleep(1.0 + pause / 2)
                    await world.manager.eject(name)

        await asyncio.gather(churn("a", 0.05), churn("a", 0.31), churn("b", 1.13), churn("b", 2.9))
        for name in "ab":
            await world.use(name)
            assert world.state(name) is State.RUNNING

    run(memory_for_two(can_sleep=True), body)
