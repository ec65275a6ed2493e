"""The seam to processes. A process is (pid, start time): a pid alone may be somebody else's a moment later."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from garrison.base.identity import ProcessId

__all__ = ["Process", "Processes"]


@dataclass(frozen=True, slots=True)
class Process:
    """What the system says about a process.

    Attributes:
        exe: path of the executable; None where it may not be read.
        argv: its arguments as they are now; a process may have rewritten them (setproctitle).
        cpu: CPU time used so far, in clock ticks.
        zombie: its first thread has ended. It is listed only where zombies are asked for.
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
        """The pids that hold each socket open; an inode nobody is seen to hold is left out."""

    def read(self, pid: int) -> Process | None:
        """All that is known of `pid`; None when it is gone. A zombie is gone."""

    def snapshot(self) -> Mapping[int, Process]:
        """Every live process by pid: id, parent and cpu alone, the cheap fields."""

    def signal(self, process: ProcessId, number: int) -> bool:
        """Signal exactly this process; False when it is gone. Raises PermissionError."""

    def own_pid(self) -> int:
        """The pid of this process."""

    def own_uid(self) -> int:
        """The user this process acts as."""
