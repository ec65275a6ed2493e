"""How long a start may take, by the progress it makes. Pure.

A large model on a slow disk may need an hour; a hung start should not get one. So by default a start is given up for
lack of progress, and there is a deadline only where one was requested.
"""

from dataclasses import dataclass

__all__ = ["CpuWatch", "Life", "Patience", "verdict"]

_SAMPLE_SECONDS = 10.0
_WORKING_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Patience:
    """Limits in seconds. `deadline` is None unless one was requested."""

    progress_window: float
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Life:
    """Seconds since the start, since the last output, and since the processes last used the CPU."""

    elapsed: float
    silent: float
    idle: float


def verdict(patience: Patience, life: Life) -> str | None:
    """None to keep waiting; otherwise what is wrong, completing "vLLM …"."""
    if patience.deadline is not None and life.elapsed >= patience.deadline:
        return f"was not ready within {patience.deadline:g} s"
    if min(life.silent, life.idle) >= patience.progress_window:
        return f"wrote nothing and used no CPU for {patience.progress_window:g} s"
    return None


class CpuWatch:
    """Tracks when the engine last worked. Idle processes wake up now and then, so only a twentieth of a core or more,
    over a sample of ten seconds, counts as work."""

    def __init__(self, now: float) -> None:
        self.last_work = now
        self._sample_start = now
        self._sample_seconds = 0.0

    def saw(self, now: float, cpu_seconds: float) -> None:
        """Record the CPU time of the tree so far, which may be less than before when a process has exited."""
        if now - self._sample_start < _SAMPLE_SECONDS:
            return
        if abs(cpu_seconds - self._sample_seconds) >= _WORKING_SHARE * (now - self._sample_start):
            self.last_work = now
        self._sample_start, self._sample_seconds = now, cpu_seconds
