"""What is left of an engine whose shim was killed: the processes of its session."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from garrison.base.identity import ProcessId, start_time
from garrison.processes.procfs import Procfs

__all__ = ["end_orphans", "session_of"]

_POLL_SECONDS = 0.05


def session_of(leader: ProcessId) -> tuple[ProcessId, ...]:
    """The living processes of the session that the killed process `leader` led, without it.

    The number of a session is not given to a new process while the session has members, so another process with the pid
    of the leader means that none is left. Empty where there is no `/proc`.
    """
    if start_time(leader.pid) not in (None, leader.start):
        return ()
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - a Path costs twice that
    except OSError:
        return ()
    return tuple(one for pid in pids if (one := _member(pid, leader)) is not None)


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
                        Procfs().signal(one, number)
            ended.update(left)
            await asyncio.sleep(_POLL_SECONDS)
    return len(ended)


def _member(pid: int, leader: ProcessId) -> ProcessId | None:
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = content[content.rindex(b")") + 2 :].split()
    state, session, start = fields[0], int(fields[3]), int(fields[19])
    if state in (b"Z", b"X") or session != leader.pid or pid == leader.pid or start < leader.start:
        return None
    return ProcessId(pid, start)
