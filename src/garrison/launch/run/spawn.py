"""The seam to a running engine: started, read, measured and stopped. `ShimSpawner` starts it below a shim."""

import asyncio
import contextlib
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from garrison.base.children import SAFE_PYTHON, child_environment
from garrison.base.identity import ProcessId, start_time
from garrison.base.procfs import WITHOUT_PROC
from garrison.launch.run.engine_tree import EngineTree
from garrison.launch.run.shim_link import ShimLink
from garrison.launch.shim import MODULE, VERSION

__all__ = ["EngineProcess", "RecordAs", "ShimSpawner", "Spawner", "reap", "shim_environment", "start_shim"]

_SHIM_VARIABLES = frozenset(
    (
        WITHOUT_PROC,
        "HOME",
        "LANG",
        "LC_ALL",
        "LC_CTYPE",
        "LD_LIBRARY_PATH",
        "PATH",
        "PYTHONHOME",
        "PYTHONPATH",
        "PYTHONSAFEPATH",
        "TMPDIR",
    )
)
_START_SECONDS = 30.0
_SLACK_SECONDS = 2.0


class EngineProcess(Protocol):
    """A started engine: its main process and all descendants."""

    @property
    def main(self) -> ProcessId | None:
        """The process that was started; None when it exited too soon to be identified. In a container, that one's."""

    @property
    def returncode(self) -> int | None:
        """Of the process that was started, negative for a signal; None while it runs."""

    @property
    def lost(self) -> bool:
        """Whether its parent was killed, so that `returncode` stays unknown."""

    @property
    def unrecorded(self) -> str | None:
        """Why no record could be written; None if there is one, or none was requested."""

    @property
    def seen(self) -> tuple[ProcessId, ...]:
        """The processes of the last walk that found any."""

    async def read(self) -> bytes:
        """A piece of its output; empty when all processes that could write have exited."""

    def alive(self) -> tuple[ProcessId, ...]:
        """The living processes, children before their parents."""

    def cpu_seconds(self) -> float:
        """CPU time used so far by the living processes."""

    def memory_bytes(self) -> int:
        """Resident memory of the living processes."""

    def signal(self, number: int) -> bool:
        """Signal the main process; False when it has exited."""

    def kill(self) -> None:
        """Kill every process now."""

    async def stop(self, timeout: float) -> tuple[ProcessId, ...]:
        """Stop every process within about `timeout` seconds; returns those that survived SIGKILL."""

    def close(self) -> None:
        """Release it: what still runs is stopped without a wait."""


@dataclass(frozen=True, slots=True)
class RecordAs:
    """How a started engine is recorded for later preflights: under which name and port, in which directory."""

    directory: Path
    engine: str
    port: int | None

    def to_json(self) -> dict[str, Any]:
        return {"directory": str(self.directory.absolute()), "engine": self.engine, "port": self.port}


class Spawner(Protocol):
    async def spawn(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_timeout: float,
        record: RecordAs | None = None,
    ) -> EngineProcess:
        """Start `argv`.

        Args:
            stop_timeout: seconds for the stop that follows when this process dies.
            record: how later preflights recognise the engine while it runs; None records nothing.

        Raises:
            OSError: it cannot be executed.
        """


async def start_shim(
    *, stdout: int, stderr: int, cwd: str | None = None
) -> tuple[asyncio.subprocess.Process, socket.socket]:
    """Start a shim in a session of its own, and return it with the socket over which it is told what to run.

    Raises:
        OSError: it cannot be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, SAFE_PYTHON, "-m", MODULE, str(theirs.fileno())),
                env=shim_environment(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                cwd=cwd,
            )
        except BaseException:
            ours.close()
            raise
    return process, ours


class ShimSpawner:
    """Starts each engine below its own shim, so that one process can run any number."""

    async def spawn(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        *,
        stop_timeout: float,
        record: RecordAs | None = None,
    ) -> EngineProcess:
        # Ctrl-C reaches only Garrison, which then stops the engine in order.
        shim, ours = await start_shim(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        engine = _ShimmedEngine(shim, ShimLink(ours))
        spec = {"v": VERSION, "argv": list(argv), "env": dict(environment), "stop_timeout": stop_timeout}
        wanted = {} if record is None else {"record": record.to_json()}
        try:
            await asyncio.wait_for(engine.begin(spec | wanted), _START_SECONDS)
        except TimeoutError:  # an OSError without a number or words
            await engine.end_of_shim()
            raise OSError(errno.ETIMEDOUT, f"its parent process did not start it within {_START_SECONDS:g} s") from None
        except OSError:
            await engine.end_of_shim()
            raise
        except BaseException:
            engine.close()
            reap(shim)
            raise
        return engine


class _ShimmedEngine(EngineTree):
    """An engine that ends with this process, which reads its output."""

    def __init__(self, shim: asyncio.subprocess.Process, link: ShimLink) -> None:
        super().__init__(link, _identity(shim.pid))
        self._shim = shim

    async def begin(self, spec: Mapping[str, Any]) -> None:
        await self._link.send(spec)
        event = await self._link.event()
        if event is None:
            said = (await self.read()).decode(errors="replace").strip().splitlines()
            raise OSError(None, f"its parent process exited: {said[-1] if said else 'without output'}")
        if event["event"] == "failed":
            raise OSError(event["errno"], event["message"])
        if event["start"] is not None:
            self.main = self._tree.leader = ProcessId(event["pid"], event["start"])
        self.unrecorded = event.get("unrecorded")
        self.listen()

    async def read(self) -> bytes:
        assert self._shim.stdout is not None
        return await self._shim.stdout.read(65536)

    async def end_of_shim(self) -> None:
        """Close the connection, at which an idle shim exits, and reap it."""
        self.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._shim.wait(), _SLACK_SECONDS)


_reapers: set[asyncio.Task[int]] = set()  # the loop itself holds tasks only weakly


def reap(shim: asyncio.subprocess.Process) -> asyncio.Task[int]:
    """Collect a shim's exit status when it ends, as its parent must, whoever waits for it."""
    task = asyncio.create_task(shim.wait(), name="reap a shim")
    _reapers.add(task)
    task.add_done_callback(_reapers.discard)
    return task


def shim_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that the shim's Python needs, without secrets: the engine's environment is sent over the socket."""
    return {name: value for name, value in child_environment(environ).items() if name in _SHIM_VARIABLES}


def _identity(pid: int) -> ProcessId | None:
    start = start_time(pid)
    return None if start is None else ProcessId(pid, start)
