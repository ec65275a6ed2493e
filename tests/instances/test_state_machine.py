"""Starts, stops, sleeps, wakes, faults, crashes, evictions, kills and successors of the server, at random: what holds
whatever happens."""

import asyncio
from collections.abc import Awaitable
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from garrison.base.errors import EngineDiedError, GarrisonError, NotReadyError
from garrison.instances.live import Lease
from garrison.instances.manager import InstanceManager
from garrison.instances.room.values import HOST, Device, Limits
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.testing.instances import MemoryDevices, MemoryInstances, MemoryRunner, OneServer
from garrison.testing.sleeping import SleepFaults
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import LoopClock, VirtualLoop

from .world import StoreView

NAMES = ("a", "b", "c", "d")
NAME = st.sampled_from(NAMES)
MOST, TOTAL = 2, 10
DEADLINE = 60.0


FAULTS = st.sampled_from(
    [SleepFaults(), SleepFaults(), *(SleepFaults(**{one.name: True}) for one in fields(SleepFaults))]
)


class Machine(RuleBasedStateMachine):
    """A machine with room for two of four instances, and for ten units of memory."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.store = MemoryInstances()
        self.runner = MemoryRunner(
            start_seconds=2.0, stop_seconds=0.5, can_sleep=True, sleep_seconds=0.4, wake_seconds=0.3
        )
        self.devices = MemoryDevices([Device(HOST, TOTAL, TOTAL)], dict.fromkeys(NAMES, (4, 0)), watched=self.runner)
        self.leases: list[tuple[str, Lease]] = []
        self.waiting: list[tuple[float, asyncio.Task[None]]] = []
        self.manager: InstanceManager

    def do(self, body: Awaitable[Any]) -> Any:
        async def run() -> Any:
            async with asyncio.timeout(600):  # of the loop's own time: nothing waits for ever
                return await body

        return self.loop.run_until_complete(run())

    @initialize()
    def first_server(self) -> None:
        self.do(self.server())
        for name in NAMES:
            self.do(self.manager.create(InstanceSpec(name=name, pin=name == "d", restart_delay=1.0, max_restarts=2)))

    async def server(self) -> None:
        limits = Limits(MOST, residency=3.0, patience=10.0)
        self.one = OneServer(self.runner)
        self.view = StoreView(self.store)
        settings = ManagerSettings(
            limits=limits, idle=40.0, start_timeout=DEADLINE, queue=50, drain_timeout=5.0, sleep_timeout=8.0,
            memory_timeout=1.0,
        )  # fmt: skip
        self.manager = InstanceManager(
            self.view, self.one, self.devices, settings, clock=LoopClock(self.loop), pool=DirectPool()
        )
        await self.manager.startup()

    @rule(name=NAME, count=st.integers(1, 3))
    def requests_come(self, name: str, count: int) -> None:
        async def ask() -> None:
            lease = await self.manager.acquire(name)
            engine = self.runner.alive[name]
            assert engine.upstream == lease.upstream
            assert engine.sleeps.level is None
            assert not engine.sleeps.wrong, "no request reaches an engine whose answers have changed"
            self.leases.append((name, lease))

        async def begin() -> None:
            self.waiting += [(self.loop.time(), asyncio.create_task(ask())) for _ in range(count)]

        self.do(begin())

    @rule()
    def a_caller_gives_up(self) -> None:
        if self.waiting:
            self.waiting[0][1].cancel()

    @rule()
    def a_request_ends(self) -> None:
        if self.leases:
            _, lease = self.leases.pop(0)

            async def release() -> None:
                lease.release()

            self.do(release())

    @rule(seconds=st.sampled_from([0.1, 1.0, 3.0, 12.0, 50.0]))
    def time_passes(self, seconds: float) -> None:
        self.do(asyncio.sleep(seconds))

    @rule(name=NAME)
    def it_is_started(self, name: str) -> None:
        self.do(self.manager.start(name))

    @rule(name=NAME)
    def it_is_stopped(self, name: str) -> None:
        self.do(self.manager.stop(name))

    @rule(name=NAME)
    def it_is_restarted(self, name: str) -> None:
        self.do(self.manager.restart(name))

    @rule(name=NAME)
    def it_crashes(self, name: str) -> None:
        async def crash() -> None:
            if name in self.runner.alive:
                self.runner.alive[name].crash()
            await asyncio.sleep(0.001)  # until that has been noticed

        self.do(crash())

    @rule(name=NAME, fails=st.booleans())
    def its_starts_fail_from_now_on(self, name: str, fails: bool) -> None:
        self.runner.fails.pop(name, None)
        if fails:
            self.runner.fails[name] = EngineDiedError("out of memory")

    @rule(faults=FAULTS)
    def sleep_goes_wrong_from_now_on(self, faults: SleepFaults) -> None:
        self.runner.sleep_faults = faults

    @rule(name=NAME)
    def it_is_ejected(self, name: str) -> None:
        self.do(self.manager.eject(name))

    @rule()
    def the_server_is_killed(self) -> None:
        """Nothing of it is done any more: what it started and what it had put to sleep goes on by itself."""

        async def kill() -> None:
            self.one.kill()
            self.view.killed = True
            left = asyncio.all_tasks() - {asyncio.current_task()}
            left = {task for task in left if task.get_coro().__qualname__ != "MemoryRunner.finish"}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self.waiting.clear()
            self.leases.clear()
            await self.server()

        self.do(kill())

    @rule()
    def the_server_is_replaced(self) -> None:
        """Its engines go on; whoever waited is told, and requests in progress are those of the old server."""

        async def replace() -> None:
            await self.manager.shutdown()
            for _, task in self.waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in self.waiting), return_exceptions=True)
            self.waiting.clear()
            self.leases.clear()
            await self.server()

        self.do(replace())

    @invariant()
    def limits_hold(self) -> None:
        assert len(self.runner.awake) <= MOST
        assert self.runner.most_alive <= MOST

    @invariant()
    def running_means_an_engine(self) -> None:
        if not hasattr(self, "manager"):
            return
        for live in self.manager.list():
            if live.state is State.RUNNING:
                assert self.runner.alive[live.name].sleeps.level is None
            if live.state is State.SLEEPING:
                assert live.name in self.runner.alive
                assert not sum((live.held or {}).values()), "it holds no memory"
            if live.state in (State.STOPPED, State.FAILED):
                assert live.name not in self.runner.alive
            if live.engine is None:
                assert not live.admits
            assert live.leases >= 0

    @invariant()
    def nobody_waits_beyond_the_deadline(self) -> None:
        left: list[tuple[float, asyncio.Task[None]]] = []
        for since, task in self.waiting:
            if task.done():
                if not task.cancelled() and (error := task.exception()) is not None:
                    assert isinstance(error, GarrisonError), error
            else:
                assert self.loop.time() - since <= DEADLINE + 1
                left.append((since, task))
        self.waiting = left

    def teardown(self) -> None:
        async def end() -> None:
            for _, task in self.waiting:
                task.cancel()
            await asyncio.gather(*(task for _, task in self.waiting), return_exceptions=True)
            if hasattr(self, "manager"):
                assert sorted(live.name for live in self.manager.list()) == (list(NAMES) if self.store.records else [])
                await self.manager.shutdown(stop=True)
            assert not self.runner.alive

        self.do(end())
        self.loop.close()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=int(__import__("os").environ.get("EX", "150")), stateful_step_count=40, deadline=None
)


def test_two_that_are_asked_for_in_turn_share_the_room_fairly() -> None:
    """Room for one, and callers of both all the time: each waits at most patience and a turn, and swaps are bounded."""
    patience, residency, seconds = 10.0, 5.0, 600.0
    waits: list[float] = []
    runner = MemoryRunner(start_seconds=1.0, stop_seconds=0.2)

    async def body() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        limits = Limits(1, residency=residency, patience=patience)
        manager = InstanceManager(
            MemoryInstances(), runner, MemoryDevices(), ManagerSettings(limits=limits, drain_timeout=5.0),
            clock=LoopClock(loop), pool=DirectPool(),
        )  # fmt: skip
        await manager.startup()
        for name in "ab":
            await manager.create(InstanceSpec(name=name))

        async def caller(name: str) -> None:
            while loop.time() < seconds:
                began = loop.time()
                try:
                    lease = await manager.acquire(name)
                except NotReadyError:
                    pytest.fail(f"{name} was not served within {loop.time() - began:g} s")
                waits.append(loop.time() - began)
                await asyncio.sleep(0.5)
                lease.release()

        await asyncio.gather(*(caller(name) for name in "aabb"))
        await manager.shutdown(stop=True)

    with asyncio.Runner(loop_factory=VirtualLoop) as loop_runner:
        loop_runner.run(body())
    assert max(waits) <= patience + 0.5 + 0.2 + 1.0 + 1.0, "patience, the last request, the stop, the start, a look"
    assert len(runner.starts) <= seconds / residency
