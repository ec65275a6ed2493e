"""A request to stop work that runs in threads, and how the work notices it.

Work checks the token before each chunk that it writes, waits on a clock that the token can end, and moves calls that
may hang to threads of their own (`models.sources.side_by_side`). A token serves one piece of work and never resets.
"""

import math
import threading
from collections.abc import Callable
from datetime import datetime

from garrison.base.clock import Clock, SystemClock

__all__ = ["StopToken", "StoppableClock", "StoppedError", "join_all"]

_DEFAULT_SECONDS = 10.0
_SLICE_SECONDS = 0.1


class StoppedError(Exception):
    """The work ended because its token asked for it.

    Not a GarrisonError: nothing failed, and the caller who stopped the work knows why.

    Attributes:
        left: names of the threads that did not end before the deadline. Each ends by itself when its call returns, and
            writes nothing more.
    """

    def __init__(self, left: tuple[str, ...] = ()) -> None:
        super().__init__("stopped" + (f"; still waiting: {', '.join(left)}" if left else ""))
        self.left = left


class StopToken:
    """Asks work to stop, from any thread and any number of times.

    Args:
        parent: a token that stops this one too.
    """

    def __init__(self, clock: Clock | None = None, *, parent: "StopToken | None" = None) -> None:
        self._clock = clock or SystemClock()
        self._parent = parent
        self._lock = threading.Lock()
        self._deadline: float | None = None
        self._callbacks: dict[object, Callable[[], None]] = {}

    @property
    def stopped(self) -> bool:
        return self._deadline is not None or (self._parent is not None and self._parent.stopped)

    @property
    def seconds_left(self) -> float:
        """Until the deadline of the stop, at least 0; infinite before `stop`."""
        deadline = self._deadline
        own = math.inf if deadline is None else max(0.0, deadline - self._clock.monotonic())
        return own if self._parent is None else min(own, self._parent.seconds_left)

    def stop(self, within: float = _DEFAULT_SECONDS) -> None:
        """Ask for the stop. Returns at once.

        Args:
            within: seconds after which calls that still hang are left behind. A later call can shorten this time, and
                cannot extend it.
        """
        deadline = self._clock.monotonic() + within
        with self._lock:
            self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)
            callbacks, self._callbacks = list(self._callbacks.values()), {}
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise StoppedError if `stop` was called."""
        if self.stopped:
            raise StoppedError

    def on_stop(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` when `stop` is called, in that thread; at once if it was called before.

        The callback must neither block nor raise. It is called again when the parent stops after this token did.

        Returns:
            A function that withdraws the callback.
        """
        key = object()
        with self._lock:
            late = self._deadline is not None
            if not late:
                self._callbacks[key] = callback
        if late:
            callback()
        withdraw_from_parent = None if self._parent is None else self._parent.on_stop(callback)

        def withdraw() -> None:
            with self._lock:
                self._callbacks.pop(key, None)
            if withdraw_from_parent is not None:
                withdraw_from_parent()

        return withdraw


class StoppableClock:
    """A clock whose sleep ends with StoppedError soon after the token is stopped."""

    def __init__(self, clock: Clock, stop: StopToken) -> None:
        self._clock = clock
        self._stop = stop

    def monotonic(self) -> float:
        return self._clock.monotonic()

    def now(self) -> datetime:
        return self._clock.now()

    def sleep(self, seconds: float) -> None:
        # In slices of the injected clock, not in one wait on an event: a fake clock must see the time pass.
        left = seconds
        self._stop.check()
        while left > 0:
            self._clock.sleep(min(left, _SLICE_SECONDS))
            self._stop.check()
            left -= _SLICE_SECONDS


def join_all(threads: list[threading.Thread], stop: StopToken) -> tuple[str, ...]:
    """Wait for the threads; once the token is stopped, not beyond its deadline.

    Returns:
        Names of those that still run.
    """
    for thread in threads:
        while thread.is_alive() and stop.seconds_left:
            # In slices: a stop, and a stop that shortens the deadline, must be noticed.
            thread.join(min(stop.seconds_left, _SLICE_SECONDS))
    return tuple(thread.name for thread in threads if thread.is_alive())
