"""Whether an engine that ended by itself is started again, and when. Pure."""

from dataclasses import dataclass, replace

__all__ = ["Restarts"]

_MOST_SECONDS = 300.0
_STABLE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """The restarts of one instance so far.

    Attributes:
        used: restarts since the last stable run.
    """

    used: int = 0

    def after_run(self, seconds: float) -> "Restarts":
        """Refill the budget after a run of `seconds` that was stable: five minutes or more."""
        return replace(self, used=0) if seconds >= _STABLE_SECONDS else self

    def next_delay(self, most: int, delay: float) -> float | None:
        """Seconds until the next restart: `delay`, doubled for each one since the last stable run, at most five
        minutes. None if `most` restarts are used up."""
        return None if self.used >= most else min(_MOST_SECONDS, delay * 2.0**self.used)

    def one_more(self) -> "Restarts":
        return replace(self, used=self.used + 1)
