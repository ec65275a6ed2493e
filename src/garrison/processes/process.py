"""The seam to processes. A process is (pid, start time): a pid alone may belong to another process a moment later."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from garrison.base.identity import ProcessId

__all__ = ["Process", "Processes"]


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
