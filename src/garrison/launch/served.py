"""What `garrison serve` runs on this machine: found by the records of started engines, stopped by identity."""

import contextlib
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from garrison.base.clock import Clock
from garrison.base.errors import DeniedError, EngineTimeoutError
from garrison.base.identity import ProcessId
from garrison.base.settings import Settings
from garrison.engines.registry import engine
from garrison.launch.port_server import model_of, started_at
from garrison.launch.run.detached import read_status
from garrison.preflight.engine_records import EngineRecord, read_records
from garrison.preflight.reclaim import living, stop_trees
from garrison.processes.process import Process, Processes

__all__ = ["ServedEngine", "instance_engines", "name_served_at", "served_engine", "served_engines", "stop_served"]

_POLL_SECONDS = 0.1
_SLACK_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ServedEngine:
    """An engine that a `garrison serve` started.

    Attributes:
        name: `ENGINE-PORT`, or `ENGINE-pid-PID` where it has no port.
        main: its first process.
        roots: the roots of its tree: the first process, and the one that reaps its descendants.
        parent: the `garrison serve`; None where that has become the engine (`--exec`), or has ended.
        since: its start, in UTC; None where the system does not say.
        log: the file with its output; None where that is not known.
        memory_bytes: what its processes hold; 0 where that is not known.
    """

    name: str
    engine: str
    main: ProcessId
    roots: tuple[ProcessId, ...]
    model: str | None = None
    port: int | None = None
    parent: ProcessId | None = None
    since: datetime | None = None
    log: Path | None = None
    memory_bytes: int = 0

    def is_called(self, name: str) -> bool:
        """Whether people may mean it by `name`: its name, its port or its pid."""
        return name in (self.name, str(self.port), str(self.main.pid))


def served_engines(settings: Settings, processes: Processes) -> tuple[ServedEngine, ...]:
    """What `garrison serve` runs, by name. Engines of instances are recorded in the same place, and left out."""
    instances = instance_engines(settings.data_dir)
    found = (
        served_engine(record, processes, logs=settings.data_dir / "logs")
        for record in read_records(settings.engine_records).engines
        if not instances & set(record.processes)
    )
    return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.name, one.main.pid)))


def instance_engines(data_dir: Path) -> set[ProcessId]:
    """The processes of instances, by their status files."""
    found = (read_status(path) for path in (data_dir / "instances").glob("*"))
    return {one for status in found if status is not None for one in (status.main, status.shim) if one is not None}


def served_engine(record: EngineRecord, processes: Processes, *, logs: Path) -> ServedEngine | None:
    """The engine of a record; None where its first process has ended."""
    main = ProcessId(record.main.pid, record.main.start or 0)
    process = processes.read(main.pid)
    if process is None or process.id != main:
        return None
    parent = _parent(record, processes)
    return ServedEngine(
        name=f"{record.engine}-{record.port}" if record.port is not None else f"{record.engine}-pid-{main.pid}",
        engine=record.engine,
        main=main,
        roots=record.processes,
        model=model_of(process.argv),
        port=record.port,
        parent=None if parent is None else parent.id,
        since=started_at(main.pid),
        log=None if parent is None else _log_of(parent.id, logs),
        memory_bytes=_memory(main, processes),
    )


def name_served_at(port: int, engines: Iterable[EngineRecord], processes: Processes) -> str | None:
    """The name by which clients ask the engine that Garrison started on this port; None where that is not known."""
    for record in engines:
        process = processes.read(record.main.pid) if record.port == port else None
        if process is None or process.id != ProcessId(record.main.pid, record.main.start or 0):
            continue
        kind = engine(record.engine)
        return kind.fixed_model_name or next(iter(kind.served_names(process.argv)), None) or model_of(process.argv)
    return None


def stop_served(found: ServedEngine, settings: Settings, processes: Processes, clock: Clock) -> None:
    """Stop an engine as Ctrl-C does: its `garrison serve` stops it and ends. Without one, its processes are stopped.

    Raises:
        DeniedError: the process may not be signalled.
        EngineTimeoutError: it still runs after twice the stop timeout.
    """
    seconds = 2.0 * settings.stop_timeout + _SLACK_SECONDS
    left: tuple[ProcessId, ...]
    try:
        if found.parent is not None and processes.signal(found.parent, signal.SIGTERM):
            left = _wait_for_end((found.parent, found.main), processes, seconds, clock)
        else:
            timeout = float(settings.stop_timeout)
            left = stop_trees(
                found.roots, processes=processes, is_free=lambda: True, timeout=timeout, clock=clock, say=lambda _: None
            ).survivors
    except PermissionError:
        raise DeniedError(
            f"{found.name} (pid {found.main.pid}) may not be signalled by this user", hint="Run as its user or as root."
        ) from None
    if left:
        raise EngineTimeoutError(
            f"{found.name} was told to stop, and still runs after {seconds:g} s",
            hint="Its log says why. A second signal kills it.",
            details={"pids": [one.pid for one in left]},
        )


def _wait_for_end(
    known: tuple[ProcessId, ...], processes: Processes, seconds: float, clock: Clock
) -> tuple[ProcessId, ...]:
    deadline = clock.monotonic() + seconds
    while left := living(known, processes):
        if clock.monotonic() >= deadline:
            return left
        clock.sleep(_POLL_SECONDS)
    return ()


def _parent(record: EngineRecord, processes: Processes) -> Process | None:
    """The starter of an engine's shim, if both are there."""
    if record.shim is None:
        return None
    shim = processes.read(record.shim.pid)
    if shim is None or shim.id.start != record.shim.start or shim.parent <= 1:
        return None
    parent = processes.read(shim.parent)
    again = processes.read(record.shim.pid)
    # Had the parent ended in between, another process could have its pid by now, and the shim another parent.
    unchanged = again is not None and again.id == shim.id and again.parent == shim.parent
    return parent if unchanged and parent is not None and parent.uid == processes.own_uid() else None


def _log_of(parent: ProcessId, logs: Path) -> Path | None:
    """The log that a `garrison serve` has open: another engine may have had the usual name when it began."""
    directory = Path(f"/proc/{parent.pid}/fd")
    try:
        opened = [Path(one.readlink()) for one in directory.iterdir()]
    except OSError:  # it ended, or the system has no /proc
        return None
    root = logs.resolve()
    return next((one for one in opened if one.parent == root and one.suffix == ".log"), None)


def _memory(main: ProcessId, processes: Processes) -> int:
    from garrison.processes.procfs import Procfs

    if not isinstance(processes, Procfs):
        return 0
    found = 0
    for pid in processes.subtree(main):
        with contextlib.suppress(OSError):  # it ended
            found += processes.resident_bytes(pid)
    return found
