"""What is left of an engine whose shim was killed: the processes of its session."""

import asyncio
import contextlib
import os
import signal

from garrison.base.identity import ProcessId, start_time
from garrison.base.procfs import has_proc
from garrison.processes.local import local_processes

__all__ = ["end_orphans", "session_of"]

_POLL_SECONDS = 0.05


def session_of(leader: ProcessId) -> tuple[ProcessId, ...]:
    """The living processes of the session that the killed process `leader` led, without it.

    The number of a session is not given to a new process while the session has members, so another process with the pid
    of the leader means that none is left.
    """
    if start_time(leader.pid) not in (None, leader.start):
        return ()
    table = local_processes()
    found = (table.stat(pid) for pid in _pids() if pid != leader.pid and _session(pid) == leader.pid)
    return tuple(one.id for one in found if one is not None and one.id.start >= leader.start)


async def end_orphans(leader: ProcessId, seconds: float) -> int:
    """End what `session_of` finds: SIGTERM, then SIGKILL after `seconds`; how many processes there were.

    A process that survives SIGKILL for as long again is left.
    """
    ended: set[ProcessId] = set()
    for number in (signal.SIGTERM, signal.SIGKILL):
        for _ in range(max(1, int(seconds / _POLL_SECONDS))):
            left = await asyncio.to_thread(session_of, leader)
            if not left:
                return len(ended)
            for one in left:
                if number == signal.SIGKILL or one not in ended:
                    with contextlib.suppress(PermissionError):
                        local_processes().signal(one, number)
            ended.update(left)
            await asyncio.sleep(_POLL_SECONDS)
    return len(ended)


def _pids() -> list[int]:
    if has_proc():
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - a Path costs twice that
    import psutil  # only where there is no /proc

    return list(psutil.pids())


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:  # it has ended, or is another user's, who may not be asked everywhere
        return None
