"""An engine run on the command line: with the signals of this process, and a view whose terminal may close."""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from garrison.launch.run.engine_run import EngineRun, Job
from garrison.launch.run.view import LastingView, StartView

__all__ = ["Supervisor"]

_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PASSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT)


class Supervisor:
    """One engine run, stopped by signals to this process. Only one at a time, since signals belong to the process.

    Raises:
        InvalidError, DiskFullError: the log cannot be written.
    """

    def __init__(self, job: Job, view: StartView) -> None:
        self._view = LastingView(view)
        self._run = EngineRun(job, self._view)
        self._stop_signal: signal.Signals | None = None

    def close(self) -> None:
        """Close the log: nothing will be started, or everything has ended."""
        self._run.close()

    async def run(self, on_bound: Callable[[], None] = lambda: None) -> int:
        """Start the engine and wait until it exits or a signal requests a stop.

        Returns:
            0 after a requested stop; 128 plus the signal's number if the signal came before the engine was ready.

        Raises:
            GarrisonError: as `EngineRun.run`.
        """
        with self._signals():
            try:
                was_ready = await self._run.run(on_bound)
            finally:
                self._view.end()
        if self._stop_signal is not None and not was_ready:
            return 128 + self._stop_signal
        return 0

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        # Started under nohup, the engine is meant to outlive the terminal.
        nohup = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else set()
        stop_signals = [number for number in _STOP_SIGNALS if number not in nohup]
        for number in stop_signals:
            loop.add_signal_handler(number, self._on_stop, number)
        for number in _PASSED_SIGNALS:
            loop.add_signal_handler(number, self._run.signal, number)
        try:
            yield
        finally:
            for number in (*stop_signals, *_PASSED_SIGNALS):
                loop.remove_signal_handler(number)

    def _on_stop(self, number: signal.Signals) -> None:
        if self._stop_signal is None:
            self._stop_signal = number
            self._run.request_stop(number.name)
        else:
            self._view.note("signalled again: killing the engine now")
            self._run.kill()
