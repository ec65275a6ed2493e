"""The twins of what the instance manager acts on: engines, memory, and the store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from garrison.base.errors import ConflictError, EngineDiedError, GarrisonError
from garrison.instances.live import Live
from garrison.instances.room.values import Device, Granted, Need
from garrison.instances.runner import Launch, Progress, RunningEngine, Upstream
from garrison.instances.values.record import InstanceRecord
from garrison.store.records import Event

__all__ = ["MemoryDevices", "MemoryInstances", "MemoryRunner", "MemoryRunningEngine"]


class MemoryRunningEngine:
    """`RunningEngine` without a process.

    Attributes:
        left: `leave` was called.
        stopped: the reason of `stop`; None before.
    """

    def __init__(self, launch: Launch, pid: int, runner: "MemoryRunner") -> None:
        self.launch = launch
        self.upstream = Upstream(f"http://127.0.0.1:{launch.port}", "key", launch.spec.model or launch.spec.name)
        self.pid: int | None = pid
        self.seconds: float | None = runner.start_seconds
        self.phases: Mapping[str, float] = {}
        self.left = False
        self.stopped: str | None = None
        self._runner = runner
        self._end: asyncio.Future[GarrisonError | None] = asyncio.get_running_loop().create_future()

    def memory_bytes(self) -> int:
        return 0

    def pids(self) -> frozenset[int]:
        return frozenset() if self.pid is None else frozenset({self.pid})

    async def ended(self) -> GarrisonError | None:
        return await asyncio.shield(self._end)

    async def stop(self, reason: str) -> None:
        assert self.stopped is None, f"{self.launch.spec.name} is being stopped already"
        self.stopped = reason
        await asyncio.sleep(self._runner.stop_seconds)
        self._runner.gone(self)
        if not self._end.done():
            self._end.set_result(None)

    async def leave(self) -> None:
        self.left = True

    def crash(self, message: str = "it exited with 1") -> None:
        """End it by itself."""
        self._runner.gone(self)
        if not self._end.done():
            self._end.set_result(EngineDiedError(message))


class MemoryRunner:
    """`Runner` that starts nothing.

    Attributes:
        start_seconds, stop_seconds: how long a start and a stop take, by the loop's time.
        fails: raised by the start of an instance of that name.
        alive: the engines by instance: what a successor can adopt.
        starts: the names in the order of their starts.
        most_alive: the largest number of engines at once, those that start or stop included.
    """

    def __init__(self, *, start_seconds: float = 1.0, stop_seconds: float = 0.1) -> None:
        self.start_seconds = start_seconds
        self.stop_seconds = stop_seconds
        self.fails: dict[str, GarrisonError] = {}
        self.alive: dict[str, MemoryRunningEngine] = {}
        self.starting: set[str] = set()
        self.starts: list[str] = []
        self.forgotten: list[str] = []
        self.most_alive = 0
        self._pid = 100

    async def start(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        name = launch.spec.name
        assert name not in self.alive, f"{name} has an engine already"
        assert name not in self.starting, f"{name} is being started already"
        self.starting.add(name)
        self.starts.append(name)
        self.most_alive = max(self.most_alive, len(self.alive) + len(self.starting))
        try:
            progress(Progress("loading weights", 0.0))
            await asyncio.sleep(self.start_seconds)
            if name in self.fails:
                raise self.fails[name]
        finally:
            self.starting.discard(name)
        self._pid += 1
        self.alive[name] = engine = MemoryRunningEngine(launch, self._pid, self)
        return engine

    async def adopt(self, launch: Launch) -> RunningEngine | None:
        found = self.alive.get(launch.spec.name)
        if found is None:
            return None
        self.alive[launch.spec.name] = engine = MemoryRunningEngine(launch, found.pid or 0, self)
        return engine

    async def forget(self, name: str) -> None:
        self.forgotten.append(name)

    def free_port(self, taken: Callable[[int], bool], kept: int | None = None) -> Awaitable[int]:
        async def find() -> int:
            return kept if kept is not None else next(port for port in range(8000, 9000) if not taken(port))

        return find()

    def gone(self, engine: MemoryRunningEngine) -> None:
        """Called by an engine that ends."""
        name = engine.launch.spec.name
        if self.alive.get(name) is engine:
            del self.alive[name]


@dataclass
class MemoryDevices:
    """`Devices` with the memory that a test says.

    Attributes:
        needs: by instance, the bytes on each device and the number of GPUs.
        back_seconds: how long the driver takes to return the memory of an engine that was stopped.
    """

    devices: Sequence[Device] = ()
    needs: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    back_seconds: float = 0.0

    async def read(self) -> Sequence[Device]:
        await asyncio.sleep(0)
        return self.devices

    async def look_up(self, live: Live) -> None:
        await asyncio.sleep(0)

    def need(self, live: Live) -> Need:
        count, gpus = self.needs.get(live.name, (None, 0))
        return Need(live.name, count, gpus, live.spec.devices)

    def grant(self, live: Live, need: Need, keys: Sequence[str]) -> Granted:
        held = dict.fromkeys(keys, need.bytes or 0)
        return Granted(tuple(keys) if need.count else (), held, need)

    @contextlib.asynccontextmanager
    async def released(self, live: Live) -> AsyncIterator[None]:
        yield
        await asyncio.sleep(self.back_seconds)

    async def measure(self, live: Live) -> Mapping[str, int]:
        return {}


class MemoryInstances:
    """`InstanceStore` in memory.

    Attributes:
        fails: raised by every call while it is set.
    """

    def __init__(self) -> None:
        self.records: dict[int, InstanceRecord] = {}
        self.events: list[Event] = []
        self.fails: GarrisonError | None = None
        self._last = 0

    def load(self) -> list[InstanceRecord]:
        self._may_fail()
        return list(self.records.values())

    def create(self, record: InstanceRecord, events: Sequence[Event]) -> InstanceRecord:
        self._may_fail()
        if any(one.spec.name == record.spec.name for one in self.records.values()):
            raise ConflictError(f"instance {record.spec.name!r} exists already")
        self._last += 1
        made = replace(record, id=self._last)
        self.records[made.id] = made
        self.events += events
        return made

    def save(self, records: Sequence[InstanceRecord], events: Sequence[Event]) -> None:
        self._may_fail()
        for one in records:
            if one.id in self.records:
                self.records[one.id] = one
        self.events += events

    def delete(self, record: InstanceRecord, events: Sequence[Event]) -> None:
        self._may_fail()
        self.records.pop(record.id, None)
        self.events += events

    def _may_fail(self) -> None:
        if self.fails is not None:
            raise self.fails
