"""Stopping an engine, in stages."""

import signal
import time
from collections.abc import Callable
from typing import Protocol

__all__ = ["Stop", "Tree"]

_LEAST_KILL_SECONDS = 1.0


class Tree(Protocol):
    def signal_main(self, number: int) -> bool:
        """Signal the engine's first process. False when it has exited."""

    def signal_all(self, number: int) -> None:
        """Signal every process of the engine."""

    def main_ended(self) -> bool:
        """Whether the first process has exited."""


class Stop:
    """SIGTERM to the main process, since engines stop their own workers; then SIGTERM to every process; then SIGKILL.
    `seconds` bounds the whole, but the kernel gets at least one second to tear down what was killed."""

    def __init__(self, tree: Tree, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._tree = tree
        self._now = now
        begun = now()
        asked = seconds > 0 and tree.signal_main(signal.SIGTERM)
        self._ask_all_at = begun + (seconds * 0.6 if asked else 0.0)
        self._ask_all_seconds = seconds * 0.2
        self._kill_at: float | None = None
        self._kill_seconds = max(_LEAST_KILL_SECONDS, seconds * 0.2)
        self._give_up_at: float | None = None

    def kill(self) -> None:
        """Skip to SIGKILL."""
        self._kill_at = self._now()
        self._tree.signal_all(signal.SIGKILL)

    def step(self) -> bool:
        """Take the next stage when it is due; call it often. False when processes survived SIGKILL for too long."""
        now = self._now()
        if self._kill_at is None:
            if now < self._ask_all_at and not self._tree.main_ended():
                return True
            self._tree.signal_all(signal.SIGTERM)
            self._kill_at = now + self._ask_all_seconds
        if now < self._kill_at:
            return True
        # At every step: a process may fork between the walk that found it and the signal.
        self._tree.signal_all(signal.SIGKILL)
        if self._give_up_at is None:
            self._give_up_at = now + self._kill_seconds
        return now < self._give_up_at
