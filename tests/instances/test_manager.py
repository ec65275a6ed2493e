"""The manager over its twins, on a clock that does not wait."""

import asyncio

import pytest

from garrison.base.errors import ConflictError, EngineDiedError, InvalidError, NotFoundError, NotReadyError
from garrison.instances.room.values import HOST, Device, Limits
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State

from .world import World, run


async def use(world: World, name: str, seconds: float = 0.0) -> None:
    lease = await world.manager.acquire(name)
    await asyncio.sleep(seconds)
    lease.release()


def test_a_request_starts_it_and_idleness_stops_it() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a"))
        await use(world, "a", 100)
        assert world.state("a") is State.RUNNING
        await asyncio.sleep(59)
        assert world.state("a") is State.RUNNING
        await asyncio.sleep(2)
        assert world.state("a") is State.STOPPED
        assert world.manager.get("a").record.condition.reason == "no request for 60 s"

    run(World(idle=60.0), body)


def test_two_hundred_callers_join_one_start_and_those_who_leave_are_gone() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a"))
        tasks = [asyncio.create_task(use(world, "a", 1)) for _ in range(200)]
        await asyncio.sleep(0.5)
        for task in tasks[::2]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [one for one in done[1::2] if one is not None] == []
        assert all(isinstance(one, asyncio.CancelledError) for one in done[::2])
        assert world.runner.starts == ["a"]
        assert world.manager.get("a").leases == 0
        assert not world.manager.get("a").waiters

    run(World(), body)


def test_a_caller_that_leaves_costs_no_eviction() -> None:
    async def body(world: World) -> None:
        for name in "ab":
            await world.manager.create(InstanceSpec(name=name))
        await use(world, "a")
        waiting = asyncio.create_task(use(world, "b"))
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.sleep(100)
        assert (world.state("a"), world.state("b")) == (State.RUNNING, State.STOPPED)
        assert world.runner.starts == ["a"]

    run(World(limits=Limits(most=1, residency=5.0)), body)


def test_when_the_start_fails_every_caller_gets_the_cause() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a"))
        world.runner.fails["a"] = EngineDiedError("out of memory")
        done = await asyncio.gather(*(use(world, "a") for _ in range(5)), return_exceptions=True)
        assert [str(one) for one in done] == ["out of memory"] * 5
        assert world.state("a") is State.FAILED
        with pytest.raises(EngineDiedError):  # asked again at once, it is not started again
            await use(world, "a")
        assert world.runner.starts == ["a"]
        del world.runner.fails["a"]
        await asyncio.sleep(10)
        await use(world, "a")
        assert world.state("a") is State.RUNNING

    run(World(), body)


def test_the_queue_and_the_wait_are_bounded() -> None:
    async def body(world: World) -> None:
        world.runner.start_seconds = 500
        await world.manager.create(InstanceSpec(name="a"))
        tasks = [asyncio.create_task(use(world, "a")) for _ in range(4)]
        await asyncio.sleep(1)
        done, pending = await asyncio.wait(tasks, timeout=0.1)
        assert len(pending) == 3
        (full,) = done
        assert isinstance(full.exception(), NotReadyError)
        done, _ = await asyncio.wait(pending, timeout=31)
        errors = [one.exception() for one in done]
        assert all(isinstance(one, NotReadyError) for one in errors)
        assert "loading" in errors[0].details  # type: ignore[union-attr]  # it is there
        assert errors[0].details["loading"]["phase"] == "loading weights"  # type: ignore[union-attr]  # it is there

    run(World(queue=3, start_timeout=30.0), body)


def test_one_is_evicted_for_another_but_not_while_it_is_busy() -> None:
    async def body(world: World) -> None:
        for name in "ab":
            await world.manager.create(InstanceSpec(name=name))
        stream = await world.manager.acquire("a")
        waiting = asyncio.create_task(world.manager.acquire("b"))
        await asyncio.sleep(8)
        assert (world.state("a"), world.state("b")) == (State.RUNNING, State.STARTING)
        assert "a is busy" in world.manager.get("b").record.condition.reason
        stream.release()
        (await waiting).release()
        assert (world.state("a"), world.state("b")) == (State.STOPPED, State.RUNNING)
        assert world.manager.get("a").record.condition.reason == "makes room for b"

    run(World(limits=Limits(most=1, residency=5.0)), body)


