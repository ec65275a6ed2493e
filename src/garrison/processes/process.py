"""The seam to processes. A process is (pid, start time): a pid alone may belong to another process a moment later."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from garrison.base.identity import ProcessId
from garrison.processes.tree import subtree

__all__ = ["MemoryProcesses", "Process", "Processes"]


@dataclass(frozen=True, slots=True)
class Process:
    """What the system reports about a process.

    Attributes:
        exe: path of the executable; None where it may not be read.
        argv: its arguments; a process may have rewritten them (setproctitle).
        cpu: CPU time used so far, in clock ticks.
        zombie: its first thread has ended. Listed only where zombies are asked for.
    """

    id: ProcessId
    parent: int
    uid: int
    exe: str | None = None
    argv: tuple[str, ...] = ()
    cpu: int = 0
    zombie: bool = False


class Processes(Protocol):
    def owners(self, inodes: Collection[int]) -> Mapping[int, frozenset[int]]:
        """The pids that hold each socket open; inodes without a visible owner are omitted."""

    def read(self, pid: int) -> Process | None:
        """Everything about `pid`; None when it has ended. A zombie has ended."""

    def snapshot(self) -> Mapping[int, Process]:
        """Every live process by pid, with only the cheap fields: id, parent and cpu."""

    def subtree(self, root: ProcessId) -> Mapping[int, Process]:
        """`root` and its descendants, with the fields of `snapshot`; empty when `root` is gone. Costs what the tree
        costs where the system lists children, not what the whole table costs."""

    def signal(self, process: ProcessId, number: int) -> bool:
        """Signal exactly this process; False when it has ended. Raises PermissionError."""

    def own_pid(self) -> int:
        """The pid of this process."""

    def own_uid(self) -> int:
        """The effective user of this process."""


class MemoryProcesses:
    """The in-memory twin.

    `ignores` holds (pid, signal) pairs without effect. `on_signal` runs before each signal is delivered, so that a test
    can give a pid to another process in between.
    """

    def __init__(self, processes: Iterable[Process] = (), *, own_pid: int = 1_000_000, own_uid: int = 1000) -> None:
        self.table = {process.id.pid: process for process in processes}
        self.sockets: dict[int, set[int]] = {}
        self.ignores: set[tuple[int, int]] = set()
        self.denied: set[int] = set()
        self.sent: list[tuple[ProcessId, int]] = []
        self.on_signal: Callable[[ProcessId, int], None] = lambda _process, _number: None
        self.on_death: Callable[[Process], None] = lambda _process: None
        self._own_pid = own_pid
        self._own_uid = own_uid

    def owners(self, inodes: Collection[int]) -> Mapping[int, frozenset[int]]:
        held = {inode: frozenset(self.sockets.get(inode, set()) & self.table.keys()) for inode in inodes}
        return {inode: pids for inode, pids in held.items() if pids}

    def read(self, pid: int) -> Process | None:
        return self.table.get(pid)

    def snapshot(self) -> Mapping[int, Process]:
        return {pid: replace(process, uid=-1, exe=None, argv=()) for pid, process in self.table.items()}

    def subtree(self, root: ProcessId) -> Mapping[int, Process]:
        return subtree(root, self.snapshot())

    def signal(self, process: ProcessId, number: int) -> bool:
        self.on_signal(process, number)
        found = self.table.get(process.pid)
        if found is None or found.id != process:
            return False
        if process.pid in self.denied:
            raise PermissionError(1, "Operation not permitted")
        self.sent.append((process, number))
        if (process.pid, number) not in self.ignores:
            self.end(process.pid)
        return True

    def own_pid(self) -> int:
        return self._own_pid

    def own_uid(self) -> int:
        return self._own_uid

    def end(self, pid: int) -> None:
        """Let `pid` exit; its children go to pid 1, as with the kernel."""
        gone = self.table.pop(pid)
        for child in [process for process in self.table.values() if process.parent == pid]:
            self.table[child.id.pid] = replace(child, parent=1)
        self.on_death(gone)
