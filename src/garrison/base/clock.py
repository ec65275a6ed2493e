"""The clock as an injected dependency: monotonic time for waiting, UTC for display and storage."""

import time
from datetime import UTC, datetime
from typing import Protocol

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Source of time and of blocking sleep."""

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes back."""

    def now(self) -> datetime:
        """Return the wall-clock time in UTC."""

    def sleep(self, seconds: float) -> None:
        """Block for `seconds`; a negative value counts as zero."""


class SystemClock:
    """The clock of the operating system."""

    def monotonic(self) -> float:
        return time.monotonic()

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(max(0.0, seconds))