def test_nobody_starves_behind_one_that_is_always_busy() -> None:
    async def body(world: World) -> None:
        for name in "ab":
            await world.manager.create(InstanceSpec(name=name))

        async def keep_busy() -> None:
            while True:
                await asyncio.gather(use(world, "a", 2), asyncio.sleep(1))

        tasks = [asyncio.create_task(keep_busy()) for _ in range(3)]
        await asyncio.sleep(3)
        began = asyncio.get_running_loop().time()
        await use(world, "b")
        assert asyncio.get_running_loop().time() - began < 30 + 2 + 2 + 1
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(World(limits=Limits(most=1, residency=5.0, patience=30.0)), body)


def test_a_pinned_one_stays() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a", pin=True))
        await world.manager.create(InstanceSpec(name="b"))
        await use(world, "a")
        with pytest.raises(NotReadyError):
            await world.manager.acquire("b", timeout=500)
        assert (world.state("a"), world.state("b")) == (State.RUNNING, State.STOPPED) or "pinned" in (
            world.manager.get("b").record.condition.reason
        )
        assert world.runner.starts == ["a"]

    run(World(limits=Limits(most=1)), body)


def test_memory_that_fits_two_of_three() -> None:
    async def body(world: World) -> None:
        world.devices.devices = [Device(HOST, 10, 10)]
        for name in "abc":
            world.devices.needs[name] = (4, 0)
            await world.manager.create(InstanceSpec(name=name))
        await use(world, "a")
        await asyncio.sleep(5)
        await use(world, "b")
        await asyncio.sleep(20)
        await use(world, "c")
        assert [world.state(name) for name in "abc"] == [State.STOPPED, State.RUNNING, State.RUNNING]
        world.devices.needs["c"] = (11, 0)
        await world.manager.stop("c")
        with pytest.raises(ConflictError, match="cannot run here"):
            await use(world, "c")

    run(World(limits=Limits(residency=5.0)), body)


def test_a_crash_is_restarted_with_backoff_until_the_budget_is_used_up() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a", max_restarts=2, restart_delay=4.0))
        await world.manager.start("a")
        await asyncio.sleep(2)
        world.runner.alive["a"].crash("exited with 1")
        await asyncio.sleep(1)
        assert world.state("a") is State.RESTARTING
        await asyncio.sleep(5)
        assert world.state("a") is State.RUNNING
        world.runner.alive["a"].crash("exited with 1")
        await asyncio.sleep(7)
        assert world.state("a") is State.RESTARTING
        await asyncio.sleep(3)
        world.runner.alive["a"].crash("exited with 1")
        await asyncio.sleep(0.1)
        assert world.state("a") is State.FAILED
        assert world.manager.get("a").record.condition.reason == "exited with 1 after 2 restarts"
        await world.manager.start("a")
        await asyncio.sleep(400)
        world.runner.alive["a"].crash("exited with 1")
        await asyncio.sleep(1)
        assert world.manager.get("a").restarts.used == 1, "a stable run refills the budget"

    run(World(), body)


def test_a_pending_restart_can_be_cancelled() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a", restart_delay=50.0))
        await world.manager.start("a")
        await asyncio.sleep(2)
        world.runner.alive["a"].crash()
        await asyncio.sleep(1)
        await world.manager.stop("a")
        assert world.state("a") is State.STOPPED
        await asyncio.sleep(100)
        assert world.runner.starts == ["a"]
        await world.manager.delete("a")

    run(World(), body)


