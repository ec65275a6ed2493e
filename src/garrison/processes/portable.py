"""Processes through psutil, for systems without `/proc`."""

import os
from collections.abc import Collection, Mapping

import psutil

from garrison.base.identity import ProcessId
from garrison.processes.process import Process, group_of
from garrison.processes.tree import subtree

__all__ = ["PsutilProcesses"]

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class PsutilProcesses:
    """`Processes` and `ProcessTable`. Start times are in microseconds since the epoch here."""

    adopts = False

    def owners(self, inodes: Collection[int]) -> Mapping[int, frozenset[int]]:
        return {}

    def read(self, pid: int) -> Process | None:
        try:
            process = psutil.Process(pid)
            brief = _brief(process)
            if brief is None:
                return None
            argv = tuple(process.cmdline())
            uid = process.uids().real
        except psutil.Error:
            return None
        try:
            exe = process.exe() or None
        except psutil.AccessDenied:
            exe = None
        return Process(brief.id, brief.parent, uid, exe, argv, brief.cpu)

    def snapshot(self) -> Mapping[int, Process]:
        found = (_brief(process) for process in psutil.process_iter())
        return {process.id.pid: process for process in found if process is not None}

    def subtree(self, root: ProcessId) -> Mapping[int, Process]:
        return subtree(root, self.snapshot())

    def stat(self, pid: int, *, zombies: bool = False) -> Process | None:
        """As `ProcessTable.stat`."""
        try:
            return _brief(psutil.Process(pid), zombies=zombies)
        except psutil.Error:
            return None

    def below(self, pid: int) -> dict[int, Process]:
        """As `ProcessTable.below`."""
        try:
            children = psutil.Process(pid).children(recursive=True)
        except psutil.Error:
            return {}
        found = (_brief(child, zombies=True) for child in children)
        return {process.id.pid: process for process in found if process is not None}

    def in_group(self, group: int) -> dict[int, Process]:
        """As `ProcessTable.in_group`."""
        found = (self.stat(pid) for pid in psutil.pids() if group_of(pid) == group)
        return {process.id.pid: process for process in found if process is not None}

    def resident_bytes(self, pid: int) -> int:
        """As `ProcessTable.resident_bytes`."""
        try:
            return int(psutil.Process(pid).memory_info().rss)
        except psutil.Error as error:
            raise ProcessLookupError(str(error)) from None

    def signal(self, process: ProcessId, number: int) -> bool:
        found = self.stat(process.pid)
        if found is None or found.id != process:
            return False
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return False
        return True

    def own_pid(self) -> int:
        return os.getpid()

    def own_uid(self) -> int:
        return os.geteuid()


def _brief(process: psutil.Process, *, zombies: bool = False) -> Process | None:
    try:
        with process.oneshot():
            zombie = process.status() == psutil.STATUS_ZOMBIE
            if zombie and not zombies:
                return None
            start = int(process.create_time() * 1_000_000)
            used = process.cpu_times()
            ticks = int((used.user + used.system) * _TICKS_PER_SECOND)
            return Process(ProcessId(process.pid, start), process.ppid(), -1, cpu=ticks, zombie=zombie)
    except psutil.AccessDenied:
        return None
    except psutil.NoSuchProcess:
        return None
