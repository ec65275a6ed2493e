import subprocess
import sys
from typing import Any

import pytest

from garrison.base.errors import EngineMissingError, InvalidError
from garrison.preflight.downstream.child import SpawnedChild

pytestmark = pytest.mark.system


def test_the_exit_code_is_remembered_and_a_late_signal_harmless() -> None:
    with SpawnedChild(["sh", "-c", "exit 5"]) as child:
        code = None
        while code is None:
            code, _ = child.wait(5)
        child.send(15)
        assert child.wait(0) == (5, None)


def test_wait_ends_at_the_time_given() -> None:
    with SpawnedChild(["sleep", "600"]) as child:
        assert child.wait(0.01) == (None, None)
        child.send(9)
        code = None
        while code is None:
            code, _ = child.wait(5)
        assert code == 137


def test_a_command_that_cannot_be_started_leaves_the_signals_as_they_were(tmp_path: Any) -> None:
    import signal

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(EngineMissingError):
        SpawnedChild(["no-such-command-here"])
    (tmp_path / "data").write_text("x")
    with pytest.raises(InvalidError):
        SpawnedChild([str(tmp_path / "data")])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


AS_INIT = """
import ctypes, os
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: orphans come to us, as to pid 1
me = os.getpid()
os.getpid = lambda: 1
from garrison.preflight.downstream.child import SpawnedChild
with SpawnedChild(["sh", "-c", "(true &); (true &); sleep 0.5; exit 4"]) as child:
    code = None
    while code is None:
        code, _ = child.wait(5)
print(code, open(f"/proc/{me}/task/{me}/children").read().split())
"""


def test_as_pid_1_of_a_container_orphans_are_reaped() -> None:
    done = subprocess.run([sys.executable, "-c", AS_INIT], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "4 []\n"
