"""A server that is killed while its engines start, fall asleep or hang, and the one that comes after it."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from garrison.base.errors import EngineDiedError, NotReadyError
from garrison.instances.manager import InstanceManager
from garrison.instances.room.values import HOST, Device, Limits
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.testing.instances import MemoryDevices, MemoryInstances, MemoryRunner, OneServer
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import LoopClock, VirtualLoop

from .world import StoreView, now


class Machine:
    """A machine whose server may be killed. A start takes 20 seconds, and each engine four of ten units of memory."""

    def __init__(self, most: int | None = None) -> None:
        self.runner = MemoryRunner(start_seconds=20.0)
        self.store = MemoryInstances()
        self.devices = MemoryDevices([Device(HOST, 10, 10)], dict.fromkeys("abc", (4, 0)), watched=self.runner)
        self.settings = ManagerSettings(limits=Limits(most))
        self.manager: InstanceManager
        self._one: OneServer
        self._tasks: set[asyncio.Task[object]] = set()

    async def server(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        before = asyncio.all_tasks()
        self._one, self._view = OneServer(self.runner), StoreView(self.store)
        self.manager = InstanceManager(
            self._view, self._one, self.devices, self.settings, clock=LoopClock(loop), pool=DirectPool()
        )
        self._tasks = before
        await self.manager.startup()

    async def kill(self) -> None:
        """End the server as SIGKILL does. What it started goes on."""
        self._one.kill()
        self._view.killed = True
        left = asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
        for task in left:
            if task.get_coro().__qualname__ != "MemoryRunner.finish":
                task.cancel()
        await asyncio.sleep(0.001)

    def state(self, name: str) -> State:
        return self.manager.get(name).state


def run(machine: Machine, body: Callable[[Machine], Awaitable[None]]) -> None:
    async def whole() -> None:
        await machine.server()
        for name in "abc":
            await machine.manager.create(InstanceSpec(name=name))
        await body(machine)
        await machine.manager.shutdown(stop=True)
        assert not machine.runner.alive
        assert not machine.runner.starting

    with asyncio.Runner(loop_factory=VirtualLoop) as loop_runner:
        loop_runner.run(whole())


async def killed_during_a_start(machine: Machine, *names: str) -> None:
    for name in names:
        await machine.manager.start(name)
    await asyncio.sleep(5)
    await machine.kill()
    began = now()
    await machine.server()
    assert now() - began < 1, "it does not wait for engines that are being started"


def test_the_next_server_is_ready_while_an_engine_starts_and_callers_join_that_start() -> None:
    async def body(machine: Machine) -> None:
        await killed_during_a_start(machine, "a")
        assert machine.state("a") is State.STARTING
        began = now()
        leases = await asyncio.gather(*(machine.manager.acquire("a") for _ in range(3)))
        assert 10 < now() - began < 16, "the rest of the start"
        assert machine.state("a") is State.RUNNING
        assert machine.runner.starts == ["a"], "no second engine"
        for lease in leases:
            lease.release()

    run(Machine(), body)


@pytest.mark.parametrize("machine", [Machine(most=2), Machine()], ids=["count", "memory"])
def test_engines_that_start_keep_their_room(machine: Machine) -> None:
    async def body(machine: Machine) -> None:
        await killed_during_a_start(machine, "a", "b")
        await machine.manager.start("c")
        await asyncio.sleep(60)
        assert machine.state("c") is State.RUNNING, "one of the two had to leave, once it was ready"
        assert machine.runner.most_alive == 2

    run(machine, body)


def test_a_stop_ends_the_start_that_was_taken_over() -> None:
    async def body(machine: Machine) -> None:
        await killed_during_a_start(machine, "a")
        await machine.manager.stop("a")
        assert machine.state("a") is State.STOPPED
        await asyncio.sleep(30)
        assert not machine.runner.alive
        assert not machine.runner.starting

    run(Machine(), body)


def test_when_that_start_fails_every_caller_gets_the_cause() -> None:
    async def body(machine: Machine) -> None:
        machine.runner.fails["a"] = EngineDiedError("out of memory")
        await killed_during_a_start(machine, "a")
        for failure in await asyncio.gather(*(machine.manager.acquire("a") for _ in range(2)), return_exceptions=True):
            assert isinstance(failure, EngineDiedError), failure
        assert machine.state("a") is State.FAILED

    run(Machine(), body)


def test_killed_again_and_again_there_is_one_engine() -> None:
    async def body(machine: Machine) -> None:
        await killed_during_a_start(machine, "a")
        for _ in range(3):
            await machine.kill()
            await machine.server()
            assert machine.state("a") is State.STARTING
        (await machine.manager.acquire("a")).release()
        assert machine.runner.starts == ["a"]

    run(Machine(), body)


def test_an_engine_that_ends_between_two_servers_is_started_again() -> None:
    async def body(machine: Machine) -> None:
        (await machine.manager.acquire("a")).release()
        await machine.manager.start("a")
        await asyncio.sleep(1)
        await machine.kill()
        machine.runner.alive["a"].crash()
        await machine.server()
        assert machine.state("a") in (State.STOPPED, State.STARTING)
        await asyncio.sleep(30)
        assert machine.state("a") is State.RUNNING

    run(Machine(), body)


def test_an_engine_that_hangs_holds_up_neither_the_server_nor_its_callers_beyond_their_deadline() -> None:
    async def body(machine: Machine) -> None:
        (await machine.manager.acquire("a")).release()
        await machine.kill()
        machine.runner.hangs.add("a")
        began = now()
        await machine.server()
        assert now() - began <= 1
        assert machine.state("a") is State.STARTING
        with pytest.raises(NotReadyError):
            await machine.manager.acquire("a", timeout=3)
        await machine.manager.stop("a")
        assert machine.state("a") is State.STOPPED
        assert not machine.runner.alive

    run(Machine(), body)
