"""Garrison as the parent of an engine: startup, main_loop, shutdown.

The state is visible in `Supervisor.state`; what it decides about patience is in `patience.py`, and what it does to
processes in `process_tree.py`.
"""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from garrison.base.errors import EngineDiedError, EngineMissingError, EngineTimeoutError, GarrisonError
from garrison.engines.diagnose import diagnose
from garrison.engines.engine import Endpoint, Engine, EngineCommand
from garrison.engines.phases import is_fatal, phase_of
from garrison.launch.engine_log import EngineLog
from garrison.launch.listener_owner import stranger_on
from garrison.launch.patience import CpuWatch, Life, Patience, verdict
from garrison.launch.process_tree import ProcessTree, die_with_parent, reap_orphans_here
from garrison.launch.ready import Answer
from garrison.launch.view import LastingView, StartView
from garrison.preflight.stop_notes import StopNote, read_note

if TYPE_CHECKING:
    from garrison.launch.engine_probe import EngineProbe

__all__ = ["Job", "State", "Supervisor"]

_POLL_SECONDS = 0.1
_SHOWN_LOG_LINES = 25
_DRAIN_SECONDS = 1.0
_SETTLE_SECONDS = 1.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PASSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)


class State(Enum):
    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Job:
    """What to run and how long to wait for it.

    Attributes:
        endpoint: where and how the engine will listen, read from its arguments.
        environment: the engine's, complete.
        log_path: gets the engine's output, unless a running engine's log has that name.
        stop_timeout: seconds for the whole stop.
        notes: where whoever stops a server notes who it is.
    """

    engine: Engine
    command: EngineCommand
    endpoint: Endpoint
    environment: Mapping[str, str]
    log_path: Path
    patience: Patience
    stop_timeout: float
    notes: Path


