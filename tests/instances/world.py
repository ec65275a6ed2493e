"""A machine over the twins, whose server may come and go, on a clock that does not wait."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from garrison.instances.manager import InstanceManager
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.store.records import Event
from garrison.testing.instances import MemoryDevices, MemoryInstances, MemoryRunner
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import LoopClock, VirtualLoop


class StoreView:
    """The store as one server has it: after that was killed, it writes no more."""

    def __init__(self, store: MemoryInstances) -> None:
        self._store = store
        self.killed = False

    def load(self) -> list[InstanceRecord]:
        return self._store.load()

    def create(self, record: InstanceRecord, events: Sequence[Event]) -> InstanceRecord:
        return self._store.create(record, events)

    def save(self, records: Sequence[InstanceRecord], events: Sequence[Event]) -> None:
        if not self.killed:
            self._store.save(records, events)

    def delete(self, record: InstanceRecord, events: Sequence[Event]) -> None:
        if not self.killed:
            self._store.delete(record, events)


class World:
    """A machine, whose server may come and go."""

    def __init__(self, runner: MemoryRunner | None = None, **settings: Any) -> None:
        self.store = MemoryInstances()
        self.runner = runner or MemoryRunner()
        self.devices = MemoryDevices(watched=self.runner)
        self.settings = ManagerSettings(**settings)
        self.manager: InstanceManager

    async def server(self) -> InstanceManager:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.manager = InstanceManager(
            self.store, self.runner, self.devices, self.settings, clock=LoopClock(loop), pool=DirectPool()
        )
        await self.manager.startup()
        return self.manager

    async def create(self, *names: str, **fields: Any) -> None:
        for name in names:
            await self.manager.create(InstanceSpec(name=name, **fields))

    def state(self, name: str) -> State:
        return self.manager.get(name).state

    def reason(self, name: str) -> str:
        return self.manager.get(name).record.condition.reason

    async def use(self, name: str, seconds: float = 0.0) -> None:
        lease = await self.manager.acquire(name)
        await asyncio.sleep(seconds)
        lease.release()


def run(world: World, body: Callable[[World], Awaitable[None]]) -> None:
    """Run `body` on a server, and see that its end leaves no engine."""

    async def whole() -> None:
        await world.server()
        await body(world)
        await world.manager.shutdown(stop=True)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(whole())
    assert not world.runner.alive


def now() -> float:
    return asyncio.get_running_loop().time()
