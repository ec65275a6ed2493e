"""Sleep instead of a stop: when, at which level, turned back, woken, failed, and found again by the next server."""

import asyncio
from typing import Any

import pytest

from garrison.base.errors import ConflictError, NotReadyError
from garrison.instances.room.values import HOST, Device, Limits
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.testing.instances import MemoryRunner
from garrison.testing.sleeping import SleepFaults

from .world import World, now, run


def sleepers(**settings: Any) -> World:
    """A machine with memory for one of its instances, whose engines sleep."""
    settings = {"limits": Limits(residency=1.0), "idle": 60.0, "sleep_timeout": 20.0, **settings}
    world = World(MemoryRunner(start_seconds=5.0, can_sleep=True), **settings)
    world.devices.devices = [Device("gpu", 10, 10), Device(HOST, 100, 100)]
    for name in "abcd":
        world.devices.needs[name] = (8, 1)
    return world


def calls(world: World, name: str) -> list[str]:
    return world.runner.alive[name].sleeps.calls


def test_idleness_is_sleep_and_a_request_wakes_it() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.use("a")
        await asyncio.sleep(61)
        assert world.state("a") is State.SLEEPING
        assert world.reason("a").startswith("no request for 60 s; ")
        live = world.manager.get("a")
        assert live.held == {"gpu": 0, HOST: 0}, "a sleeping instance holds no memory of a GPU"
        began = now()
        await world.use("a")
        assert now() - began == pytest.approx(0.2)
        assert world.state("a") is State.RUNNING
        assert world.reason("a") == "awake after 0.2 s of sleep level 1's way back"
        assert calls(world, "a") == ["sleep 1", "wake 1"]
        assert world.runner.starts == ["a"]
        costs = live.record.costs
        assert (costs.sleep_seconds, costs.wake_seconds) == (pytest.approx(0.3), pytest.approx(0.2))
        assert live.record.sleep.level is None

    run(sleepers(), body)


def test_eviction_is_sleep_at_the_level_that_is_soonest_reached() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.use("a")
        await asyncio.sleep(2)
        await world.use("b")
        assert (world.state("a"), world.state("b")) == (State.SLEEPING, State.RUNNING)
        assert world.reason("a").startswith("makes room for b; ")
        await asyncio.sleep(2)
        began = now()
        await world.use("a")
        assert now() - began < 1, "asleep and awake again, and no start"
        assert (world.state("a"), world.state("b")) == (State.RUNNING, State.SLEEPING)
        assert calls(world, "a") == ["sleep 2", "wake 2"]
        assert world.runner.most_alive == 1

    run(sleepers(), body)


def test_the_adapters_are_loaded_again_and_the_state_says_so() -> None:
    async def body(world: World) -> None:
        await world.create("a", sleep_level=2)
        await world.use("a")
        world.runner.alive["a"].sleeps.adapters["sql"] = "/adapters/sql"
        await asyncio.sleep(61)
        assert set(world.manager.get("a").record.sleep.answers) == {"a@", "sql@/adapters/sql"}
        await world.use("a")
        assert world.reason("a").endswith("; 1 adapters were loaded again")

    run(sleepers(), body)


@pytest.mark.parametrize(
    ("fields", "start_seconds", "state"),
    [
        ({}, 0.1, State.STOPPED),  # a start costs less than a sleep that has been measured
        ({}, 5.0, State.SLEEPING),
        ({"sleep_level": 0}, 5.0, State.STOPPED),
        ({"sleep_level": 3}, 5.0, State.STOPPED),
    ],
)
def test_the_cheaper_of_sleep_and_stop(fields: dict[str, Any], start_seconds: float, state: State) -> None:
    async def body(world: World) -> None:
        world.runner.start_seconds = start_seconds
        await world.create("a", **fields)
        for _ in range(3):  # level 1 and level 2 are tried once each
            await world.use("a")
            await asyncio.sleep(61)
        assert world.state("a") is state

    run(sleepers(), body)


def test_a_request_that_comes_before_it_falls_asleep_turns_it_back() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.use("a")
        live = world.manager.get("a")
        while live.state is State.RUNNING:  # the step in which it begins to rest
            await world.manager.changed()
        await world.use("a")
        assert world.state("a") is State.RUNNING
        assert calls(world, "a") == []
        await asyncio.sleep(59)
        assert world.state("a") is State.RUNNING, "its idle time begins again"
        await asyncio.sleep(2)
        assert world.state("a") is State.SLEEPING

    run(sleepers(), body)


