"""Engines that outlive this process: started below a shim of their own, found again by their status file.

The shim keeps the log, the exit status and the control socket in a directory of the engine's own. An engine is adopted
by identity: the status file names the shim and the engine's main process, and both must still be those.
"""

import asyncio
import errno
import json
import os
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.base.identity import ProcessId, start_time
from garrison.launch.log_follower import LogFollower
from garrison.launch.run.engine_tree import EngineTree
from garrison.launch.run.shim_link import ShimLink
from garrison.launch.run.shims import Shims
from garrison.launch.run.spawn import EngineProcess, RecordAs
from garrison.launch.shim import SOCKET_NAME, STATUS_NAME, VERSION
from garrison.net.thread_pool import ThreadPool
from garrison.processes.local import local_processes

__all__ = ["Adopted", "DetachedSpawner", "ShimStatus", "adopt_engine", "lives", "read_status"]

_START_SECONDS = 30.0
_ANSWER_SECONDS = 5.0
_SLACK_SECONDS = 2.0
_POLL_SECONDS = 0.2
_MOST_STATUS_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class ShimStatus:
    """The status file of a shim.

    Attributes:
        state: `running`, `ending`, `ended`, or `survivors`.
        main: the engine's main process.
        shim: its parent.
        status: the exit status of the main process; None while it runs.
    """

    state: str
    main: ProcessId | None
    shim: ProcessId | None
    status: int | None
    cpu_seconds: float = 0.0
    peak_memory_bytes: int = 0


def read_status(directory: Path) -> ShimStatus | None:
    """Read a shim's status file; None where there is none that this user wrote."""
    try:
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(directory / STATUS_NAME, flags)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
            return None
        content = file.read(_MOST_STATUS_BYTES)
    try:
        body = json.loads(content)
        return ShimStatus(
            str(body["state"]),
            _process(body["main"]),
            _process(body["shim"]),
            body["status"],
            float(body["cpu_seconds"]),
            int(body["peak_memory_bytes"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


class DetachedSpawner:
    """Starts an engine below a shim that outlives this process.

    Args:
        directory: the engine's own, mode 0700: status file and control socket. It is made if it is missing.
        log: where the shim writes the engine's output.
    """

    def __init__(self, directory: Path, log: Path, pool: ThreadPool, shims: Shims) -> None:
        self._directory, self._log, self._pool, self._shims = directory, log, pool, shims

    async def spawn(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_timeout: float,
        record: RecordAs | None = None,
    ) -> EngineProcess:
        """As `Spawner.spawn`."""
        follower = await self._pool.run(lambda: LogFollower(self._log, from_end=True), f"open {self._log}")
        shim = await self._shims.take()
        link = ShimLink(shim.socket)
        spec: dict[str, Any] = {"v": VERSION, "argv": list(argv), "env": dict(environment)}
        spec |= {"stop_timeout": stop_timeout, "detached": True}
        spec |= {"directory": str(self._directory.absolute()), "log": str(self._log.absolute())}
        spec |= {} if record is None else {"record": record.to_json()}
        try:
            async with asyncio.timeout(_START_SECONDS):
                await link.send(spec)
                event = await link.event()
        except BaseException as error:
            link.close()
            shim.kill()
            if isinstance(error, TimeoutError):  # an OSError without a number or words
                late = f"its parent process did not start it within {_START_SECONDS:g} s"
                raise OSError(errno.ETIMEDOUT, late) from None
            raise
        if event is None or event["event"] == "failed":
            link.close()
            await shim.reaper
            number, text = (None, "its parent process exited") if event is None else (event["errno"], event["message"])
            raise OSError(number, text)
        main = None if event["start"] is None else ProcessId(event["pid"], event["start"])
        engine = _DetachedEngine(link, _identity(shim.process.pid), main, follower, self._pool)
        engine.unrecorded = event.get("unrecorded")
        engine.reaper = shim.reaper
        return engine


async def adopt_engine(directory: Path, log: Path, pool: ThreadPool) -> EngineProcess:
    """Take over an engine that an earlier process started.

    Args:
        directory, log: as for `DetachedSpawner`.

    Raises:
        OSError: its shim is gone, or is another process by now.
        TimeoutError: its shim does not answer.
    """
    found = await pool.run(lambda: read_status(directory), f"read {directory / STATUS_NAME}")
    if found is None or not lives(found.shim):
        raise OSError(None, "its parent process is gone")
    connection = socket.socket(socket.AF_UNIX)
    connection.setblocking(False)
    link = ShimLink(connection)
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await asyncio.get_running_loop().sock_connect(connection, str(directory / SOCKET_NAME))
            await link.send({"v": VERSION, "do": "watch"})
            answer = await link.answer()
    except BaseException:
        link.close()
        raise
    if answer is None or not answer.get("ok"):
        link.close()
        raise OSError(None, "its parent process does not answer" if answer is None else str(answer.get("error")))
    follower = await pool.run(lambda: LogFollower(log, from_end=True), f"open {log}")
    engine = _DetachedEngine(link, _process(answer["shim"]), _process(answer["main"]), follower, pool)
    engine.returncode = answer["status"]
    return engine


class Adopted:
    """`Spawner` whose engine runs already."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine

    async def spawn(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_timeout: float,
        record: RecordAs | None = None,
    ) -> EngineProcess:
        """Return the engine."""
        return self._engine


class _DetachedEngine(EngineTree):
    """An engine below a shim of its own, and the connection to it."""

    def __init__(
        self,
        link: ShimLink,
        shim: ProcessId | None,
        main: ProcessId | None,
        follower: LogFollower,
        pool: ThreadPool,
    ) -> None:
        super().__init__(link, shim, main)
        self._follower = follower
        self._pool = pool
        self.reaper: asyncio.Task[int] | None = None
        self.listen()

    async def read(self) -> bytes:
        ended = False
        while True:
            data = await self._pool.run(self._follower.read_new, "read an engine's log")
            if data or ended:
                return data
            ended = self.shim_is_gone
            if not ended:
                await asyncio.sleep(_POLL_SECONDS)

    async def end_of_shim(self) -> None:
        self.close()
        if self.reaper is not None:
            await asyncio.wait([self.reaper], timeout=_SLACK_SECONDS)

    def close(self) -> None:
        """Let go of the engine, which goes on."""
        super().close()
        self._follower.close()


def lives(known: ProcessId | None) -> bool:
    """Whether it runs. A zombie does not: nothing answers any more."""
    found = None if known is None else local_processes().stat(known.pid)
    return found is not None and found.id == known


def _process(found: Mapping[str, Any]) -> ProcessId | None:
    return None if found["start"] is None else ProcessId(int(found["pid"]), int(found["start"]))


def _identity(pid: int) -> ProcessId | None:
    start = start_time(pid)
    return None if start is None else ProcessId(pid, start)
