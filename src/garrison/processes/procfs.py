"""Processes of a Linux machine: read from `/proc`, signalled through a pidfd where the kernel has it (5.3 or later)."""

# ruff: noqa: PTH115, PTH208 - a scan touches thousands of links; a Path object each would double its time

import os
import signal
from collections.abc import Collection, Mapping

from garrison.base.identity import ProcessId
from garrison.processes.process import Process, group_of
from garrison.processes.tree import subtree

__all__ = ["Procfs", "parse_stat"]

_ZOMBIE = (b"Z", b"X", b"x")
_MOST_PROCESSES = 100_000
_PAGE = os.sysconf("SC_PAGE_SIZE")


def parse_stat(content: bytes) -> tuple[bytes, int, int, int]:
    """Parse `/proc/<pid>/stat`: (state, parent pid, CPU ticks, start time). The command name may hold anything."""
    fields = content[content.rindex(b")") + 2 :].split()
    return fields[0], int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[19])


class Procfs:
    """`Processes` and `ProcessTable` of the running Linux machine."""

    adopts = True

    def __init__(self, root: str = "/proc", *, use_pidfd: bool = hasattr(os, "pidfd_open")) -> None:
        self._root = root
        self._use_pidfd = use_pidfd

    def owners(self, inodes: Collection[int]) -> Mapping[int, frozenset[int]]:
        targets = {f"socket:[{inode}]": inode for inode in inodes if inode}
        found: dict[int, set[int]] = {}
        for pid in self._pids():
            for target in self._open_files(pid):
                if (inode := targets.get(target)) is not None:
                    found.setdefault(inode, set()).add(pid)
        return {inode: frozenset(pids) for inode, pids in found.items()}

    def read(self, pid: int) -> Process | None:
        process = self.stat(pid)
        if process is None:
            return None
        try:
            uid = self._real_uid(pid)
            argv = self._argv(pid)
        except OSError:
            return None
        whole = Process(process.id, process.parent, uid, self._exe(pid), argv, process.cpu)
        # The pid may have been reused between the reads; then they do not belong together.
        again = self.stat(pid)
        return whole if again is not None and again.id == process.id else None

    def snapshot(self, *, zombies: bool = False) -> Mapping[int, Process]:
        """As the protocol says; `zombies` adds those. A process whose first thread has ended is one while its other
        threads live, and its children are still its own."""
        return {pid: process for pid in self._pids() if (process := self.stat(pid, zombies=zombies)) is not None}

    def subtree(self, root: ProcessId) -> Mapping[int, Process]:
        own = self.stat(root.pid, zombies=True)
        if own is None or own.id != root:
            return {}
        found = subtree(root, {root.pid: own, **self.below(root.pid)})
        return {pid: process for pid, process in found.items() if not process.zombie}

    def below(self, pid: int) -> dict[int, Process]:
        """The descendants of `pid`, zombies too; the whole table where the kernel keeps no lists of children.

        A zombie may be a process whose first thread has ended while others live; its children are still its own.
        """
        children = self.children(pid)
        if children is None:  # a kernel without CONFIG_PROC_CHILDREN
            return dict(self.snapshot(zombies=True))
        found: dict[int, Process] = {}
        waiting, entered = children, {pid}
        while waiting and len(entered) < _MOST_PROCESSES:
            child = waiting.pop()
            if child in entered:
                continue
            entered.add(child)
            if (process := self.stat(child, zombies=True)) is not None:
                found[child] = process
                waiting += self.children(child) or ()
        return found

    def stat(self, pid: int, *, zombies: bool = False) -> Process | None:
        """The cheap fields of `pid`: id, parent and cpu. None when it has ended."""
        try:
            with open(f"{self._root}/{pid}/stat", "rb", buffering=0) as file:
                state, parent, cpu, start = parse_stat(file.read())
        except (OSError, ValueError):
            return None
        zombie = state in _ZOMBIE
        return None if zombie and not zombies else Process(ProcessId(pid, start), parent, -1, cpu=cpu, zombie=zombie)

    def children(self, pid: int) -> list[int] | None:
        """The children of `pid`, of all its threads; none when it has ended. None where the kernel keeps no lists.

        A list may miss a child when another one ends during the read, so a caller that needs all of them reads again.
        """
        found: list[int] = []
        try:
            threads = os.listdir(f"{self._root}/{pid}/task")
        except OSError:
            return found
        for thread in threads:
            path = f"{self._root}/{pid}/task/{thread}/children"
            try:
                with open(path, "rb", buffering=0) as file:
                    found += map(int, file.read().split())
            except FileNotFoundError:
                if os.path.exists(f"{self._root}/{pid}/task/{thread}/stat"):  # noqa: PTH110
                    return None
            except OSError:
                continue
        return found

    def in_group(self, group: int) -> dict[int, Process]:
        """The living processes of a process group."""
        found = (self.stat(pid) for pid in self._pids() if group_of(pid) == group)
        return {process.id.pid: process for process in found if process is not None}

    def resident_bytes(self, pid: int) -> int:
        """Resident memory of `pid`. Raises OSError when it has ended."""
        with open(f"{self._root}/{pid}/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * _PAGE

    def signal(self, process: ProcessId, number: int) -> bool:
        if not self._use_pidfd:
            return self._signal_by_pid(process, number)
        try:
            descriptor = os.pidfd_open(process.pid)
        except ProcessLookupError:
            return False
        except OSError:  # the kernel or a sandbox does not offer the call
            return self._signal_by_pid(process, number)
        try:
            # The descriptor stays with one process. Its start time, read after opening, tells whether it is the right
            # one; nothing can change that between this check and the signal.
            if not self._is(process):
                return False
            signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)
        return True

    def own_pid(self) -> int:
        return os.getpid()

    def own_uid(self) -> int:
        return os.geteuid()

    def _signal_by_pid(self, process: ProcessId, number: int) -> bool:
        if not self._is(process):
            return False
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def _is(self, process: ProcessId) -> bool:
        found = self.stat(process.pid)
        return found is not None and found.id == process

    def _pids(self) -> list[int]:
        return [int(name) for name in os.listdir(self._root) if name.isdigit()]

    def _open_files(self, pid: int) -> list[str]:
        directory = f"{self._root}/{pid}/fd"
        targets = []
        try:
            for name in os.listdir(directory):
                try:
                    targets.append(os.readlink(f"{directory}/{name}"))
                except FileNotFoundError:
                    continue
        except OSError:  # gone, or another user's
            return targets
        return targets

    def _real_uid(self, pid: int) -> int:
        with open(f"{self._root}/{pid}/status", "rb") as lines:
            for line in lines:
                if line.startswith(b"Uid:"):
                    return int(line.split()[1])
        raise OSError(f"{self._root}/{pid}/status has no Uid line")

    def _argv(self, pid: int) -> tuple[str, ...]:
        with open(f"{self._root}/{pid}/cmdline", "rb") as file:
            content = file.read()
        # setproctitle fills the rest of the old arguments with zeros.
        return tuple(os.fsdecode(part) for part in content.rstrip(b"\0").split(b"\0")) if content else ()

    def _exe(self, pid: int) -> str | None:
        try:
            return os.readlink(f"{self._root}/{pid}/exe").removesuffix(" (deleted)")
        except OSError:
            return None
