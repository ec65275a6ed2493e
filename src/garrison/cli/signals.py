"""Signals that ask a command to stop.

One request can arrive as two signals: coreutils' `timeout` signals the command and then its process group.
"""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType

__all__ = ["ONE_WISH_SECONDS", "StopSignal", "Wishes", "code_of", "stopped_as_by_ctrl_c"]

ONE_WISH_SECONDS = 1.0


@dataclass(slots=True)
class Wishes:
    """Counts stop requests. A signal within `ONE_WISH_SECONDS` of the last one counted is the same request."""

    monotonic: Callable[[], float] = time.monotonic
    number: int = 0
    _at: float = field(default=0.0, init=False)

    def heard(self) -> bool:
        """Count a signal; return whether it is a new request."""
        now = self.monotonic()
        if self.number and now - self._at < ONE_WISH_SECONDS:
            return False
        self.number, self._at = self.number + 1, now
        return True


class StopSignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as Ctrl-C does: what it has begun is put in order first."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def code_of(stopped: KeyboardInterrupt) -> int:
    """The exit code of a command that is ended by a signal: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (stopped.number if isinstance(stopped, StopSignal) else signal.SIGINT)


@contextlib.contextmanager
def stopped_as_by_ctrl_c() -> Iterator[None]:
    """Raise `StopSignal` for SIGTERM and SIGHUP, where nothing handles or ignores them.

    A command that handles them itself takes its place, and a program that the command becomes does not inherit it.
    Process 1 of a container would not even end by such a signal: the kernel drops those that have no handler there.
    """
    wishes = Wishes()

    def stop(number: int, frame: FrameType | None) -> None:
        if wishes.heard():
            raise StopSignal(number)

    numbers = (signal.SIGTERM, signal.SIGHUP) if threading.current_thread() is threading.main_thread() else ()
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in ours:
            if signal.getsignal(number) is stop:
                signal.signal(number, signal.SIG_DFL)
