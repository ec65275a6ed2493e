"""Whether a start makes progress, by the CPU time that its processes use. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from garrison.base.identity import ProcessId
from garrison.processes.process import Process

__all__ = ["Progress", "observe"]


@dataclass(frozen=True, slots=True)
class Progress:
    """`since` is the monotonic time of the last sign of life, `used` the CPU ticks of each process then."""

    since: float
    used: Mapping[ProcessId, int]

    def silent_for(self, now: float) -> float:
        return now - self.since


def observe(before: Progress, tree: Iterable[ProcessId], snapshot: Mapping[int, Process], now: float) -> Progress:
    """The progress after a look. A new process, or CPU used since the last look, is a sign of life; an exit is not.

    A single tick counts: a start that waits for a slow network or disk uses little CPU, and stopping it by mistake
    would lose all of its work.
    """
    used = {one: snapshot[one.pid].cpu for one in tree}
    moved = any(ticks > before.used.get(one, -1) for one, ticks in used.items())
    return Progress(now, used) if moved else replace(before, used=used)
