"""An event loop whose time is what its timers say: it never waits, so minutes of an agent pass in milliseconds, and the
same work is always done in the same order. Only for what uses neither sockets nor threads."""

import asyncio
import selectors
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["LoopClock", "VirtualLoop"]


MOST_TURNS = 20_000


class VirtualLoop(asyncio.SelectorEventLoop):
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
            raise RuntimeError("everybody waits, and nothing is due")
        self._turns = 0 if timeout > 0 else self._turns + 1
        if self._turns > MOST_TURNS:
            raise RuntimeError("somebody is always busy, and no time passes")
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
        raise AssertionError("nothing blocks the loop")
