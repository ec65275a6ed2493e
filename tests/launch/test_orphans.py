"""Processes whose shim was killed."""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from garrison.base.identity import ProcessId, start_time
from garrison.base.procfs import WITHOUT_PROC
from garrison.launch.run.orphans import end_orphans, session_of

pytestmark = pytest.mark.system

LEADER = """
import os, subprocess, sys, time
worker = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN) if len(sys.argv) > 1 else 0; "
worker += "print('ready', flush=True); time.sleep(600)"
found = []
for words, group in (((), None), (("stubborn",), 0)):
    one = subprocess.Popen([sys.executable, "-c", worker, *words], stdout=subprocess.PIPE, process_group=group)
    one.stdout.readline()
    found.append(one.pid)
print(*found, flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["linux", "portable"])
def orphans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[ProcessId, list[ProcessId]]:
    """The leader of a session, killed, and two processes that it has left: one ignores SIGTERM."""
    if request.param == "portable":
        monkeypatch.setenv(WITHOUT_PROC, "1")
    leader = subprocess.Popen([sys.executable, "-c", LEADER], stdout=subprocess.PIPE, start_new_session=True)
    assert leader.stdout is not None
    pids = [int(word) for word in leader.stdout.readline().split()]
    known = ProcessId(leader.pid, start_time(leader.pid) or 0)
    left = [ProcessId(pid, start_time(pid) or 0) for pid in pids]
    leader.kill()
    leader.wait()
    leader.stdout.close()
    return known, left


def lives(process: ProcessId) -> bool:
    return start_time(process.pid) == process.start


async def test_all_of_them_are_ended(orphans: tuple[ProcessId, list[ProcessId]], until: Any) -> None:
    leader, left = orphans
    assert set(session_of(leader)) == set(left)
    assert await end_orphans(leader, 1.0) == 2
    await asyncio.to_thread(until, lambda: not any(map(lives, left)), what="their end")
    assert await end_orphans(leader, 1.0) == 0


def test_another_session_of_that_number_is_left_alone(orphans: tuple[ProcessId, list[ProcessId]]) -> None:
    leader, left = orphans
    later = ProcessId(leader.pid, max(one.start for one in left) + 1)
    assert session_of(later) == (), "they are older than this leader"
    own = ProcessId(os.getsid(0), 0)
    if start_time(own.pid) is not None:
        assert session_of(own) == (), "a living process with that number is not the leader that was meant"
    for one in left:
        os.kill(one.pid, signal.SIGKILL)
