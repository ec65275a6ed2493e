"""The processes of one engine: found, measured and stopped, none left behind.

Garrison makes itself the reaper of its descendants, so that a worker whose parent died is still found, as a child of
ours, and not lost to pid 1.
"""

import asyncio
import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from garrison.base.identity import ProcessId
from garrison.processes.process import Process
from garrison.processes.procfs import Procfs
from garrison.processes.tree import post_order

__all__ = ["ProcessTree", "die_with_parent", "reap_orphans_here"]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_SECONDS = 0.05
_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def reap_orphans_here() -> None:
    """Orphaned descendants become children of this process."""
    if _libc is not None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Between fork and exec: SIGTERM when the parent is gone, even by kill -9. The library is loaded by then."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it went before we asked to be told
            os._exit(1)


class ProcessTree:
    """The engine's main process, its descendants, and orphans of theirs that this process has adopted.

    Make it before the engine is started: children that are there by then are somebody else's and stay untouched.
    """

    def __init__(self) -> None:
        self._processes = Procfs()
        self._not_ours = frozenset(process.id for process in self._children(self._processes.snapshot()))
        self.main: ProcessId | None = None
        self.seen: frozenset[ProcessId] = frozenset()
        """The processes of the last look that found any."""

    def started(self, main_pid: int) -> None:
        """The engine's main process is `main_pid`."""
        found = self._processes.read(main_pid)
        self.main = found.id if found else None

    def alive(self) -> tuple[ProcessId, ...]:
        """Children before their parents; zombies are not alive."""
        snapshot = self._processes.snapshot()
        roots = [process.id for process in self._children(snapshot) if process.id not in self._not_ours]
        found = post_order(roots, snapshot)
        self.seen = frozenset(found) or self.seen
        return found

    def cpu_seconds(self) -> float:
        """CPU time used so far by the processes that are alive."""
        return sum(process.cpu for process in self._living()) / _TICKS_PER_SECOND

    def memory_bytes(self) -> int:
        """Resident memory of the tree; pages that are shared count in each process."""
        total = 0
        for process in self._living():
            with contextlib.suppress(OSError, ValueError, IndexError):
                total += int(Path(f"/proc/{process.id.pid}/statm").read_bytes().split()[1]) * _PAGE
        return total

    def signal_main(self, number: int) -> bool:
        with contextlib.suppress(PermissionError):
            return self.main is not None and self._processes.signal(self.main, number)
        return False

    async def stop(self, *, timeout: float) -> bool:
        """End everything: the main process is asked first, since engines stop their own workers; what is left is asked
        too; then killed. True when nothing is left. `timeout` seconds bound the whole of it, but for the second that
        the kernel has at least to take away what was killed."""
        if self.signal_main(signal.SIGTERM):
            await _until(self._main_gone, timeout * 0.6)
        self._signal_all(signal.SIGTERM)
        if await _until(self._all_gone, timeout * 0.2):
            return True
        self.kill()
        return await _until(self._all_gone, max(1.0, timeout * 0.2))

    def kill(self) -> None:
        self._signal_all(signal.SIGKILL)

    def reap(self) -> None:
        """Collect orphans that ended. The main process is left to asyncio, which waits for it."""
        for child in self._children(self._processes.snapshot(zombies=True)):
            if child.id != self.main and child.id not in self._not_ours:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(child.id.pid, os.WNOHANG)

    def _signal_all(self, number: int) -> None:
        for process in self.alive():
            # One that became another user, by a setuid program, must not keep the others from being signalled.
            with contextlib.suppress(PermissionError):
                self._processes.signal(process, number)

    def _main_gone(self) -> bool:
        return self.main is None or self._processes.read(self.main.pid) is None

    def _all_gone(self) -> bool:
        """Nothing is left, not even a zombie: one may be a process whose other threads are still at work, and it is the
        parent of its children until they end."""
        self.reap()
        snapshot = self._processes.snapshot(zombies=True)
        left = post_order([child.id for child in self._children(snapshot) if child.id not in self._not_ours], snapshot)
        return all(process == self.main for process in left) and self._main_gone()

    def _children(self, snapshot: Mapping[int, Process]) -> list[Process]:
        own = self._processes.own_pid()
        return [process for process in snapshot.values() if process.parent == own]

    def _living(self) -> list[Process]:
        snapshot = self._processes.snapshot()
        return [snapshot[process.pid] for process in self.alive() if process.pid in snapshot]


async def _until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time. By the clock: on a crowded machine a look at all processes takes a while itself."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True
