"""Whether a start goes on, judged by the CPU time its processes use."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from garrison.base.identity import ProcessId
from garrison.processes.process import Process

__all__ = ["Progress", "observe"]


@dataclass(frozen=True, slots=True)
class Progress:
    """`since` is the monotonic time at which something last moved, `used` the CPU ticks of each process then."""

    since: float
    used: Mapping[ProcessId, int]

    def silent_for(self, now: float) -> float:
        return now - self.since


def observe(before: Progress, tree: Iterable[ProcessId], snapshot: Mapping[int, Process], now: float) -> Progress:
    """A process that is new, or used CPU since, is a sign of life; one that went away is not.

    Any tick counts: a slow network or disk costs little CPU, and a start that is stopped by mistake costs all of it.
    """
    used = {one: snapshot[one.pid].cpu for one in tree}
    moved = any(ticks > before.used.get(one, -1) for one, ticks in used.items())
    return Progress(now, used) if moved else replace(before, used=used)
