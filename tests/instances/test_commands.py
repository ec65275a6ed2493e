"""Commands that meet each other, restarts that are pending, and what comes back by itself."""

import asyncio
from typing import Any

import pytest

from garrison.base.errors import ConflictError, EngineDiedError, InvalidError, NotFoundError, NotReadyError
from garrison.instances.room.values import Device, Limits
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.testing.instances import MemoryRunner

from .world import World, now, run


def test_a_stop_wins_over_a_start_that_waits_for_the_end_of_another_stop() -> None:
    async def body(world: World) -> None:
        world.runner.stop_seconds = 5.0
        await world.create("a", "b")
        await world.manager.start("a")
        await asyncio.sleep(2)
        waiting = asyncio.create_task(world.use("b"))
        await asyncio.sleep(1)
        assert world.state("a") is State.DRAINING, "it makes room for b"
        await world.manager.start("a")
        await world.manager.stop("a")
        await waiting
        await asyncio.sleep(30)
        assert world.state("a") is State.STOPPED
        assert world.runner.starts == ["a", "b"]

    run(World(limits=Limits(1, residency=0.5)), body)


def test_a_request_cannot_start_what_is_being_deleted_and_a_command_finds_it_gone() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        deleting = asyncio.create_task(world.manager.delete("a"))
        starting = asyncio.create_task(world.manager.start("a"))
        await asyncio.sleep(0)
        asking = asyncio.create_task(world.use("a"))
        for task in (starting, asking):
            with pytest.raises(NotFoundError):
                await task
        await deleting
        await world.manager.delete("a")
        assert world.runner.starts == []
        assert world.store.records == {}

    run(World(), body)


def test_what_the_store_could_not_delete_is_still_there() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        world.store.fails = ConflictError("the disk is gone")
        with pytest.raises(ConflictError):
            await world.manager.delete("a")
        world.store.fails = None
        await world.use("a")

    run(World(), body)


def test_an_instance_cannot_be_renamed() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        with pytest.raises(InvalidError, match="cannot be renamed"):
            await world.manager.update("a", InstanceSpec(name="b"))

    run(World(), body)


def test_callers_wait_for_a_restart_that_comes_in_time_and_are_told_of_one_that_does_not() -> None:
    async def body(world: World) -> None:
        await world.create("a", restart_delay=20.0)
        await world.use("a")
        world.runner.alive["a"].crash("exited with 1")
        await asyncio.sleep(0.1)
        with pytest.raises(NotReadyError, match="is restarted in 20 s: exited with 1") as caught:
            await world.manager.acquire("a", timeout=5)
        assert caught.value.details["retry_after"] == 20
        began = now()
        await world.use("a")
        assert now() - began == pytest.approx(20.9, abs=0.2)

    run(World(), body)


def test_a_failed_start_is_held_against_requests_for_longer_each_time_but_not_against_commands() -> None:
    async def body(world: World) -> None:
        world.runner.fails["a"] = EngineDiedError("out of memory")
        await world.create("a", restart_delay=4.0)
        for starts, pause in ((1, 4.1), (2, 8.1), (3, 16.1)):
            with pytest.raises(EngineDiedError, match="out of memory"):
                await world.use("a")
            assert len(world.runner.starts) == starts
            with pytest.raises(EngineDiedError) as caught:  # told at once, without another start
                await world.use("a")
            assert caught.value.details["retry_after"] == round(pause - 0.1)
            assert len(world.runner.starts) == starts
            await asyncio.sleep(pause)
        with pytest.raises(EngineDiedError):
            await world.use("a")
        del world.runner.fails["a"]
        await world.manager.start("a")
        await world.use("a")
        assert world.state("a") is State.RUNNING

    run(World(), body)


def test_a_start_that_was_asked_for_goes_on_without_its_callers() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        stream = await world.manager.acquire("a")
        await world.manager.start("b")
        waiting = asyncio.create_task(world.use("b"))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(5)
        assert world.state("b") is State.STARTING
        stream.release()
        await asyncio.sleep(5)
        assert (world.state("a"), world.state("b")) == (State.STOPPED, State.RUNNING)

    run(World(limits=Limits(1, residency=0.5, patience=1000.0)), body)


