"""Counting stop requests.

One request can arrive as two signals: coreutils' `timeout` signals the command and then its process group.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["ONE_WISH_SECONDS", "Wishes"]

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
