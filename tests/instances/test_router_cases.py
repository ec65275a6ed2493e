"""The cases of llama.cpp's router tests, for instances. What is about its pages alone is shown as what they rest on."""

import asyncio

import pytest

from garrison.base.errors import NotFoundError, NotReadyError
from garrison.instances.room.values import Limits
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.testing.instances import MemoryRunner

from .world import World, now, run


def room_for(most: int) -> World:
    return World(MemoryRunner(start_seconds=2.0), limits=Limits(most, residency=0.5, patience=1000.0), idle=0.0)


def test_the_limit_and_what_starts_on_demand_are_visible() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.create("b", on_demand=False)
        assert world.manager.settings.limits.most == 2
        assert [live.spec.on_demand for live in world.manager.list()] == [True, False]

    run(room_for(2), body)


def test_a_request_for_a_model_that_exists_is_served_and_one_for_another_is_refused() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.use("a")
        with pytest.raises(NotFoundError, match="there is no instance 'nope'"):
            await world.use("nope")
        assert world.runner.starts == ["a"]

    run(room_for(2), body)


def test_a_loaded_model_can_be_unloaded() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.manager.start("a")
        await asyncio.sleep(3)
        assert world.state("a") is State.RUNNING
        assert await world.manager.eject("a") == ["a"]
        assert world.state("a") is State.STOPPED
        assert world.reason("a") == "ejected"
        assert await world.manager.eject("a") == []

    run(room_for(2), body)


def test_at_the_limit_the_least_recently_used_one_goes() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", "c")
        for name in "abc":
            await world.use(name)
            await asyncio.sleep(1)
        assert [world.state(name) for name in "abc"] == [State.STOPPED, State.RUNNING, State.RUNNING]

    run(room_for(2), body)


def test_the_queue_does_not_evict_a_busy_model() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        lease = await world.manager.acquire("a")
        queued = asyncio.create_task(world.use("b"))
        await asyncio.sleep(100)
        assert world.runner.alive["a"].stopped is None
        assert not queued.done()
        lease.release()
        await queued
        assert (world.state("a"), world.state("b")) == (State.STOPPED, State.RUNNING)

    run(room_for(1), body)


def test_the_queue_coalesces_requests_for_one_model() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", "c")
        await world.use("b")
        busy = await world.manager.acquire("a")
        await asyncio.gather(*(world.use("c") for _ in range(3)))
        busy.release()
        await asyncio.sleep(30)
        assert world.runner.starts == ["b", "a", "c"]
        assert [world.state(name) for name in "abc"] == [State.RUNNING, State.STOPPED, State.RUNNING]

    run(room_for(2), body)


def test_a_client_that_disconnects_in_the_queue_keeps_the_running_model() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        lease = await world.manager.acquire("a")
        with pytest.raises(NotReadyError):
            await world.manager.acquire("b", timeout=1)
        lease.release()
        await asyncio.sleep(30)
        assert (world.state("a"), world.state("b")) == (State.RUNNING, State.STOPPED)
        assert world.runner.starts == ["a"]

    run(room_for(1), body)


@pytest.mark.parametrize("pause", [0.0, 1.0, 4.9, 5.0, 7.3])
def test_the_queue_is_served_in_the_order_of_arrival(pause: float) -> None:
    async def body(world: World) -> None:
        names = "bcdef"
        await world.create("a", *names)
        served: list[str] = []

        async def ask(name: str) -> None:
            await world.use(name, 1)
            served.append(name)

        lease = await world.manager.acquire("a")
        tasks = []
        for name in names:
            tasks.append(asyncio.create_task(ask(name)))
            await asyncio.sleep(pause)
        await asyncio.sleep(3.7)
        lease.release()
        await asyncio.gather(*tasks)
        assert served == list(names)

    run(room_for(1), body)


def test_two_that_wait_for_one_idle_model_share_its_eviction() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", "c")
        await world.use("a")
        await asyncio.sleep(2)
        await asyncio.gather(world.use("b"), world.use("c"))
        assert world.state("a") is State.STOPPED
        assert sorted(world.runner.starts) == ["a", "b", "c"]

    run(room_for(1), body)


def test_without_start_on_demand_a_request_is_refused_until_it_was_started() -> None:
    async def body(world: World) -> None:
        await world.create("a", on_demand=False)
        with pytest.raises(NotReadyError, match="is not started on demand"):
            await world.use("a")
        await world.manager.start("a")
        await world.use("a")

    run(room_for(1), body)


def test_each_engine_has_a_key_that_its_callers_are_given() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        lease = await world.manager.acquire("a")
        assert lease.upstream.key
        assert lease.upstream.key not in repr(lease.upstream).replace(lease.upstream.url, "")
        lease.release()

    run(room_for(1), body)


def test_a_change_of_one_declaration_leaves_the_others_alone() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        for name in "ab":
            await world.use(name)
        pid = world.runner.alive["b"].pid
        await world.manager.stop("a")
        await world.manager.delete("a")
        await world.create("c")
        assert not await world.manager.update("b", InstanceSpec(name="b", priority=3))
        assert [live.name for live in world.manager.list()] == ["b", "c"]
        assert world.runner.alive["b"].pid == pid

    run(room_for(2), body)


def test_two_instances_of_one_model_are_two_and_a_name_is_one() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", options={"model": "m"})
        leases = [await world.manager.acquire(name) for name in "ab"]
        assert leases[0].upstream.url != leases[1].upstream.url
        assert {lease.upstream.model for lease in leases} == {"m"}
        for lease in leases:
            lease.release()

    run(room_for(2), body)


def test_declared_instances_are_listed_before_they_ever_ran_and_can_be_started() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", stack="box")
        assert [(live.name, live.state) for live in world.manager.list()] == [
            ("a", State.STOPPED), ("b", State.STOPPED),
        ]  # fmt: skip
        await world.use("b")
        assert world.state("b") is State.RUNNING

    run(room_for(2), body)


def test_what_prepares_a_start_shows_its_progress_and_takes_no_place_of_a_running_one() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        lease = await world.manager.acquire("a")
        events = world.manager.bus
        assert events is not None
        waiting = asyncio.create_task(world.use("b"))
        await asyncio.sleep(7)
        found = world.manager.loading(world.manager.get("b"))
        assert (found["phase"], found["seconds"]) == ("waiting for room", 7.0)
        assert "remaining" not in found, "nobody knows how long that takes"
        assert world.state("a") is State.RUNNING
        lease.release()
        await waiting

    run(room_for(1), body)


def test_what_is_deleted_is_gone_and_whoever_asks_for_it_is_told() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.manager.delete("a")
        assert world.manager.list() == []
        assert world.runner.forgotten == ["a"]
        with pytest.raises(NotFoundError):
            await world.use("a")

    run(room_for(1), body)


def test_two_hundred_waiters_on_one_cold_instance() -> None:
    """One start, every answer within the start, and of those who left nothing remains."""

    async def body(world: World) -> None:
        await world.create("a")
        tasks = [asyncio.create_task(world.use("a", 1)) for _ in range(200)]
        await asyncio.sleep(1)
        live = world.manager.get("a")
        assert len(live.waiters) == 200
        for task in tasks[::4]:
            task.cancel()
        await asyncio.sleep(0)
        assert len(live.waiters) == 150
        began = now()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert now() - began <= 2.0 + 1.0
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [at % 4 == 0 for at in range(200)]
        assert world.runner.starts == ["a"]
        assert (live.leases, len(live.waiters)) == (0, 0)

    run(room_for(1), body)