def test_a_request_that_comes_while_it_falls_asleep_is_served_at_once_after_that() -> None:
    async def body(world: World) -> None:
        world.runner.sleep_seconds = 10.0
        await world.create("a", "b")
        await world.use("a")
        await asyncio.sleep(61)
        assert world.state("a") is State.DRAINING
        other = asyncio.create_task(world.use("b"))  # which must not get its place meanwhile
        await asyncio.sleep(1)
        began = now()
        await world.use("a")
        assert now() - began < 10
        assert calls(world, "a") == ["sleep 1", "wake 1"]
        await other

    run(sleepers(), body)


def test_it_is_not_put_to_sleep_for_one_that_has_gone() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        stream = await world.manager.acquire("a")
        waiting = asyncio.create_task(world.use("b"))
        await asyncio.sleep(15)
        assert world.state("a") is State.DRAINING
        waiting.cancel()
        await asyncio.sleep(1.5)
        assert world.state("a") is State.RUNNING
        assert world.reason("a") == "b left"
        await world.use("a")
        stream.release()
        assert calls(world, "a") == []

    run(sleepers(limits=Limits(residency=1.0, patience=10.0)), body)


def test_what_does_not_end_in_time_is_cut_by_a_stop_not_by_a_sleep() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.manager.acquire("a")
        await world.use("b")
        assert world.state("a") is State.STOPPED
        assert world.reason("a") == "makes room for b; 1 requests were cut"

    run(sleepers(limits=Limits(residency=1.0, patience=10.0), drain_timeout=5.0), body)


SLEEP_FAULTS = [
    (SleepFaults(sleep_hangs=True), "did not fall asleep within 20 s"),
    (SleepFaults(sleep_keeps_memory=True), "has not given back its memory"),
    (SleepFaults(sleep_crashes=True), "the engine has ended"),
]


@pytest.mark.parametrize(("faults", "text"), SLEEP_FAULTS, ids=[text for _, text in SLEEP_FAULTS])
def test_a_sleep_that_fails_is_a_stop_and_is_not_tried_again(faults: SleepFaults, text: str) -> None:
    async def body(world: World) -> None:
        world.runner.sleep_faults = faults
        await world.create("a", "b", options={"model": "m"}, sleep_level=1)
        await world.use("a")
        await asyncio.sleep(90)
        assert world.state("a") is State.STOPPED
        assert text in world.reason("a")
        assert "a" not in world.runner.alive
        assert world.manager.get("a").record.sleep.level is None
        assert list(world.manager.get("a").record.sleep.quarantine) == ["vllm 1.0 with m: sleep level 1"]
        world.runner.sleep_faults = SleepFaults()
        for name in "ab":  # the method is not used for any instance with this model
            await world.use(name)
            engine = world.runner.alive[name]
            await asyncio.sleep(90)
            assert engine.sleeps.calls == []
            assert world.state(name) is State.STOPPED

    run(sleepers(), body)


WAKE_FAULTS = [
    (SleepFaults(wake_fails=True), "answered 500"),
    (SleepFaults(wake_wrong_answer=True), "does not answer as before its sleep"),
    (SleepFaults(wake_crashes=True), "the engine has ended"),
]


@pytest.mark.parametrize(("faults", "text"), WAKE_FAULTS, ids=[text for _, text in WAKE_FAULTS])
def test_a_wake_that_fails_is_a_restart_and_the_request_is_served(faults: SleepFaults, text: str) -> None:
    async def body(world: World) -> None:
        await world.create("a", sleep_level=1)
        await world.use("a")
        await asyncio.sleep(61)
        world.runner.sleep_faults = faults
        await world.use("a")
        assert world.runner.starts == ["a", "a"]
        assert not world.runner.alive["a"].sleeps.wrong
        (reason,) = world.manager.get("a").record.sleep.quarantine.values()
        assert text in reason
        assert any(text in (event.after or {}).get("reason", "") for event in world.store.events)
        await asyncio.sleep(61)
        assert world.state("a") is State.STOPPED, "the method is in quarantine"

    run(sleepers(), body)


def test_a_level_in_quarantine_leaves_the_other_one() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.use("a")
        await asyncio.sleep(61)
        world.runner.sleep_faults = SleepFaults(wake_fails=True)
        await world.use("a")
        await asyncio.sleep(61)
        assert world.state("a") is State.SLEEPING
        assert calls(world, "a") == ["sleep 2"]

    run(sleepers(), body)


def test_the_next_server_finds_it_asleep_and_checks_it_as_this_one_would() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.use("a")
        await asyncio.sleep(61)
        await world.manager.shutdown()
        await world.server()
        assert world.state("a") is State.SLEEPING
        await world.use("b")
        assert world.state("a") is State.SLEEPING, "it takes no room"
        await asyncio.sleep(2)
        world.runner.alive["a"].sleeps.wrong = True
        await world.use("a")
        assert world.runner.starts == ["a", "b", "a"], "the answers from before the first server's sleep are known"

    run(sleepers(), body)


