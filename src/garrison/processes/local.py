"""The processes of this machine, by whatever the system has."""

import functools

from garrison.base.procfs import has_proc
from garrison.processes.process import ProcessTable

__all__ = ["local_processes"]


def local_processes() -> ProcessTable:
    """`/proc` and pidfds on Linux, psutil and process groups elsewhere."""
    return _table(has_proc())


@functools.cache
def _table(by_proc: bool) -> ProcessTable:
    if by_proc:
        from garrison.processes.procfs import Procfs

        return Procfs()
    from garrison.processes.portable import PsutilProcesses

    return PsutilProcesses()