def test_a_start_by_command_ages_as_a_request_does() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.manager.acquire("a")
        await world.manager.start("b")
        await asyncio.sleep(30 + 5 + 3)
        assert world.state("b") is State.RUNNING
        assert world.reason("a") == "makes room for b; 1 requests were cut"

    run(World(limits=Limits(1, residency=0.5, patience=30.0), drain_timeout=5.0), body)


def test_preloaded_ones_start_with_the_server_by_priority_and_come_back_when_there_is_room() -> None:
    async def body(world: World) -> None:
        await world.create("low", "high", "other", preload=True)
        await world.manager.update("other", InstanceSpec(name="other", idle_seconds=20.0))
        await world.manager.update("high", InstanceSpec(name="high", preload=True, priority=5))
        await world.manager.shutdown()
        await world.server()
        await asyncio.sleep(500)
        assert world.runner.starts == ["high"], "nobody has to leave for a preload"
        assert world.state("high") is State.RUNNING, "it is not stopped when idle"
        await world.use("other")
        assert world.state("high") is State.STOPPED
        await asyncio.sleep(30)
        assert world.runner.starts == ["high", "other", "high"]
        await world.manager.stop("high")
        await asyncio.sleep(10)
        assert world.state("high") is State.STOPPED, "what a command stops stays stopped"
        assert world.state("low") is State.RUNNING, "and its room is used"

    run(World(limits=Limits(1, residency=0.5)), body)


def test_a_failure_of_one_look_does_not_end_what_brings_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(world: World) -> None:
        await world.create("a", preload=True)
        read, failures = world.devices.read, [OSError("the driver is gone")]

        async def failing() -> Any:
            if failures:
                raise failures.pop()
            return await read()

        monkeypatch.setattr(world.devices, "read", failing)
        await world.manager.shutdown()
        await world.server()
        await asyncio.sleep(40)
        assert failures == []
        assert world.state("a") is State.RUNNING

    run(World(), body)


def test_the_server_starts_nothing_before_it_knows_what_runs() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.manager.start("b")
        await asyncio.sleep(3)
        await world.manager.start("a")  # waits: b has only just become ready
        await world.manager.shutdown()
        await world.server()
        await asyncio.sleep(10)
        assert (world.state("a"), world.state("b")) == (State.STOPPED, State.RUNNING)
        assert world.runner.most_alive == 1
        await world.manager.stop("b")
        await asyncio.sleep(5)
        assert world.state("a") is State.RUNNING, "it was wanted, and now there is room"

    run(World(limits=Limits(1, residency=50.0)), body)


def test_loads_on_disjoint_devices_run_side_by_side() -> None:
    async def body(world: World) -> None:
        world.devices.devices = [Device("gpu0", 10, 10), Device("gpu1", 10, 10)]
        for name in "ab":
            world.devices.needs[name] = (8, 1)
        await world.create("a", "b")
        began = now()
        await asyncio.gather(world.use("a"), world.use("b"))
        assert now() - began == pytest.approx(10.0), "and not twenty"

    run(World(MemoryRunner(start_seconds=10.0), limits=Limits(residency=0.5)), body)


def test_the_progress_of_a_start_names_a_remaining_time_only_where_one_was_measured() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        first = asyncio.create_task(world.use("a"))
        await asyncio.sleep(4)
        found = world.manager.loading(world.manager.get("a"))
        assert found == {"state": "starting", "reason": "starting", "phase": "loading weights", "seconds": 4.0}
        await first
        await world.manager.stop("a")
        asking = asyncio.create_task(world.manager.acquire("a", timeout=4))
        await asyncio.sleep(0)
        with pytest.raises(NotReadyError) as caught:
            await asking
        loading = caught.value.details["loading"]
        assert (loading["remaining"], loading["progress"], caught.value.details["retry_after"]) == (6.0, 0.4, 6)

    run(World(MemoryRunner(start_seconds=10.0)), body)