@pytest.mark.parametrize("seconds", [0.0, 5.0], ids=["falling asleep", "waking up"])
def test_a_server_that_ends_in_the_middle_leaves_what_the_next_one_understands(seconds: float) -> None:
    async def body(world: World) -> None:
        world.runner.sleep_seconds, world.runner.wake_seconds = 3.0, 3.0
        await world.create("a")
        await world.use("a")
        await asyncio.sleep(61 + seconds)
        waiting = asyncio.create_task(world.use("a"))
        await asyncio.sleep(1)
        await world.manager.shutdown()
        with pytest.raises(NotReadyError, match="the server ends"):
            await waiting
        await world.server()
        asleep = world.runner.alive["a"].sleeps.level is not None
        assert world.state("a") is (State.SLEEPING if asleep else State.STARTING), "it is checked before it serves"
        await world.use("a")
        assert world.runner.starts == ["a"]
        assert world.state("a") is State.RUNNING

    run(sleepers(), body)


def test_commands_on_a_sleeping_instance() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", "c")
        for name in "abc":
            await world.use(name)
            await asyncio.sleep(2)
        await asyncio.sleep(61)
        assert [world.state(name) for name in "abc"] == [State.SLEEPING] * 3
        with pytest.raises(ConflictError, match="is sleeping"):
            await world.manager.delete("a")
        assert not await world.manager.update("a", InstanceSpec(name="a", options={"model": "n"}))
        assert world.state("a") is State.STOPPED
        await world.manager.stop("b")
        assert world.state("b") is State.STOPPED
        await world.manager.start("c")
        await asyncio.sleep(1)
        assert world.state("c") is State.RUNNING
        assert world.runner.starts == ["a", "b", "c"]
        await world.manager.restart("c")
        await asyncio.sleep(6)
        assert world.runner.starts == ["a", "b", "c", "c"]

    run(sleepers(), body)


@pytest.mark.parametrize("seconds", [0.0, 5.0], ids=["falling asleep", "waking up"])
def test_a_stop_in_the_middle_leaves_nothing(seconds: float) -> None:
    async def body(world: World) -> None:
        world.runner.sleep_seconds, world.runner.wake_seconds = 3.0, 3.0
        await world.create("a")
        await world.use("a")
        await asyncio.sleep(61 + seconds)
        waiting = asyncio.create_task(world.use("a")) if seconds else None
        await asyncio.sleep(1)
        await world.manager.stop("a")
        assert world.state("a") is State.STOPPED
        assert not world.runner.alive
        assert world.manager.get("a").record.sleep.level is None
        if waiting is not None:
            with pytest.raises(NotReadyError):
                await waiting

    run(sleepers(), body)


def test_one_that_ends_in_its_sleep_is_stopped_and_not_restarted() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.use("a")
        await asyncio.sleep(61)
        world.runner.alive["a"].crash("killed by SIGKILL")
        await asyncio.sleep(100)
        assert world.state("a") is State.STOPPED
        assert world.reason("a") == "it ended while it was asleep: killed by SIGKILL"
        await world.use("a")
        assert world.runner.starts == ["a", "a"]

    run(sleepers(), body)


def test_it_wakes_on_its_own_gpu_and_starts_on_another_one_rather_than_wait() -> None:
    async def body(world: World) -> None:
        world.devices.devices = [Device("gpu0", 10, 10), Device("gpu1", 10, 10), Device(HOST, 100, 100)]
        await world.create("a")
        await world.create("b", pin=True)
        await world.use("a")
        assert world.manager.get("a").devices == ("gpu0",)
        await asyncio.sleep(61)
        await world.use("b")
        assert world.manager.get("b").devices == ("gpu0",)
        await world.use("a")
        assert world.manager.get("a").devices == ("gpu1",)
        assert world.runner.starts == ["a", "b", "a"]

    run(sleepers(), body)


def test_many_callers_share_one_wake() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.use("a")
        await asyncio.sleep(61)
        await asyncio.gather(*(world.use("a", 1) for _ in range(50)))
        assert calls(world, "a") == ["sleep 1", "wake 1"]

    run(sleepers(), body)


def test_callers_that_leave_while_it_waits_for_room_leave_it_asleep() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.use("a")
        await asyncio.sleep(2)
        stream = await world.manager.acquire("b")
        waiting = asyncio.create_task(world.use("a"))
        await asyncio.sleep(2)
        waiting.cancel()
        await asyncio.sleep(6)
        assert world.state("a") is State.SLEEPING
        stream.release()

    run(sleepers(), body)