def test_a_server_that_is_killed_leaves_engines_that_its_successor_adopts() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a"))
        await world.manager.create(InstanceSpec(name="b"))
        await world.manager.start("a")
        await world.manager.start("b")
        await asyncio.sleep(5)
        pid = world.runner.alive["a"].pid
        await world.manager.shutdown()
        world.runner.alive["b"].crash()
        await world.server()
        assert (world.state("a"), world.manager.get("a").engine.pid) == (State.RUNNING, pid)  # type: ignore[union-attr]  # it is there
        await asyncio.sleep(3)
        assert world.state("b") is State.RUNNING, "what should run is started again"
        assert world.runner.starts == ["a", "b", "b"]

    run(World(), body)


def test_commands_are_idempotent_and_their_errors_are_clear() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a", port=8005))
        with pytest.raises(ConflictError, match="exists already"):
            await world.manager.create(InstanceSpec(name="a"))
        with pytest.raises(ConflictError, match="port 8005 belongs to instance a"):
            await world.manager.create(InstanceSpec(name="b", port=8005))
        for name in ("", ".", "..", "a/b", "a" * 51, "-a", "a b", "ä"):
            with pytest.raises(InvalidError):
                await world.manager.create(InstanceSpec(name=name))
        with pytest.raises(NotFoundError):
            await world.manager.start("nope")
        await world.manager.stop("a")
        await world.manager.start("a")
        await world.manager.start("a")
        await asyncio.sleep(2)
        await world.manager.start("a")
        assert world.runner.starts == ["a"]
        with pytest.raises(ConflictError, match="is running"):
            await world.manager.delete("a")
        await world.manager.stop("a")
        await world.manager.stop("a")
        await world.manager.delete("a")
        await world.manager.delete("a")
        assert world.store.records == {}

    run(World(), body)


def test_an_update_restarts_only_for_what_the_engine_must_know() -> None:
    async def body(world: World) -> None:
        await world.manager.create(InstanceSpec(name="a", options={"model": "m"}))
        await world.manager.start("a")
        await asyncio.sleep(2)
        assert not await world.manager.update("a", InstanceSpec(name="a", options={"model": "m"}, group="g"))
        assert world.runner.starts == ["a"]
        assert await world.manager.update("a", InstanceSpec(name="a", options={"model": "n"}, group="g"))
        await asyncio.sleep(2)
        assert world.runner.starts == ["a", "a"]
        with pytest.raises(ConflictError, match="changed by somebody else"):
            await world.manager.update("a", InstanceSpec(name="a"), revision=1)

    run(World(), body)


def test_the_context_that_an_engine_serves_is_known_until_its_options_change() -> None:
    async def body(world: World) -> None:
        world.runner.context = 4096
        await world.manager.create(InstanceSpec(name="a", options={"model": "m"}))
        live = world.manager.get("a")
        assert live.context is None
        await use(world, "a", 1)
        assert live.context == 4096
        await world.manager.stop("a")
        await world.manager.update("a", InstanceSpec(name="a", options={"model": "m"}, group="g"))
        assert live.context == 4096, "it will be the same"
        await world.manager.update("a", InstanceSpec(name="a", options={"model": "n"}, group="g"))
        assert live.context is None
        world.runner.context = 8192
        await use(world, "a", 1)
        assert live.context == 8192

    run(World(), body)


def test_a_router_is_measured_again_and_again_since_its_models_come_and_go() -> None:
    async def body(world: World) -> None:
        for name, preset in (("r", "[one]"), ("a", None)):
            await world.manager.create(InstanceSpec(name=name, engine="llama_cpp", preset_ini=preset))
            world.devices.needs[name] = (10, 0)
            await use(world, name, 1)
        for took in (30, 20):
            world.devices.needs["r"] = world.devices.needs["a"] = (took, 0)
            await asyncio.sleep(11)
            router = world.manager.get("r")
            assert (router.held, router.record.costs.memory_bytes) == ({HOST: took}, {HOST: took})
        assert world.manager.get("a").held == {HOST: 10}
        revision = len(world.store.events)
        await asyncio.sleep(100)
        assert len(world.store.events) == revision
        await world.manager.stop("r")
        assert router.held is None

    run(World(idle=1e6), body)