class Supervisor:
    """The parent of one engine. Making it opens the engine's log; nothing is started yet.

    Raises:
        InvalidError, DiskFullError: the log cannot be written.
    """

    def __init__(self, job: Job, view: StartView) -> None:
        self.state = State.NEW
        self._job = job
        self._view = LastingView(view)
        self._log = EngineLog(job.log_path, self._on_line)
        self._tree = ProcessTree()
        self._child: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._stop_signal: signal.Signals | None = None
        self._wake = asyncio.Event()
        self._started = 0.0
        self._last_output = 0.0
        self._phase = ""
        self._fatal = False
        self._says_ready = False
        self._on_bound: Callable[[], None] = lambda: None

    def close(self) -> None:
        """Let go of the log: nothing is started after all, or all is over."""
        self._log.close()

    async def run(self, on_bound: Callable[[], None] = lambda: None) -> int:
        """Start the engine, stay until it ends or a signal asks for the end, leave nothing behind.

        Args:
            on_bound: called once, when the engine listens: the port's lock can go.

        Returns:
            0 after a stop that was asked for; 128 and the signal's number when it came before the engine was ready.

        Raises:
            EngineMissingError: it cannot be executed.
            EngineDiedError: it ended by itself. Details: `returncode`, `log_path`, `log_tail`, `diagnosis`.
            EngineTimeoutError: it was not ready in time, or showed no life for too long.
        """
        self._on_bound = on_bound
        with self._signals():
            try:
                await self._startup()
                was_ready = self.state is State.READY
                if was_ready:
                    await self._main_loop()
            finally:
                await self._shutdown()
                self._view.end()
        if self._stop_signal is not None and not was_ready:
            return 128 + self._stop_signal
        return 0

    async def _startup(self) -> None:
        from garrison.launch.engine_probe import EngineProbe

        self.state = State.STARTING
        reap_orphans_here()
        self._log.begin()
        if self._log.path != self._job.log_path:
            self._view.note(f"a running engine writes to {self._job.log_path}; this one writes to {self._log.path}")
        self._started = self._last_output = self._now()
        await self._spawn()
        if not self._job.endpoint.can_be_asked:
            await self._until_settled()
            return
        async with EngineProbe(self._job.endpoint, self._job.engine.readiness) as probe:
            await self._until_ready(probe)

    async def _until_settled(self) -> None:
        """There is no server to ask: that the engine is alive is all that can be known."""
        while self._stop_signal is None and self._seconds() < _SETTLE_SECONDS:
            await self._sleep(_POLL_SECONDS)
            if self._ended():
                raise await self._died("at its start")
        if self._stop_signal is None:
            self.state = State.READY
            why = "headless: it has no API server, so whether it is ready cannot be asked"
            if self._job.endpoint.protocol != "none":
                why = "it was left to the system which port it takes, so whether it is ready cannot be asked"
            self._view.running(why, seconds=self._seconds(), memory_bytes=self._tree.memory_bytes())

    async def _until_ready(self, probe: "EngineProbe") -> None:
        bound = False
        watch = CpuWatch(self._started)
        while self._stop_signal is None:
            if self._ended() or self._fatal:
                raise await self._died("before it was ready")
            answer = await probe.ask()
            if answer.dead:
                raise self._failure(EngineDiedError, f"{self._job.engine.title} cannot serve: {answer.reason}")
            if answer.heard and not bound:
                bound = True
                self._on_bound()
            if not self._ended() and (answer.ready or self._must_be_ready(answer)):
                await self._now_ready(answer, probe)
                return
            now = self._now()
            watch.saw(now, self._tree.cpu_seconds())
            life = Life(now - self._started, now - self._last_output, now - watch.last_work)
            if reason := verdict(self._job.patience, life):
                if answer.unsure and not self._ended():
                    await self._now_ready(answer, probe)
                    return
                raise self._failure(EngineTimeoutError, f"{self._job.engine.title} {reason}: {answer.reason}")
            await self._sleep(_POLL_SECONDS)

    def _must_be_ready(self, answer: Answer) -> bool:
        """An answer that tells nothing by itself tells enough of an engine that listens only when it is ready, or that
        has said that it is."""
        return answer.unsure and (self._job.engine.readiness.listens_when_ready or self._says_ready)

    async def _now_ready(self, answer: Answer, probe: "EngineProbe") -> None:
        ours = {process.pid for process in self._tree.alive()}
        stranger = await asyncio.to_thread(stranger_on, probe.endpoint, ours)
        if self._ended():
            raise await self._died("before it was ready")
        self.state = State.READY
        memory = self._tree.memory_bytes()
        if answer.ready and stranger is None:
            self._view.ready(seconds=self._seconds(), memory_bytes=memory)
        else:
            why = f"it listens, and whether it is ready cannot be told: {answer.reason}"
            if stranger is not None:  # a container's process is one, too
                why = f"what answers on its port is pid {stranger}, which it did not start"
            self._view.running(why, seconds=self._seconds(), memory_bytes=memory)
        self._view.reached(probe.endpoint)

    async def _main_loop(self) -> None:
        while self._stop_signal is None:
            if self._ended():
                raise await self._died("while it was serving")
            self._tree.reap()
            await self._sleep(0.5)

    async def _shutdown(self) -> None:
        if self._child is not None:
            begun = self._now()
            if self._tree.alive():
                ended = "its main process has ended" if self.state is State.READY else "it did not start"
                self.state = State.STOPPING
                self._view.stopping(self._stop_signal.name if self._stop_signal else ended)
            # A second signal must not be swallowed while this waits: `_on_stop` kills at once.
            clean = await self._tree.stop(timeout=self._job.stop_timeout)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._child.wait(), 2.0)
            if not clean:
                pids = ", ".join(str(process.pid) for process in self._tree.alive())
                self._view.note(f"still alive after SIGKILL: {pids}")
            elif self.state is State.STOPPING:
                self._view.stopped(seconds=self._now() - begun)
        await self._drain()
        self._log.close()
        self.state = State.STOPPED

    async def _spawn(self) -> None:
        command = self._job.command
        try:
            self._child = await asyncio.create_subprocess_exec(
                *command.argv,
                env=dict(self._job.environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                # A group and a session of its own: Ctrl-C reaches Garrison alone, which ends the engine in order.
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
        except OSError as error:
            raise EngineMissingError(
                f"cannot run {command.argv[0]}: {error.strerror}",
                hint=f"`garrison engine install {self._job.engine.name}` makes a working one.",
            ) from None
        self._tree.started(self._child.pid)
        self._reader = asyncio.create_task(self._read(self._child))

    async def _read(self, child: asyncio.subprocess.Process) -> None:
        assert child.stdout is not None
        while data := await child.stdout.read(65536):
            self._last_output = self._now()
            self._log.feed(data)

    async def _drain(self) -> None:
        """The last words are often the telling ones. A descendant may hold the pipe open, so there is a limit."""
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=_DRAIN_SECONDS)

    def _on_line(self, text: str) -> None:
        self._view.line(text)
        self._fatal = self._fatal or is_fatal(self._job.engine.name, text)
        seen = phase_of(self._job.engine.name, text)
        self._says_ready = self._says_ready or (seen is not None and seen.phase == "ready")
        if self.state is not State.STARTING or seen is None or seen.phase in (self._phase, "ready"):
            return
        self._phase = seen.phase
        self._view.phase(seen.phase, seconds=self._seconds(), memory_bytes=self._tree.memory_bytes())

    async def _died(self, when: str) -> GarrisonError:
        assert self._child is not None
        await self._drain()
        if (note := self._stopped_by()) is not None:
            return self._replaced(note, when)
        code = self._child.returncode
        if code is None:
            return self._failure(EngineDiedError, f"{self._job.engine.title} did not end after a fatal error")
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        return self._failure(EngineDiedError, f"{self._job.engine.title} {how} {when}", returncode=code)

    def _stopped_by(self) -> StopNote | None:
        """What ended the engine, if it was a Garrison that left a note. `alive` keeps the processes it saw last."""
        return read_note(self._job.notes, self._job.endpoint.port, self._tree.seen)

    def _replaced(self, note: StopNote, when: str) -> GarrisonError:
        said = f"{self._job.engine.title} was stopped {when} by {note}"
        self._log.note(said)
        return EngineDiedError(
            said,
            hint=f"It took port {self._job.endpoint.port}. Nothing is wrong with this engine or its settings.",
            details={
                "log_path": str(self._log.path),
                "stopped_by": {"pid": note.pid, "user": note.user, "command": note.command},
            },
        )

    def _failure(self, kind: type[GarrisonError], message: str, *, returncode: int | None = None) -> GarrisonError:
        tail = list(self._log.tail)
        found = diagnose(tail, returncode, catalogue=self._job.engine.catalogue())
        details: dict[str, object] = {
            "returncode": returncode,
            "log_path": str(self._log.path),
            "log_tail": tail[-_SHOWN_LOG_LINES:],
        }
        if found is None:
            return kind(message, hint=f"The whole log is in {self._log.path}.", details=details)
        details["diagnosis"] = {"cause": found.cause, "message": found.message, "remedy": found.remedy}
        return kind(f"{message}: {found.message}", hint=found.remedy, details=details)

    def _ended(self) -> bool:
        return self._child is not None and self._child.returncode is not None

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # Who starts us under nohup wants the engine to outlive the terminal.
        nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        stop_signals = [number for number in _STOP_SIGNALS if number not in nohup]
        for number in stop_signals:
            loop.add_signal_handler(number, self._on_stop, number)
        for number in _PASSED_SIGNALS:
            loop.add_signal_handler(number, self._tree.signal_main, number)
        try:
            yield
        finally:
            for number in (*stop_signals, *_PASSED_SIGNALS):
                loop.remove_signal_handler(number)

    def _on_stop(self, number: signal.Signals) -> None:
        if self._stop_signal is not None:
            self._view.note("asked again: killing the engine now")
            self._tree.kill()
        else:
            self._stop_signal = number
        self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        """Until `seconds` are over or a stop was asked for."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _seconds(self) -> float:
        return self._now() - self._started
