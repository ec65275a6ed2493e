"""How often somebody asked a command to end. One wish may arrive twice: coreutils' `timeout` sends its signal to the
command and to its process group."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["ONE_WISH_SECONDS", "Wishes"]

ONE_WISH_SECONDS = 1.0


@dataclass(slots=True)
class Wishes:
    """Counts signals; those within `ONE_WISH_SECONDS` of the one that was counted last are the same wish."""

    monotonic: Callable[[], float] = time.monotonic
    number: int = 0
    _at: float = field(default=0.0, init=False)

    def heard(self) -> bool:
        """A signal came: whether it is a new wish."""
        now = self.monotonic()
        if self.number and now - self._at < ONE_WISH_SECONDS:
            return False
        self.number, self._at = self.number + 1, now
        return True
