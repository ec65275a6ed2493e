"""Room for instances, over the manager and its twins: what is told, second tries, memory that comes back late."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from garrison.base.errors import ConflictError, EngineDiedError, GarrisonError, NotReadyError
from garrison.instances.live import Live
from garrison.instances.manager import InstanceManager
from garrison.instances.room.ledger import not_back
from garrison.instances.room.values import HOST, Device, Granted, Limits, Need
from garrison.instances.runner import Launch, Progress, RunningEngine
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.record import Costs
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.testing.instances import MemoryDevices, MemoryInstances, MemoryRunner
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import LoopClock, VirtualLoop

GIB = 1024**3


def out_of_memory(cause: str = "gpu-memory") -> EngineDiedError:
    return EngineDiedError("vLLM exited with 1: no memory", details={"diagnosis": {"cause": cause}})


class Runner(MemoryRunner):
    """Fails as often as `failures` has errors for an instance."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[str, list[GarrisonError]] = {}
        self.launches: list[Launch] = []

    async def start(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        self.launches.append(launch)
        if waiting := self.failures.get(launch.spec.name):
            self.starts.append(launch.spec.name)
            await asyncio.sleep(self.start_seconds)
            raise waiting.pop(0)
        return await super().start(launch, progress)


class Card(MemoryDevices):
    """A GPU whose driver returns memory `back_seconds` late, and believes a process for as long."""

    def __init__(self, runner: Runner, total: int = 80, **needs: tuple[int | None, int]) -> None:
        super().__init__((), dict(needs))
        self.runner, self.total, self.late = runner, total, 0
        self.percent = False

    async def read(self) -> Sequence[Device]:
        await asyncio.sleep(0)
        used = sum(self.needs[name][0] or 0 for name in (*self.runner.alive, *self.runner.starting))
        return (Device("GPU-a", self.total, self.total - used - self.late, index=0),)

    def need(self, live: Live) -> Need:
        found = super().need(live)
        return replace(found, percent=self.percent, source="estimated" if self.percent else "declared")

    def grant(self, live: Live, need: Need, keys: Sequence[str]) -> Granted:
        held = {"GPU-a": need.on(Device("GPU-a", self.total, self.total)) or 0}
        return Granted(
            tuple(keys), held, need, ("--share", f"{held['GPU-a'] * 100 // self.total}"), {"VISIBLE": keys[0]}
        )

    @asynccontextmanager
    async def released(self, live: Live) -> AsyncIterator[None]:
        held, before = dict(live.held or {}), await self.read()
        gone = held.get("GPU-a", 0)
        yield
        self.late += gone

        async def come_back() -> None:
            await asyncio.sleep(self.back_seconds)
            self.late -= gone

        returning = asyncio.create_task(come_back())
        for _ in range(20):
            if not not_back(held, before, await self.read()):
                break
            await asyncio.sleep(0.25)
        await returning


class World:
    def __init__(self, devices: Callable[[Runner], MemoryDevices], **settings: Any) -> None:
        self.runner = Runner()
        self.devices = devices(self.runner)
        self.settings = ManagerSettings(**settings)
        self.manager: InstanceManager

    def run(self, body: Callable[["World"], Awaitable[None]]) -> None:
        async def whole() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            self.manager = InstanceManager(
                MemoryInstances(), self.runner, self.devices, self.settings, clock=LoopClock(loop), pool=DirectPool()
            )
            await self.manager.startup()
            await body(self)
            await self.manager.shutdown(stop=True)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(whole())

    async def create(self, *names: str, **fields: Any) -> None:
        for name in names:
            await self.manager.create(InstanceSpec(name=name, **fields))

    async def use(self, name: str, seconds: float = 0.0) -> None:
        lease = await self.manager.acquire(name)
        await asyncio.sleep(seconds)
        lease.release()

    def state(self, name: str) -> State:
        return self.manager.get(name).state


SHORT = Limits(residency=1.0, patience=5.0)


def test_the_engine_is_told_about_its_room() -> None:
    async def body(world: World) -> None:
        await world.create("a")
        await world.use("a")
        (launch,) = world.runner.launches
        assert (launch.devices, launch.room_args, dict(launch.room_env)) == (
            ("GPU-a",), ("--share", "50"), {"VISIBLE": "GPU-a"},
        )  # fmt: skip
        assert world.manager.get("a").held == {"GPU-a": 40}

    World(lambda runner: Card(runner, a=(40, 1))).run(body)


def test_memory_that_comes_back_late_costs_no_second_eviction() -> None:
    """The driver reports the memory of the first victim two seconds late. Without the wait, it would look as if one
    eviction had not been enough."""

    async def body(world: World) -> None:
        world.devices.back_seconds = 2.0
        await world.create("a", "b", "c")
        await world.use("a")
        await asyncio.sleep(5)
        await world.use("b")
        await asyncio.sleep(5)
        began = asyncio.get_running_loop().time()
        await world.use("c")
        assert asyncio.get_running_loop().time() - began >= 2.0, "it waited until the memory was really there"
        assert (world.state("a"), world.state("b")) == (State.STOPPED, State.RUNNING)

    World(lambda runner: Card(runner, a=(40, 1), b=(40, 1), c=(40, 1)), limits=SHORT).run(body)


def test_out_of_memory_once_more_with_everything_idle_gone() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b", "c")
        await world.use("a")
        await world.use("b")
        world.runner.failures["c"] = [out_of_memory()]
        await world.use("c")
        assert world.runner.starts == ["a", "b", "c", "c"]
        assert [world.state(name) for name in "abc"] == [State.STOPPED, State.STOPPED, State.RUNNING]

    World(lambda runner: Card(runner, a=(10, 1), b=(10, 1), c=(10, 1))).run(body)


def test_who_is_busy_or_pinned_stays_and_the_second_failure_has_the_figures() -> None:
    async def body(world: World) -> None:
        await world.create("idle", "busy", "c")
        await world.create("pinned", pin=True)
        for name in ("idle", "busy", "pinned"):
            await world.use(name)
        lease = await world.manager.acquire("busy")
        world.runner.failures["c"] = [out_of_memory(), out_of_memory(), out_of_memory()]
        with pytest.raises(EngineDiedError) as caught:
            await world.use("c")
        assert world.runner.starts[3:] == ["c", "c"]
        assert caught.value.message == (
            "vLLM exited with 1: no memory; 0.0 GiB of GPU 0 (GPU-a) were given to it, of 0.0 GiB in all and "
            "0.0 GiB free"
        )
        assert caught.value.details["diagnosis"] == {"cause": "gpu-memory"}
        room = caught.value.details["room"]
        assert room["memory"][0]["held"] == {"busy": 10, "pinned": 10}
        assert world.state("c") is State.FAILED
        assert world.state("idle") is State.STOPPED
        assert world.state("busy") is State.RUNNING
        lease.release()

    needs: dict[str, tuple[int | None, int]] = dict.fromkeys(("idle", "busy", "pinned", "c"), (10, 1))
    World(lambda runner: Card(runner, **needs)).run(body)


@pytest.mark.parametrize(
    ("error", "limits"),
    [
        (EngineDiedError("vLLM exited with 1"), SHORT),
        (out_of_memory("unknown-flag"), SHORT),
        (out_of_memory("kv-cache-too-small"), SHORT),  # the user's own size
        (out_of_memory(), replace(SHORT, evict=False)),
    ],
)
def test_what_is_no_matter_of_room_is_not_tried_again(error: GarrisonError, limits: Limits) -> None:
    async def body(world: World) -> None:
        await world.create("a", "c")
        await world.use("a")
        world.runner.failures["c"] = [error]
        with pytest.raises(EngineDiedError):
            await world.use("c")
        assert world.runner.starts == ["a", "c"]
        assert world.state("a") is State.RUNNING

    World(lambda runner: Card(runner, a=(10, 1), c=(10, 1)), limits=limits).run(body)


def test_an_estimate_that_was_too_small_grows() -> None:
    async def body(world: World) -> None:
        assert isinstance(world.devices, Card)
        world.devices.percent = True
        await world.create("c")
        world.runner.failures["c"] = [out_of_memory("kv-cache-too-small")]
        await world.use("c")
        assert [one.room_args for one in world.runner.launches] == [("--share", "10"), ("--share", "100")]
        assert world.manager.get("c").held == {"GPU-a": 800}

    World(lambda runner: Card(runner, 800, c=(80, 1))).run(body)


def test_without_eviction_callers_are_refused_with_the_reason() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.use("a")
        with pytest.raises(NotReadyError) as caught:
            await world.manager.acquire("b", timeout=20)
        assert "enable_lru_eviction" in str(caught.value.details["loading"])
        assert world.state("a") is State.RUNNING
        await world.manager.stop("a")
        await world.use("b")

    World(lambda runner: Card(runner, a=(50, 1), b=(50, 1)), limits=replace(SHORT, evict=False)).run(body)


def test_a_weight_decides_who_goes() -> None:
    async def body(world: World) -> None:
        await world.create("dear", weight=100.0)
        await world.create("cheap", "c")
        await world.use("dear")
        await asyncio.sleep(20)
        await world.use("cheap")
        await asyncio.sleep(5)
        await world.use("c")
        assert (world.state("dear"), world.state("cheap")) == (State.RUNNING, State.STOPPED)

    World(lambda _: MemoryDevices(), limits=replace(SHORT, most=2)).run(body)


def test_explanations_have_the_figures() -> None:
    async def body(world: World) -> None:
        await world.create("a", "b")
        await world.create("pinned", pin=True)
        found = (await world.manager.explain("a")).to_json()
        assert (found["verdict"], found["devices"], found["victims"]) == ("fits", [HOST], [])
        assert found["text"].startswith("fits on system memory: 16.0 GiB free")
        await world.use("a")
        await asyncio.sleep(50)
        found = (await world.manager.explain("b")).to_json()
        assert found["verdict"] == "evicts"
        (victim,) = found["victims"]
        assert (victim["instance"], victim["idle_seconds"], victim["cost_of_return"]) == ("a", 50.0, 1.0)
        assert found["text"] == (
            "evicts a (idle for 50 s, its return costs 1 s, gives back 10.0 GiB) to run on system memory"
        )
        assert found["need"]["bytes"] == 10 * GIB
        assert found["memory"] == [
            {
                "device": HOST, "index": None, "total": 16 * GIB, "reported_free": 16 * GIB, "other_programs": 0,
                "held": {"a": 10 * GIB}, "free": 6 * GIB, "need": 10 * GIB,
            }
        ]  # fmt: skip
        lease = await world.manager.acquire("a")
        found = (await world.manager.explain("b")).to_json()
        assert (found["verdict"], found["why"]) == ("waits", "a is busy")
        lease.release()
        large = (await world.manager.evaluate(InstanceSpec(name="large"))).to_json()
        assert large["verdict"] == "never"
        assert large["text"] == ("can never fit: it takes 20.0 GiB of system memory; there are 16.0 GiB for instances")
        await world.create("large")
        with pytest.raises(ConflictError, match=r"cannot run here: it takes 20\.0 GiB") as caught:
            await world.use("large")
        assert caught.value.details["room"]["verdict"] == "never"
        assert json.loads(json.dumps(large)) == large
        assert [one.name for one in world.manager.list()] == ["a", "b", "large", "pinned"]

    needs = {"a": (10 * GIB, 0), "b": (10 * GIB, 0), "large": (20 * GIB, 0)}
    World(lambda _: MemoryDevices([Device(HOST, 16 * GIB, 16 * GIB)], dict(needs)), limits=SHORT).run(body)


def test_sleep_that_is_cheap_makes_a_victim() -> None:
    async def body(world: World) -> None:
        await world.create("sleeper", "starter", "c")
        for name in ("sleeper", "starter"):
            await world.use(name)
        await asyncio.sleep(30)
        for name, costs in (("sleeper", Costs(90, {}, {}, 1, 1)), ("starter", Costs(20))):
            live = world.manager.get(name)
            live.record = replace(live.record, costs=costs)
        found = await world.manager.explain("c")
        assert [one["instance"] for one in found.to_json()["victims"]] == ["sleeper"]

    World(lambda _: MemoryDevices(), limits=replace(SHORT, most=2)).run(body)
