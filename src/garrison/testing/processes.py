"""The twin of the machine's processes."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from garrison.base.identity import ProcessId
from garrison.processes.process import Process
from garrison.processes.tree import subtree

__all__ = ["MemoryProcesses"]


class MemoryProcesses:
    """`Processes` over a dictionary. A signal ends its process, unless the test says otherwise.

    Attributes:
        table: processes by pid.
        sockets: inode to the pids that hold the socket open.
        ignores: (pid, signal) pairs that have no effect.
        denied: pids that may not be signalled.
        sent: (process, signal) in the order of delivery.
        on_signal: called before each delivery, so that a test can let another process take over the pid.
        on_death: called with each process that ended.
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
        """End `pid`; its children become children of pid 1, as in the kernel."""
        gone = self.table.pop(pid)
        for child in [process for process in self.table.values() if process.parent == pid]:
            self.table[child.id.pid] = replace(child, parent=1)
        self.on_death(gone)
