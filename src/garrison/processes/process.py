"""The seam to processes. A process is (pid, start time): a pid alone may belong to another process a moment later."""

import os
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


def group_of(pid: int) -> int | None:
    """The process group of `pid`; None when it has ended, or may not be asked for."""
    try:
        return os.getpgid(pid)
    except OSError:
        return None


class ProcessTable(Protocol):
    """What a walk through one tree needs. `local` returns the one of this machine.

    Attributes:
        adopts: a subreaper adopts orphans, so that a tree stays whole; else they belong to pid 1, and only their group
            tells whose they are.
    """

    adopts: bool

    def stat(self, pid: int, *, zombies: bool = False) -> Process | None:
        """The cheap fields of `pid`: id, parent and cpu. None when it has ended."""

    def below(self, pid: int) -> Mapping[int, Process]:
        """The descendants of `pid`, zombies too; possibly other processes as well."""

    def in_group(self, group: int) -> Mapping[int, Process]:
        """The living processes of a process group."""

    def resident_bytes(self, pid: int) -> int:
        """Resident memory of `pid`. Raises OSError when it has ended."""

    def signal(self, process: ProcessId, number: int) -> bool:
        """As `Processes.signal`."""


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
