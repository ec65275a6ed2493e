"""One engine from its start until none of its processes is left: reap, sample, pump its output, answer requests."""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from garrison.base.identity import Identity, ProcessId, start_time, this_place, this_process
from garrison.launch.shim import STATUS_NAME, VERSION
from garrison.launch.shim.control import Control
from garrison.launch.shim.fork import fork_engine
from garrison.launch.shim.stop import Stop
from garrison.preflight.engine_records import EngineRecord, forget_engine, record_engine
from garrison.processes.descendants import Descendants
from garrison.processes.local import local_processes

if TYPE_CHECKING:
    from garrison.launch.engine_log import EngineLog

__all__ = ["Shim"]

_TICK_SECONDS = 0.05
_SAMPLE_SECONDS = 5.0
_DRAIN_SECONDS = 1.0
_MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


class Shim:
    """The engine of `spec`, as a loop around one selector.

    Fields of `spec`: `argv`, `env` and `stop_timeout`. `record`, with `directory`, `engine` and `port`, for an engine
    that later preflights should recognise. For an engine that outlives its starter: `detached`, `directory` for the
    status file and the control socket, and `log` for its output. Without `detached`, the engine writes to the shim's
    standard output.
    """

    def __init__(self, spec: Mapping[str, Any], starter: socket.socket) -> None:
        self._spec = spec
        self._detached = bool(spec.get("detached"))
        self._directory = Path(spec["directory"]) if self._detached else None
        self._selector = selectors.DefaultSelector()
        self._control = Control(self._selector, starter, self._answer, self._on_starter_gone)
        self._tree = Descendants(_identity(os.getpid()))
        self._main: ProcessId | None = None
        self._main_pid = 0
        self._status: int | None = None
        self._child_ended = False
        self._peak_memory = 0
        self._cpu = 0.0
        self._sampled = 0.0
        self._stop: Stop | None = None
        self._log: EngineLog | None = None
        self._output: int | None = None
        self._record: Path | None = None

    def run(self) -> int:
        """Run to the end: 0 if no process is left, 1 if the engine did not start, 2 if a process survived SIGKILL."""
        wake = self._on_signals()
        try:
            if self._directory is not None:
                self._control.listen(self._directory)
            self._spawn()
        except OSError as error:
            message = error.strerror or str(error)
            self._control.tell({"event": "failed", "errno": error.errno, "message": message})
            self._control.close()
            return 1
        event: dict[str, Any] = {"event": "started", "pid": self._main_pid, "start": self._main and self._main.start}
        try:
            self._record = self._write_record()
        except OSError as error:
            event["unrecorded"] = error.strerror or str(error)
        self._write_status("running")
        self._control.tell(event)
        while self._reap():
            self._sample()
            for key, _ in self._selector.select(_TICK_SECONDS if self._stop else _SAMPLE_SECONDS):
                if key.fd == wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(wake, 4096)
                else:
                    key.data()
            self._control.drop_idle()
            if self._status is not None and not self._control.has_starter:
                # Without its main process an engine is useless, and without a starter nothing else stops the rest.
                self._begin_stop()
            if self._stop is not None and not self._stop.step():
                self._finish("survivors")
                return 2
        self._finish("ended")
        return 0

    # Seam to `Stop`

    def signal_main(self, number: int) -> bool:
        with contextlib.suppress(PermissionError):
            return self._main is not None and local_processes().signal(self._main, number)
        return False

    def signal_all(self, number: int) -> None:
        self._tree.signal_all(number)

    def main_ended(self) -> bool:
        return self._status is not None

    # The engine

    def _spawn(self) -> None:
        output = 1
        if self._detached:
            self._log = _open_log(Path(self._spec["log"]))
            self._output, output = os.pipe()
            os.set_blocking(self._output, False)
            self._selector.register(self._output, selectors.EVENT_READ, self._pump)
        self._main_pid = fork_engine(self._spec["argv"], self._spec["env"], output)
        self._main = self._tree.leader = _identity(self._main_pid)
        # From here on only the engine's processes hold its output, so that its end can be seen.
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        for descriptor in {null, output} - {0, 1, 2}:
            os.close(descriptor)

    def _write_record(self) -> Path | None:
        """Record the engine where `spec` asks for it. Raises OSError."""
        wanted = self._spec.get("record")
        if wanted is None or self._main is None:
            return None
        main = Identity(this_place(), self._main.pid, self._main.start)
        record = EngineRecord(wanted["engine"], wanted["port"], main, this_process())
        return record_engine(Path(wanted["directory"]), record)

    def _reap(self) -> bool:
        """Collect exited children. False when none is left.

        Every descendant becomes a child of this process in the end, so having no child proves that none is left; where
        the system has no subreapers, the engine's group must be empty too. A zombie whose other threads still run is a
        child that cannot be collected yet.
        """
        if self._child_ended and not local_processes().adopts:
            self._tree.alive()  # while a zombie proves that the group is the engine's
        self._child_ended = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return not local_processes().adopts and bool(self._tree.alive())
            if pid == 0:
                return True
            # For one process; the peak of the whole tree is sampled.
            self._peak_memory = max(self._peak_memory, usage.ru_maxrss * _MAXRSS_UNIT)
            if pid == self._main_pid and self._status is None:
                self._cpu = max(self._cpu, usage.ru_utime + usage.ru_stime)
                self._status = os.waitstatus_to_exitcode(status)
                self._write_status("ending")
                self._control.tell({"event": "ended", **self._ended()})

    def _sample(self) -> None:
        now = time.monotonic()
        if now - self._sampled >= _SAMPLE_SECONDS and self._status is None:
            self._sampled = now
            self._peak_memory = max(self._peak_memory, self._tree.memory_bytes())
            self._cpu = max(self._cpu, self._tree.cpu_seconds())

    def _pump(self) -> None:
        assert self._output is not None
        try:
            data = os.read(self._output, 65536)
        except BlockingIOError:
            return
        if data and self._log is not None:
            self._log.feed(data)
        elif not data:
            self._selector.unregister(self._output)
            os.close(self._output)
            self._output = None

    def _finish(self, state: str) -> None:
        deadline = time.monotonic() + _DRAIN_SECONDS
        while self._output is not None and time.monotonic() < deadline:
            self._pump()
        if self._log is not None:
            self._log.close()
        if self._record is not None and state == "ended":
            forget_engine(self._record)
        self._write_status(state)
        self._control.close()

    # Requests

    def _on_signals(self) -> int:
        """Let signals wake the selector. Handlers, not SIG_IGN: an ignored signal would stay ignored in the engine."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: self._on_child())
        signal.signal(signal.SIGTERM, lambda *_: self._begin_stop())
        self._selector.register(reading, selectors.EVENT_READ)
        return reading

    def _on_child(self) -> None:
        self._child_ended = True

    def _on_starter_gone(self) -> None:
        if not self._detached:
            self._begin_stop()

    def _answer(self, verb: str, timeout: float | None) -> dict[str, Any] | None:
        if verb == "status":
            return self._facts("running" if self._status is None else "ending")
        if verb == "stop":
            self._begin_stop(timeout)
        elif verb == "kill":
            self._begin_stop(0.0).kill()
        elif verb != "ping":
            return None
        return {}

    def _begin_stop(self, timeout: float | None = None) -> Stop:
        if self._stop is None:
            self._stop = Stop(self, float(self._spec["stop_timeout"]) if timeout is None else timeout)
        return self._stop

    # Status

    def _ended(self) -> dict[str, Any]:
        return {"status": self._status, "cpu_seconds": round(self._cpu, 3), "peak_memory_bytes": self._peak_memory}

    def _facts(self, state: str) -> dict[str, Any]:
        main = {"pid": self._main_pid, "start": self._main and self._main.start}
        shim = {"pid": os.getpid(), "start": start_time(os.getpid())}
        return {"state": state, "main": main, "shim": shim, "stopping": self._stop is not None, **self._ended()}

    def _write_status(self, state: str) -> None:
        if self._directory is None:
            return
        part = self._directory / f"{STATUS_NAME}.part"
        # A full disk must not end a running server; the control socket still answers.
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(part, flags, 0o600), "w", encoding="ascii") as file:
                json.dump({"v": VERSION, **self._facts(state), "at": round(time.time(), 3)}, file)
            part.replace(self._directory / STATUS_NAME)


def _identity(pid: int) -> ProcessId | None:
    start = start_time(pid)
    return None if start is None else ProcessId(pid, start)


def _open_log(path: Path) -> "EngineLog":
    """Open the log. Imports are here because an engine whose starter keeps the log does not need them."""
    from garrison.base.errors import GarrisonError
    from garrison.launch.engine_log import EngineLog

    try:
        log = EngineLog(path)
    except GarrisonError as error:
        raise OSError(error.message) from None
    log.begin()
    return log
