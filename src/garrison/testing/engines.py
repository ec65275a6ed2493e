"""The twins of a started engine and of its spawner."""

import asyncio
import signal
from collections.abc import Mapping, Sequence

from garrison.base.identity import ProcessId
from garrison.launch.run.spawn import EngineProcess, RecordAs

__all__ = ["MemoryEngine", "MemorySpawner"]


class MemoryEngine:
    """`EngineProcess` without a process. A test writes its output with `say` and ends it with `end`.

    Attributes:
        signals: signals that were sent to it, in order.
        stops: the timeout of each `stop`, in seconds.
        ignores_stop: it survives `stop`.
        stopping: when set, `stop` sets it and does not return.
        closed: `close` was called.
        unrecorded: why its identity could not be recorded; None if it was.
    """

    def __init__(self, pid: int = 100) -> None:
        self.main: ProcessId | None = ProcessId(pid, 1)
        self.returncode: int | None = None
        self.lost = False
        self.unrecorded: str | None = None
        self.signals: list[int] = []
        self.stops: list[float] = []
        self.ignores_stop = False
        self.stopping: asyncio.Event | None = None
        self.closed = False
        self._output: asyncio.Queue[bytes] = asyncio.Queue()

    @property
    def seen(self) -> tuple[ProcessId, ...]:
        return () if self.main is None else (self.main,)

    def say(self, data: bytes) -> None:
        self._output.put_nowait(data)

    def end(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self._output.put_nowait(b"")

    async def read(self) -> bytes:
        return await self._output.get()

    def alive(self) -> tuple[ProcessId, ...]:
        return self.seen if self.returncode is None else ()

    def cpu_seconds(self) -> float:
        return 0.0

    def memory_bytes(self) -> int:
        return 0

    def signal(self, number: int) -> bool:
        self.signals.append(number)
        return self.returncode is None

    def kill(self) -> None:
        self.end(-signal.SIGKILL)

    async def stop(self, timeout: float) -> tuple[ProcessId, ...]:
        self.stops.append(timeout)
        if self.stopping is not None:
            self.stopping.set()
            await asyncio.Event().wait()
        if not self.ignores_stop:
            self.end(-signal.SIGTERM)
        return self.alive()

    def close(self) -> None:
        self.closed = True


class MemorySpawner:
    """`Spawner` that records the commands and starts nothing.

    Attributes:
        started: one engine per `spawn`, in order.
        commands: (argv, environment) per `spawn`.
        records: the requested record per `spawn`.
        refuses: raised by `spawn` when set.
        delay: when set, `spawn` waits for it.
    """

    def __init__(self) -> None:
        self.records: list[RecordAs | None] = []
        self.started: list[MemoryEngine] = []
        self.commands: list[tuple[tuple[str, ...], Mapping[str, str]]] = []
        self.refuses: OSError | None = None
        self.delay: asyncio.Event | None = None

    async def spawn(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_timeout: float,
        record: RecordAs | None = None,
    ) -> EngineProcess:
        if self.delay is not None:
            await self.delay.wait()
        if self.refuses is not None:
            raise self.refuses
        self.commands.append((tuple(argv), environment))
        self.records.append(record)
        self.started.append(MemoryEngine(100 + len(self.started)))
        return self.started[-1]
