"""One engine from start to exit: spawn, phases, ready, stop.

Any number of runs share one process and one event loop: a run handles no signals, owns no terminal, and collects no
exit status but that of its own child. How long to wait is decided in `patience`, processes are started and ended behind
`spawn`, and `failure` explains what went wrong.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.errors import EngineDiedError, EngineMissingError, EngineTimeoutError, GarrisonError
from garrison.engines.diagnose import LOG_LINES
from garrison.engines.phases import is_fatal, phase_of
from garrison.launch.engine_log import EngineLog, OutputLines
from garrison.launch.run.failure import ended_text, failure, stop_cause, stopped_by_other
from garrison.launch.run.hub_cache import make_hub_cache
from garrison.launch.run.job import Job
from garrison.launch.run.listener_owner import stranger_on
from garrison.launch.run.patience import CpuWatch, Life, verdict
from garrison.launch.run.ready import Answer
from garrison.launch.run.spawn import EngineProcess, RecordAs, ShimSpawner, Spawner
from garrison.launch.run.view import StartView
from garrison.preflight.engine_records import unrecorded
from garrison.preflight.stop_notes import read_note

if TYPE_CHECKING:
    from garrison.launch.run.probe import EngineProbe

__all__ = ["EngineRun", "Job", "State"]

_POLL_SECONDS = 0.1
_SERVING_POLL_SECONDS = 0.5
_TELL_SECONDS = 1.0
_WALK_SECONDS = 5.0
_DRAIN_SECONDS = 1.0
_SETTLE_SECONDS = 1.0


class State(Enum):
    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LEFT = "left"


class EngineRun:
    """One run of one engine. Making one opens the engine's log and starts nothing.

    `run` is the whole run and belongs to one task. Other tasks of the same loop read the attributes, wait with
    `started`, and end the run with `stop`.

    Args:
        log: what to do with the output; None keeps it in the job's log file.
        lasting: the engine outlives this process. When `run` is cancelled, the engine goes on.

    Attributes:
        state: where the run is.
        phase: the last startup phase in the engine's output; empty when none is known.
        process: the started engine; None before.
        log_path: the file for its output.

    Raises:
        InvalidError, DiskFullError: the log cannot be written.
    """

    def __init__(
        self,
        job: Job,
        view: StartView,
        *,
        spawner: Spawner | None = None,
        log: Callable[[Callable[[str], None]], OutputLines] | None = None,
        lasting: bool = False,
    ) -> None:
        self.state = State.NEW
        self.phase = ""
        self.process: EngineProcess | None = None
        self._job = job
        self._view = view
        self._spawner = spawner or ShimSpawner()
        self._lasting = lasting
        self._log = log(self._on_line) if log else EngineLog(job.log_path, self._on_line, tail_lines=LOG_LINES)
        self._reader: asyncio.Task[None] | None = None
        self._stop_reason: str | None = None
        self._kill = False
        self._wake = asyncio.Event()
        self._ready = asyncio.Event()
        self._stopped = asyncio.Event()
        self._started_at = 0.0
        self._last_output = 0.0
        self._fatal = False
        self._given_up = False
        self._says_ready = False
        self._on_bound: Callable[[], None] = lambda: None

    @property
    def log_path(self) -> Path:
        return self._log.path

    def close(self) -> None:
        """Close the log: nothing will be started, or everything has ended."""
        self._log.close()

    async def run(self, on_bound: Callable[[], None] = lambda: None) -> bool:
        """Start the engine, wait until it exits or a stop is requested, and leave no process behind.

        Args:
            on_bound: called once, when the engine listens and the port's lock can be released.

        Returns:
            After a requested stop, whether the engine was ready.

        Raises:
            EngineMissingError: it cannot be executed.
            EngineDiedError: it exited by itself. Details: `returncode`, `log_path`, `log_tail`, `diagnosis`.
            EngineTimeoutError: it was not ready in time, or showed no sign of life for too long.
        """
        self._on_bound = on_bound
        try:
            if self._stop_reason is not None:  # before the task of this run got its turn
                return False
            await self._startup()
            was_ready = self.state is State.READY
            if was_ready:
                await self._main_loop()
        except asyncio.CancelledError:
            if self._lasting:
                self._leave()
            raise
        finally:
            if self.state is not State.LEFT:
                await self._shutdown()
        return was_ready

    async def started(self) -> bool:
        """Wait until the engine is ready, or assumed to be; False if the run ended before."""
        waits = [asyncio.create_task(event.wait()) for event in (self._ready, self._stopped)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self._ready.is_set()

    def request_stop(self, reason: str) -> None:
        """Request a stop, from the loop's own thread; `reason` is shown. A second request has no effect."""
        if self._stop_reason is None:
            self._stop_reason = reason
        self._wake.set()

    async def stop(self, reason: str) -> None:
        """Request a stop and wait for it. Errors of the run are raised by `run`, not here."""
        self.request_stop(reason)
        if self.state is not State.NEW:
            await self._stopped.wait()

    def kill(self) -> None:
        """Kill every process of the engine without waiting; `run` returns after that."""
        self._kill = True
        if self.process is not None:
            self.process.kill()

    def signal(self, number: int) -> None:
        """Pass a signal on to the engine's main process."""
        if self.process is not None:
            self.process.signal(number)

    async def _startup(self) -> None:
        from garrison.launch.run.probe import EngineProbe

        self.state = State.STARTING
        self._log.begin()
        if self._log.path != self._job.log_path:
            self._view.note(f"a running engine writes to {self._job.log_path}, so this one writes to {self._log.path}")
        self._started_at = self._last_output = self._now()
        self._view.starting(seconds=0.0, memory_bytes=0)
        process = await self._spawn()
        if not self._job.endpoint.can_be_asked:
            await self._until_settled(process)
            return
        async with EngineProbe(self._job.endpoint, self._job.engine.readiness) as probe:
            await self._until_ready(process, probe)

    async def _until_settled(self, process: EngineProcess) -> None:
        """Without a server to ask, all that can be known is that the engine runs."""
        while not self._asked_to_stop() and self._seconds() < _SETTLE_SECONDS:
            await self._sleep(_POLL_SECONDS)
            if self._ended():
                await self._raise_died("at its start")
        if not self._asked_to_stop():
            self._now_serving()
            why = "it is headless and has no API server, so it cannot be asked whether it is ready"
            if self._job.endpoint.protocol != "none":
                why = "the system chooses its port, so it cannot be asked whether it is ready"
            self._view.running(why, seconds=self._seconds(), memory_bytes=process.memory_bytes())

    async def _until_ready(self, process: EngineProcess, probe: "EngineProbe") -> None:
        bound, told = False, self._now()
        watch = CpuWatch(self._started_at)
        while not self._asked_to_stop():
            if self._ended() or self._fatal:
                await self._raise_died("before it was ready")
                return
            answer = await probe.ask()
            if self._job.engine.readiness.declared:
                answer = replace(answer, unsure=False)
            if answer.dead:
                self._given_up = True
                raise self._failure(EngineDiedError, f"{self._job.engine.title} cannot serve: {answer.reason}")
            if answer.heard and not bound:
                bound = True
                self._on_bound()
            if self._asked_to_stop():  # while it answered: it is not said to be ready any more
                return
            if not self._ended() and (answer.ready or self._must_be_ready(answer)):
                await self._now_ready(process, answer, probe)
                return
            now = self._now()
            if now - told >= _TELL_SECONDS:
                told = now
                self._view.starting(seconds=self._seconds(), memory_bytes=process.memory_bytes())
            watch.saw(now, process.cpu_seconds())
            life = Life(now - self._started_at, now - self._last_output, now - watch.last_work)
            if reason := verdict(self._job.patience, life):
                if answer.unsure and not self._ended():
                    await self._now_ready(process, answer, probe)
                    return
                self._given_up = True
                raise self._failure(EngineTimeoutError, f"{self._job.engine.title} {reason}: {answer.reason}")
            await self._sleep(_POLL_SECONDS)

    def _must_be_ready(self, answer: Answer) -> bool:
        """An unclear answer is enough from an engine that listens only once it is ready, or has said that it is."""
        return answer.unsure and (self._job.engine.readiness.listens_when_ready or self._says_ready)

    async def _now_ready(self, process: EngineProcess, answer: Answer, probe: "EngineProbe") -> None:
        ours = {one.pid for one in process.alive()}
        stranger = await asyncio.to_thread(stranger_on, probe.endpoint, ours)
        if self._ended():
            await self._raise_died("before it was ready")
        if self._asked_to_stop():
            return
        self._now_serving()
        memory = process.memory_bytes()
        if answer.ready and stranger is None:
            self._view.ready(seconds=self._seconds(), memory_bytes=memory)
        else:
            why = f"it listens, but its answer does not tell whether it is ready: {answer.reason}"
            if stranger is not None:  # as with an engine in a container
                why = f"pid {stranger}, which answers on its port, was not started by it"
            self._view.running(why, seconds=self._seconds(), memory_bytes=memory)
        self._view.reached(probe.endpoint)

    def _now_serving(self) -> None:
        self.state = State.READY
        self._ready.set()

    async def _main_loop(self) -> None:
        walked = self._now()
        while not self._asked_to_stop():
            if self._ended():
                await self._raise_died("while it was serving")
                return
            if self.process is not None and self._now() - walked >= _WALK_SECONDS:
                walked = self._now()
                self.process.alive()  # if the shim is killed, what was last seen is all that can be stopped
            await self._sleep(_SERVING_POLL_SECONDS)

    def _leave(self) -> None:
        """Let go of an engine that goes on."""
        self.state = State.LEFT
        if self.process is not None:
            self.process.close()
        if self._reader is not None:
            self._reader.cancel()
        self._log.close()
        self._stopped.set()

    async def _shutdown(self) -> None:
        try:
            if self.process is not None:
                await self._stop_process(self.process)
            await self._drain()
        finally:  # also when this is cancelled: the shim stops what still runs, and others wait for this run's end
            if self.process is not None:
                self.process.close()
            if self._reader is not None:
                self._reader.cancel()
            self._log.close()
            self.state = State.STOPPED
            self._stopped.set()

    async def _stop_process(self, process: EngineProcess) -> None:
        begun = self._now()
        if process.alive():
            cause = stop_cause(process.returncode, lost=process.lost, fatal=self._fatal, given_up=self._given_up)
            self.state = State.STOPPING
            self._view.stopping(self._stop_reason or cause)
        # Awaited, not blocking: `kill` must work meanwhile.
        if survivors := await process.stop(self._job.stop_timeout):
            self._view.note(f"still running after SIGKILL: pid {', '.join(str(one.pid) for one in survivors)}")
        elif self.state is State.STOPPING:
            self._view.stopped(seconds=self._now() - begun)

    async def _spawn(self) -> EngineProcess:
        command = self._job.command
        if command.reads_hub_cache:
            await asyncio.to_thread(make_hub_cache, self._job.environment)
        try:
            self.process = await self._spawner.spawn(
                command.argv, self._job.environment, stop_timeout=self._job.stop_timeout, record=self._record_as()
            )
        except OSError as error:
            raise EngineMissingError(
                f"cannot run {command.argv[0]}: {error.strerror}",
                hint=f"`garrison engine install {self._job.engine.name}` installs a working one.",
            ) from None
        self._reader = asyncio.create_task(self._read(self.process))
        if self._kill:  # requested while it was being started
            self.process.kill()
        if self.process.unrecorded is not None:
            self._view.note(unrecorded(self.process.unrecorded))
        return self.process

    def _record_as(self) -> RecordAs | None:
        job = self._job
        if job.records is None:
            return None
        return RecordAs(job.records, job.engine.name, job.endpoint.port if job.endpoint.needs_port else None)

    async def _read(self, process: EngineProcess) -> None:
        while data := await process.read():
            self._last_output = self._now()
            self._log.feed(data)

    async def _drain(self) -> None:
        """Read the last output, which often explains the exit, within a limit: a descendant may keep the pipe open."""
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=_DRAIN_SECONDS)

    def _on_line(self, text: str) -> None:
        self._view.line(text)
        self._fatal = self._fatal or is_fatal(self._job.engine.name, text)
        seen = phase_of(self._job.engine.name, text)
        self._says_ready = self._says_ready or (seen is not None and seen.phase == "ready")
        if self.state is not State.STARTING or seen is None or seen.phase in (self.phase, "ready"):
            return
        self.phase = seen.phase
        memory = self.process.memory_bytes() if self.process is not None else 0
        self._view.phase(seen.phase, seconds=self._seconds(), memory_bytes=memory)

    async def _raise_died(self, when: str) -> None:
        """Raise what the end of the engine means; nothing if a stop was asked for meanwhile.

        Whoever stops this process may stop its engine at the same moment, as systemd does.
        """
        process, job = self.process, self._job
        assert process is not None
        await self._drain()
        if self._asked_to_stop():
            return
        if (note := read_note(job.notes, job.endpoint.port, process.seen)) is not None:
            error = stopped_by_other(note, f"{job.engine.title} was stopped {when}", job.endpoint.port, self._log.path)
            self._log.note(error.message)
            raise error
        code = process.returncode
        said = f"{job.engine.title} {ended_text(code, when, lost=process.lost)}"
        raise self._failure(EngineDiedError, said, returncode=code)

    def _failure(self, kind: type[GarrisonError], message: str, *, returncode: int | None = None) -> GarrisonError:
        catalogue = self._job.engine.catalogue()
        return failure(
            kind, message, tail=self._log.tail, log_path=self._log.path, catalogue=catalogue, code=returncode
        )

    def _asked_to_stop(self) -> bool:
        return self._stop_reason is not None

    def _ended(self) -> bool:
        return self.process is not None and (self.process.returncode is not None or self.process.lost)

    async def _sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until a stop is requested."""
        with contextlib.suppress(TimeoutError):
            # Not `wait_for`, which in Python 3.11 loses a cancellation that comes together with the event.
            async with asyncio.timeout(seconds):
                await self._wake.wait()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _seconds(self) -> float:
        return self._now() - self._started_at
