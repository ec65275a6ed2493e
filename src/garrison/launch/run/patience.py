"""How long a start may take, as a function of what was seen of it.

A big model on a slow disk takes an hour and is fine; a hung one is not, after a minute. So by default patience is by
progress, and only who asked for a deadline gets one.
"""

from dataclasses import dataclass

__all__ = ["CpuWatch", "Life", "Patience", "verdict"]

_SAMPLE_SECONDS = 10.0
_WORKING_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Patience:
    """Both in seconds. `deadline` is None unless one was asked for."""

    progress_window: float
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """Seconds since the start, since the last output, and since the processes last used the CPU."""

    elapsed: float
    silent: float
    idle: float


def verdict(patience: Patience, life: Life) -> str | None:
    """None to go on waiting; else what is wrong, completing "vLLM …"."""
    if patience.deadline is not None and life.elapsed >= patience.deadline:
        return f"was not ready within {patience.deadline:g} s"
    if min(life.silent, life.idle) >= patience.progress_window:
        return f"wrote nothing and used no CPU for {patience.progress_window:g} s"
    return None


class CpuWatch:
    """When did the engine last work? Idle processes wake up now and then, so work is a twentieth of a core or more over
    a sample of ten seconds."""

    def __init__(self, now: float) -> None:
        self.last_work = now
        self._sample_start = now
        self._sample_seconds = 0.0

    def saw(self, now: float, cpu_seconds: float) -> None:
        """The tree has used `cpu_seconds` so far; less than before when a process of it has ended."""
        if now - self._sample_start < _SAMPLE_SECONDS:
            return
        if abs(cpu_seconds - self._sample_seconds) >= _WORKING_SHARE * (now - self._sample_start):
            self.last_work = now
        self._sample_start, self._sample_seconds = now, cpu_seconds
