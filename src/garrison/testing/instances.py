"""The twins of what the instance manager acts on: engines, memory, and the store."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace

from garrison.base.errors import ConflictError, EngineDiedError, GarrisonError
from garrison.instances.live import Live
from garrison.instances.room.values import HOST, Device, Granted, Need
from garrison.instances.runner import Launch, LeftEngine, Progress, RunningEngine, Sleeper, Upstream
from garrison.instances.values.record import InstanceRecord
from garrison.store.records import Event
from garrison.testing.sleeping import MemorySleeper, SleepFaults

__all__ = ["MemoryDevices", "MemoryInstances", "MemoryRunner", "MemoryRunningEngine", "OneServer"]


class MemoryRunningEngine:
    """`RunningEngine` without a process.

    Attributes:
        sleeps: how it is put to sleep, if it can be.
        left: `leave` was called.
        stopped: the reason of the first `stop`; None before.
    """

    def __init__(self, launch: Launch, pid: int, runner: "MemoryRunner") -> None:
        self.launch = launch
        model = "" if launch.spec.router else launch.spec.model or launch.spec.name
        self.upstream = Upstream(f"http://127.0.0.1:{launch.port}", "key", model)
        self.pid: int | None = pid
        self.seconds: float | None = runner.start_seconds
        self.phases: Mapping[str, float] = {}
        self.left = False
        self.stopped: str | None = None
        self._stopping: asyncio.Task[None] | None = None
        self.sleeps = MemorySleeper(self, runner)
        self._runner = runner
        self._end: asyncio.Future[GarrisonError | None] = asyncio.get_running_loop().create_future()

    @property
    def over(self) -> bool:
        """Whether it has ended."""
        return self._end.done()

    def memory_bytes(self) -> int:
        return 0

    async def sleeper(self) -> Sleeper | None:
        await asyncio.sleep(0)
        return self.sleeps if self._runner.can_sleep else None

    async def context_length(self) -> int | None:
        await asyncio.sleep(0)
        return self._runner.context

    def pids(self) -> frozenset[int]:
        return frozenset() if self.pid is None else frozenset({self.pid})

    async def ended(self) -> GarrisonError | None:
        return await asyncio.shield(self._end)

    async def stop(self, reason: str) -> None:
        self.stopped = self.stopped or reason
        if self._stopping is None:  # a caller that is cancelled does not end it
            self._stopping = asyncio.create_task(self._stop())
        await asyncio.wait([self._stopping])

    async def _stop(self) -> None:
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


class OneServer:
    """A `MemoryRunner` as one server has it, until that server is killed. What it started goes on.

    Attributes:
        killed: nothing that this server still does has an effect.
    """

    def __init__(self, runner: "MemoryRunner") -> None:
        self.killed = False
        self._runner = runner
        self._going_on: set[asyncio.Task[RunningEngine]] = set()

    async def start(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        self._runner.begin(launch)
        task = asyncio.ensure_future(self._runner.finish(launch, progress))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self.killed:
                self._runner.left[launch.spec.name] = task
                self._going_on.add(task)
                task.add_done_callback(self._ended)
            else:
                task.cancel()
                await asyncio.wait([task])
            raise

    def _ended(self, task: "asyncio.Task[RunningEngine]") -> None:
        self._going_on.discard(task)
        if not task.cancelled():
            task.exception()  # nobody is there to hear of it

    async def find(self, launch: Launch) -> LeftEngine | None:
        return await self._runner.find(launch, lambda: self.killed)

    async def forget(self, name: str) -> None:
        if not self.killed:
            await self._runner.forget(name)

    def free_port(self, taken: Container[int], kept: int | None = None) -> Awaitable[int]:
        return self._runner.free_port(taken, kept)

    def kill(self) -> None:
        """Cut this server off: its engines belong to nobody, until the next one adopts them."""
        self.killed = True
        for name, engine in list(self._runner.alive.items()):
            self._runner.alive[name] = self._runner.without_server(engine)


@dataclass(frozen=True, slots=True)
class _MemoryLeft:
    """`LeftEngine` without a process."""

    name: str
    runner: "MemoryRunner"
    killed: Callable[[], bool]

    async def ready(self, progress: Callable[[Progress], None]) -> RunningEngine:
        runner, name = self.runner, self.name
        try:
            if (ended := runner.starting.get(name)) is not None:
                progress(Progress("loading weights", 0.0))
                await ended.wait()
            if name in runner.hangs:
                await asyncio.sleep(1e6)
        except asyncio.CancelledError:
            if not self.killed():
                await runner.end(name)
            raise
        found = runner.alive.get(name)
        if found is None:
            raise EngineDiedError("it ended before it was ready")
        runner.alive[name] = engine = runner.without_server(found)
        return engine


class MemoryRunner:
    """`Runner` that starts nothing.

    Attributes:
        start_seconds, stop_seconds: how long a start and a stop take, by the loop's time.
        can_sleep: its engines can be put to sleep.
        sleep_seconds, wake_seconds: how long that takes.
        sleep_faults: what goes wrong with it from now on.
        fails: raised by the start of an instance of that name.
        context: tokens that its engines say they serve.
        alive: the engines by instance: what a successor can adopt.
        starting: the starts that have begun, with what is set at their end.
        left: starts that a killed server had begun.
        hangs: engines that do not answer the next server.
        starts: the names in the order of their starts.
        most_alive: the largest number of engines at once, those that start or stop included, those that sleep not.
    """

    def __init__(
        self,
        *,
        start_seconds: float = 1.0,
        stop_seconds: float = 0.1,
        can_sleep: bool = False,
        sleep_seconds: float = 0.3,
        wake_seconds: float = 0.2,
    ) -> None:
        self.can_sleep = can_sleep
        self.sleep_seconds = sleep_seconds
        self.wake_seconds = wake_seconds
        self.sleep_faults = SleepFaults()
        self.start_seconds = start_seconds
        self.stop_seconds = stop_seconds
        self.fails: dict[str, GarrisonError] = {}
        self.context: int | None = None
        self.alive: dict[str, MemoryRunningEngine] = {}
        self.starting: dict[str, asyncio.Event] = {}
        self.left: dict[str, asyncio.Future[RunningEngine]] = {}
        self.hangs: set[str] = set()
        self.starts: list[str] = []
        self.forgotten: list[str] = []
        self.most_alive = 0
        self._pid = 100

    async def start(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        self.begin(launch)
        return await self.finish(launch, progress)

    def begin(self, launch: Launch) -> None:
        """The step in which a process comes to be."""
        name = launch.spec.name
        assert name not in self.alive, f"{name} has an engine already"
        assert name not in self.starting, f"{name} is being started already"
        self.starting[name] = asyncio.Event()
        self.starts.append(name)
        self._count()

    async def finish(self, launch: Launch, progress: Callable[[Progress], None]) -> RunningEngine:
        """The rest of a start that has begun."""
        name = launch.spec.name
        try:
            progress(Progress("loading weights", 0.0))
            await asyncio.sleep(self.start_seconds)
            if name in self.fails:
                raise self.fails[name]
        finally:
            self.starting.pop(name).set()
        self._pid += 1
        self.alive[name] = engine = MemoryRunningEngine(launch, self._pid, self)
        return engine

    async def find(self, launch: Launch, killed: Callable[[], bool] = lambda: False) -> LeftEngine | None:
        """As `Runner.find`.

        Args:
            killed: whether the server that asks has been killed since, so that it ends nothing any more.
        """
        name = launch.spec.name
        return _MemoryLeft(name, self, killed) if name in self.starting or name in self.alive else None

    async def end(self, name: str) -> None:
        """End an engine that a killed server left, or the start that it had begun."""
        if (task := self.left.pop(name, None)) is not None:
            task.cancel()
            await asyncio.wait([task])
        if (engine := self.alive.get(name)) is not None:
            await engine.stop("the start was cancelled")

    def without_server(self, found: MemoryRunningEngine) -> MemoryRunningEngine:
        """The same engine, as whoever comes next sees it. Nothing that is done to `found` reaches it any more."""
        engine = MemoryRunningEngine(found.launch, found.pid or 0, self)
        engine.sleeps = MemorySleeper(engine, self)
        engine.sleeps.level, engine.sleeps.wrong = found.sleeps.level, found.sleeps.wrong
        engine.sleeps.kept = found.sleeps.kept
        engine.sleeps.adapters, engine.sleeps.calls = found.sleeps.adapters, found.sleeps.calls
        return engine

    async def forget(self, name: str) -> None:
        self.forgotten.append(name)

    def free_port(self, taken: Container[int], kept: int | None = None) -> Awaitable[int]:
        async def find() -> int:
            return kept if kept is not None else next(port for port in range(8000, 9000) if port not in taken)

        return find()

    @property
    def awake(self) -> set[str]:
        """The names of those that hold the memory of an engine."""
        return set(self.starting) | {name for name, engine in self.alive.items() if engine.sleeps.holds_memory}

    def changed(self, engine: MemoryRunningEngine) -> None:
        """Called by an engine that fell asleep or woke up."""
        self._count()

    def _count(self) -> None:
        self.most_alive = max(self.most_alive, len(self.awake))

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
        watched: engines whose memory is measured: what they need while they are awake, nothing while they sleep.
        back_seconds: how long the driver takes to return the memory of an engine that was stopped.
    """

    devices: Sequence[Device] = ()
    needs: dict[str, tuple[int | None, int]] = field(default_factory=dict)
    watched: MemoryRunner | None = None
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
        engine = self.watched.alive.get(live.name) if self.watched is not None else None
        bytes_ = self.need(live).bytes
        if engine is None or bytes_ is None:
            return {}
        return dict.fromkeys(live.devices or (HOST,), bytes_ if engine.sleeps.holds_memory else 0)


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
