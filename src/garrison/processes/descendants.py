"""The processes below one process: found, measured and signalled without reading the whole process table.

The kernel lists the children of each thread, so the cost of a walk depends on the tree alone, not on how many other
processes the machine runs. A measurement reads only the processes found by the last walk, which is repeated after a
second.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator

from garrison.base.identity import ProcessId
from garrison.processes.process import Process
from garrison.processes.procfs import Procfs
from garrison.processes.tree import post_order

__all__ = ["Descendants"]

_WALK_SECONDS = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Descendants:
    """The descendants of the process `root`, without `root` itself; none once `root` has ended, even if another process
    has its pid by then.

    A process whose parent has ended is adopted by the nearest subreaper above it, or by pid 1. So a tree is complete
    only below a subreaper.

    Attributes:
        seen: the processes of the last walk that found any.
    """

    def __init__(
        self, root: ProcessId | None, *, processes: Procfs | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.seen: tuple[ProcessId, ...] = ()
        self._root = root
        self._processes = processes or Procfs()
        self._now = now
        self._walked = -_WALK_SECONDS

    def alive(self) -> tuple[ProcessId, ...]:
        """Walk the tree: children before their parents, without zombies."""
        table: dict[int, Process] = {}
        if self._root is not None and self._has_root():
            table = self._processes.below(self._root.pid)
        # During the walk the pid may have become another process's, with other children.
        if not self._has_root():
            table = {}
        living = tuple(one for one in self._ordered(table) if one.pid in table and not table[one.pid].zombie)
        self._walked = self._now()
        self.seen = living or self.seen
        return living

    def cpu_seconds(self) -> float:
        """CPU time used so far by the living processes."""
        return sum(process.cpu for process in self._measured()) / _TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Resident memory of the tree. Shared pages count once for each process."""
        total = 0
        for process in self._measured():
            with contextlib.suppress(OSError, ValueError, IndexError):
                total += self._processes.resident_pages(process.id.pid) * _PAGE
        return total

    def signal_all(self, number: int) -> None:
        """Signal every living process, past those that may not be signalled (setuid programs)."""
        for process in self.alive():
            with contextlib.suppress(PermissionError):
                self._processes.signal(process, number)

    def _measured(self) -> Iterator[Process]:
        if self._now() - self._walked >= _WALK_SECONDS:
            self.alive()
        for known in self.seen:
            found = self._processes.stat(known.pid)
            if found is not None and found.id == known:
                yield found

    def _has_root(self) -> bool:
        found = None if self._root is None else self._processes.stat(self._root.pid, zombies=True)
        return found is not None and found.id == self._root

    def _ordered(self, table: dict[int, Process]) -> tuple[ProcessId, ...]:
        root = self._root.pid if self._root is not None else 0
        return post_order((process.id for process in table.values() if process.parent == root), table)
