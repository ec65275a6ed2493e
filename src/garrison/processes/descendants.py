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
from garrison.processes.local import local_processes
from garrison.processes.process import Process, ProcessTable
from garrison.processes.tree import post_order

__all__ = ["Descendants"]

_WALK_SECONDS = 1.0
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Descendants:
    """The descendants of the process `root`, without `root` itself; none once `root` has ended, even if another process
    has its pid by then.

    A process whose parent has ended is adopted by the nearest subreaper above it, or by pid 1. So a tree is complete
    only below a subreaper. Where the system has none, the group of `leader` counts too.

    Attributes:
        leader: the first process of a group that belongs to the tree; None for none.
        seen: the processes of the last walk that found any.
    """

    def __init__(
        self,
        root: ProcessId | None,
        *,
        processes: ProcessTable | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seen: tuple[ProcessId, ...] = ()
        self._root = root
        self.leader: ProcessId | None = None
        self._processes = processes or local_processes()
        self._now = now
        self._walked = -_WALK_SECONDS

    def alive(self) -> tuple[ProcessId, ...]:
        """Walk the tree: children before their parents, without zombies."""
        table: dict[int, Process] = {}
        if self._root is not None and self._has_root():
            table = dict(self._processes.below(self._root.pid))
        # During the walk the pid may have become another process's, with other children.
        if not self._has_root():
            table = {}
        living = tuple(one for one in self._ordered(table) if one.pid in table and not table[one.pid].zombie)
        living += tuple(one for one in self._of_group() if one.pid not in table)
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
                total += self._processes.resident_bytes(process.id.pid)
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

    def _of_group(self) -> tuple[ProcessId, ...]:
        """The group of `leader`, if that is still the same one.

        While any process is in a group, its number is not given away, so the leader, also as a zombie, or a member that
        was seen before proves it.
        """
        if self._processes.adopts or self.leader is None:
            return ()
        found = {process.id for process in self._processes.in_group(self.leader.pid).values()}
        leads = self._processes.stat(self.leader.pid, zombies=True)
        proved = bool(found & set(self.seen)) or (leads is not None and leads.id == self.leader)
        return tuple(sorted(found)) if proved else ()

    def _has_root(self) -> bool:
        found = None if self._root is None else self._processes.stat(self._root.pid, zombies=True)
        return found is not None and found.id == self._root

    def _ordered(self, table: dict[int, Process]) -> tuple[ProcessId, ...]:
        root = self._root.pid if self._root is not None else 0
        return post_order((process.id for process in table.values() if process.parent == root), table)
