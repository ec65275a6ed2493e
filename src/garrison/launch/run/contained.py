"""An engine in a container: the process below the shim is docker or podman, and the container is ended by its labels.

podman's containers descend from the shim, docker's from its daemon. So the container is stopped and removed through the
program, also when the shim or the program was killed, and its processes are measured from its main process.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from garrison.base.errors import GarrisonError
from garrison.base.identity import ProcessId, start_time
from garrison.base.logs import logger
from garrison.launch.containers.program import Containers
from garrison.launch.run.spawn import EngineProcess, RecordAs, Spawner
from garrison.processes.descendants import Descendants
from garrison.processes.local import local_processes

__all__ = ["Contained", "ContainedSpawner", "end_containers"]

_LOCATE_SECONDS = (0.1, 0.3, 0.6, 1.0, 2.0)
"""Waits between the questions for the main process; the last one is repeated. An image may have to be pulled first."""
_STOP_SHARE = 0.7
_LET_GO_SECONDS = 3.0
_POLL_SECONDS = 0.05
_REMOVALS = 5
_REMOVAL_PAUSE_SECONDS = 0.3

_log = logger(__name__)


async def end_containers(containers: Containers, labels: Mapping[str, str], *, seconds: float | None = None) -> int:
    """Remove every container with these labels; how many there were.

    A program that was killed in the middle of a start may still bring one into being, so it is looked for again.

    Args:
        seconds: how long each is given to end by itself; None removes it at once.

    Raises:
        EngineMissingError: docker or podman does not work, or a container cannot be removed.
    """
    ended = 0
    for attempt in range(_REMOVALS):
        found = await containers.find(labels)
        if not found:
            break
        if attempt:
            await asyncio.sleep(_REMOVAL_PAUSE_SECONDS)
        ended = max(ended, len(found))
        for one in found:
            if seconds is not None and one.running and attempt == 0:
                await containers.stop(one.id, seconds)
            await containers.remove(one.id)
    return ended


class ContainedSpawner:
    """`Spawner` for the command of docker or podman.

    Args:
        spawner: starts the command.
        labels: those of the container.
    """

    def __init__(self, spawner: Spawner, containers: Containers, labels: Mapping[str, str]) -> None:
        self._spawner, self._containers, self._labels = spawner, containers, labels

    async def spawn(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_timeout: float,
        record: RecordAs | None = None,
    ) -> EngineProcess:
        """As `Spawner.spawn`."""
        process = await self._spawner.spawn(argv, environment, stop_timeout=stop_timeout, record=record)
        return Contained(process, self._containers, self._labels)


class Contained:
    """`EngineProcess` of an engine in a container. Belongs to one event loop.

    Args:
        process: docker or podman, and what descends from it.
    """

    def __init__(self, process: EngineProcess, containers: Containers, labels: Mapping[str, str]) -> None:
        self._process = process
        self._containers = containers
        self._labels = labels
        self._inside: ProcessId | None = None
        self._apart = Descendants(None)  # processes of the container that do not descend from the shim
        self._locator = asyncio.create_task(self._locate())

    @property
    def main(self) -> ProcessId | None:
        """The main process of the container; the program until that is known."""
        return self._inside or self._process.main

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    @property
    def lost(self) -> bool:
        return self._process.lost

    @property
    def unrecorded(self) -> str | None:
        return self._process.unrecorded

    @property
    def seen(self) -> tuple[ProcessId, ...]:
        return _joined(self._process.seen, self._apart.seen, (self._inside,) if self._inside else ())

    async def read(self) -> bytes:
        return await self._process.read()

    def alive(self) -> tuple[ProcessId, ...]:
        return _joined(self._apart.alive(), self._process.alive())

    def cpu_seconds(self) -> float:
        return self._process.cpu_seconds() + self._apart.cpu_seconds()

    def memory_bytes(self) -> int:
        return self._process.memory_bytes() + self._apart.memory_bytes()

    def signal(self, number: int) -> bool:
        """Signal docker or podman, which passes it on."""
        return self._process.signal(number)

    def kill(self) -> None:
        """Kill what descends from the shim now. A container below a daemon is removed by the stop that follows."""
        self._process.kill()

    async def stop(self, timeout: float) -> tuple[ProcessId, ...]:
        """As `EngineProcess.stop`; the container is removed."""
        self._locator.cancel()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await self._stop_container(timeout * _STOP_SHARE)
        await self._let_go()
        await self._process.stop(max(1.0, timeout - (loop.time() - begun)))
        try:
            await end_containers(self._containers, self._labels)
        except GarrisonError as error:
            _log.warning("a container could not be removed", error=error.message, **self._labels)
        return tuple(one for one in self.seen if _lives(one))

    async def located(self, seconds: float) -> None:
        """Wait until the main process of the container is known, at most so long."""
        await asyncio.wait([self._locator], timeout=seconds)

    def close(self) -> None:
        self._locator.cancel()
        self._process.close()

    async def _stop_container(self, seconds: float) -> None:
        try:
            for one in await self._containers.find(self._labels):
                if one.running:
                    await self._containers.stop(one.id, seconds)
        except GarrisonError as error:  # its processes are stopped as far as they can be seen
            _log.warning("a container could not be stopped", error=error.message, **self._labels)

    async def _let_go(self) -> None:
        """Give the program the time to clean up after its container, which it does best undisturbed."""
        for _ in range(int(_LET_GO_SECONDS / _POLL_SECONDS)):
            if self._process.lost or not self._process.alive():
                return
            if self._inside is None:  # nothing was found to stop, so nothing will end by itself
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _locate(self) -> None:
        """Find the main process of the container."""
        for attempt in range(10**6):
            await asyncio.sleep(_LOCATE_SECONDS[min(attempt, len(_LOCATE_SECONDS) - 1)])
            if self._process.returncode is not None or self._process.lost:
                return
            with contextlib.suppress(GarrisonError):
                found = await self._containers.find(self._labels)
                pids = [(one.id, one.pid) for one in found if one.running and one.pid is not None]
                if pids and (inside := self._is_main(*pids[0])) is not None:
                    self._inside = inside
                    if inside not in self._process.alive():
                        self._apart = _below_parent(inside)
                    return

    def _is_main(self, container: str, pid: int) -> ProcessId | None:
        """The process, if it is of this machine and of that container: the daemon may count processes as another
        machine does."""
        start = start_time(pid)
        if start is None:
            return None
        process = ProcessId(pid, start)
        if process in self._process.alive():
            return process
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return None
        return process if container in groups else None


def _below_parent(inside: ProcessId) -> Descendants:
    """The main process of a container and what descends from it: containerd has one parent for each container."""
    found = local_processes().stat(inside.pid)
    start = None if found is None or found.parent <= 1 else start_time(found.parent)
    return Descendants(None if found is None or start is None else ProcessId(found.parent, start))


def _joined(*groups: Sequence[ProcessId]) -> tuple[ProcessId, ...]:
    return tuple(dict.fromkeys(one for group in groups for one in group))


def _lives(known: ProcessId) -> bool:
    found = local_processes().stat(known.pid)
    return found is not None and found.id == known
