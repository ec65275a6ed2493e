"""The twin of the event loop's time: timers fire at once and in order, and the clock advances to each of them.

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(asyncio.sleep(3600))                          # returns at once

Minutes of an agent pass in milliseconds, and the same work is always done in the same order. It serves code that uses
neither sockets nor threads: nothing is ever read from a descriptor.
"""

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["MOST_TURNS", "LoopClock", "VirtualLoop"]

MOST_TURNS = 20_000
"""Turns of the loop without a pause that count as endless work."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that never waits.

    Attributes:
        elapsed: seconds since it was made.

    Raises:
        RuntimeError: every task waits and no timer is set, or `MOST_TURNS` turns passed without a pause.
    """

    def __init__(self) -> None:
        self.elapsed = 0.0
        super().__init__(_Leaping(self))

    def time(self) -> float:
        return self.elapsed


class _Leaping(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop
        self._turns = 0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("every task waits and no timer is set")
        self._turns = 0 if timeout > 0 else self._turns + 1
        if self._turns > MOST_TURNS:
            raise RuntimeError(f"{MOST_TURNS} turns of the loop without a pause")
        self._loop.elapsed += max(0.0, timeout)
        return []


class LoopClock:
    """`Clock` by the loop's time."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._start = datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return self._loop.elapsed

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._loop.elapsed)

    def sleep(self, seconds: float) -> None:
        raise AssertionError("a blocking sleep on the event loop")
