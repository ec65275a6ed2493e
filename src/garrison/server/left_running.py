"""What a server left running when it ended, stopped while no server runs: its engines, and its gateway."""

import asyncio
import os
import signal
import time
from collections.abc import Collection, Sequence
from dataclasses import replace

from garrison.base.clock import SystemClock
from garrison.base.errors import ConflictError
from garrison.base.identity import ProcessId, start_time
from garrison.base.presence import is_missing
from garrison.base.settings import Settings
from garrison.gateway.ollama.told import RECORD_NAME as OLLAMA
from garrison.gateway.ollama.told import read_record
from garrison.instances.book import instance_event
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.stored import StoredInstances
from garrison.instances.values.record import InstanceRecord
from garrison.instances.values.state import Condition, State
from garrison.net.thread_pool import ThreadPool
from garrison.processes.local import local_processes
from garrison.server.lock import ServerLock
from garrison.server.offline import stored_instances
from garrison.server.workers.records import RECORD_NAME as WORKERS
from garrison.server.workers.records import read_workers
from garrison.store.sql.store import open_store

__all__ = ["end_left_gateway", "stop_left_engines"]

_AT_ONCE = 8
_LOCK_SECONDS = 120.0
_POLL_SECONDS = 0.1


def end_left_gateway(settings: Settings) -> bool:
    """End the processes of a gateway whose server was killed, as that would have. Returns whether there were any.

    They finish the requests in progress within the setting `drain_timeout`.

    Raises:
        ConflictError: a server runs on the data directory, or starts.
    """
    if is_missing(settings.data_dir):
        return False
    lock = _locked(settings)  # the next server adopts them
    try:
        left = [one.process for one in read_workers(settings.data_dir / WORKERS)]
        if (ollama := read_record(settings.data_dir / OLLAMA)) is not None:
            left.append(ollama.process)
        running = [one for one in left if _signal(one, signal.SIGTERM)]
        deadline = time.monotonic() + settings.drain_timeout + 2.0
        while any(map(_runs, running)) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        for one in running:
            _signal(one, signal.SIGKILL)
    finally:
        lock.release()
    return bool(running)


def _locked(settings: Settings) -> ServerLock:
    """Keep servers away, when other commands that do so have ended. Raises ConflictError: a server runs, or starts."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            return ServerLock(settings.data_dir, briefly=True)
        except ConflictError as error:
            if not error.details.get("briefly") or time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def _runs(process: ProcessId) -> bool:
    return start_time(process.pid) == process.start


def _signal(process: ProcessId, number: int) -> bool:
    try:
        return local_processes().signal(process, number)
    except PermissionError:
        return False


async def stop_left_engines(settings: Settings, reason: str, only: Collection[str] | None = None) -> list[str]:
    """Stop what runs, as a server would, and record that it has. Returns the names of those that ran.

    Args:
        only: the instances to stop, which are not resumed by the next server, either; None for all, which are.

    Raises:
        ConflictError: a server runs on the data directory, or starts.
        EngineTimeoutError: an engine does not end. The others have been stopped.
        GarrisonError: the database cannot be opened.
    """
    if is_missing(settings.data_dir):
        return []
    lock = _locked(settings)  # no server may adopt what is being stopped
    pool = ThreadPool("garrison-left", _AT_ONCE)
    try:
        runner = EngineRunner(settings, os.environ, ports=settings.instance_port_range, pool=pool)
        named = [one for one in stored_instances(settings) if only is None or one.record.spec.name in only]
        running = [one.record for one in named if one.pid is not None]
        ends = (runner.end_left(one.spec.name, settings.stop_timeout) for one in running)
        errors = await asyncio.gather(*ends, return_exceptions=True)
        stopped = [one for one, error in zip(running, errors, strict=True) if error is None]
        idle = [one.record for one in named if one.pid is None]
        _save(settings, stopped, idle if only is not None else [], reason, resumed=only is None)
        for error in errors:
            if error is not None:
                raise error
    finally:
        lock.release()
    return [one.spec.name for one in stopped]


def _save(
    settings: Settings, stopped: Sequence[InstanceRecord], idle: Sequence[InstanceRecord], reason: str, *, resumed: bool
) -> None:
    """Put on record that instances were stopped.

    Args:
        idle: those whose engines had ended before, and which are not resumed any more.
    """
    now = SystemClock().now()
    condition = Condition(State.STOPPED, now, reason)
    records = [replace(one, condition=condition, updated=now, wanted=one.wanted and resumed) for one in stopped]
    events = [instance_event(str(State.STOPPED), one, after={"reason": reason}) for one in records]
    records += [replace(one, updated=now, wanted=False) for one in idle if one.wanted]
    if not records:
        return
    store = open_store(settings.database)
    try:
        StoredInstances(store, settings.node_name).save(records, events)
    finally:
        store.close()
