"""Processes through psutil, for systems without `/proc`."""

import os
from collections.abc import Collection, Mapping

import psutil

from garrison.base.identity import ProcessId
from garrison.processes.process import Process
from garrison.processes.tree import subtree

__all__ = ["PsutilProcesses"]


class PsutilProcesses:
    """Start times are in microseconds since the epoch here."""

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

    def signal(self, process: ProcessId, number: int) -> bool:
        found = self.read(process.pid)
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


def _brief(process: psutil.Process) -> Process | None:
    try:
        with process.oneshot():
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            start = int(process.create_time() * 1_000_000)
            used = process.cpu_times()
            return Process(ProcessId(process.pid, start), process.ppid(), -1, cpu=int((used.user + used.system) * 100))
    except psutil.AccessDenied:
        return None
    except psutil.NoSuchProcess:
        return None
