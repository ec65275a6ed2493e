"""One line about targets that do not answer at once, where nothing else shows that a command waits."""

import sys
import threading
from collections.abc import Callable, Collection
from typing import Protocol

from garrison.cli.views.page import counted, sentence

__all__ = ["SlowLook"]

_SECONDS = 1.0


class _Timer(Protocol):
    daemon: bool

    def start(self) -> None: ...

    def cancel(self) -> None: ...


class SlowLook:
    """Says on standard error, a second after the targets were asked, which of them have not answered.

    Args:
        timer: called with seconds and what to do then, which happens in a thread of its own.
    """

    def __init__(self, timer: Callable[[float, Callable[[], None]], _Timer] = threading.Timer) -> None:
        self._make = timer
        self._timer: _Timer | None = None
        self._lock = threading.Lock()
        self._awaited: set[str] = set()
        self._asked = 0

    def begin(self, targets: Collection[str]) -> None:
        """Called when these are asked."""
        self.end()
        with self._lock:
            self._awaited, self._asked = set(targets), len(targets)
        if self._awaited:
            self._timer = self._make(_SECONDS, self._tell)
            self._timer.daemon = True
            self._timer.start()

    def seen(self, target: str) -> None:
        """Called when a target was looked at, whatever came of it."""
        with self._lock:
            self._awaited.discard(target)
            left = bool(self._awaited)
        if not left:
            self.end()

    def end(self) -> None:
        """Say nothing more. May be called more than once."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tell(self) -> None:
        with self._lock:
            left = sorted(self._awaited)
        if left:
            print(
                f"waiting for {len(left):,} of {counted(self._asked, 'target')}: {sentence(left)}",
                file=sys.stderr, flush=True,
            )  # fmt: skip
