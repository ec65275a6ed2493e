import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from garrison.base.errors import LockedError
from garrison.base.locks import file_lock
from garrison.engines.install.runner import SystemRunner

pytestmark = pytest.mark.system


def test_lines_are_told_and_kept(tmp_path: Path) -> None:
    log, lines = tmp_path / "log", list[str]()
    script = "echo one; echo two >&2; printf three"
    status = SystemRunner().run(("/bin/sh", "-c", script), env=os.environ, log=log, on_line=lines.append, hold=None)
    assert status == 0
    assert sorted(line for line in lines if line) == ["one", "three", "two"]
    assert log.read_text().splitlines()[0] == f"$ /bin/sh -c {script}"


def test_the_status_is_the_programs(tmp_path: Path) -> None:
    argv = ("/bin/sh", "-c", "exit 3")
    assert SystemRunner().run(argv, env={}, log=tmp_path / "log", on_line=lambda _: None, hold=None) == 3


def test_an_interruption_ends_the_program(tmp_path: Path) -> None:
    def interrupt(line: str) -> None:
        if line:
            pids.append(int(line))
            raise KeyboardInterrupt

    pids: list[int] = []
    argv = ("/bin/sh", "-c", "echo $$; exec sleep 300")
    with pytest.raises(KeyboardInterrupt):
        SystemRunner().run(argv, env=os.environ, log=tmp_path / "log", on_line=interrupt, hold=None)
    assert not Path(f"/proc/{pids[0]}").exists()


def test_a_lock_outlives_a_killed_installation_for_as_long_as_its_tool_runs(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    program = f"""
import os
from pathlib import Path
from garrison.base.locks import file_lock
from garrison.engines.install.runner import SystemRunner
with file_lock(Path({str(lock)!r}), timeout=0, purpose="x") as held:
    SystemRunner().run(
        ("/bin/sh", "-c", "echo $$; exec sleep 300"), env=os.environ, log=Path({str(tmp_path / "log")!r}),
        on_line=lambda line: line and print(line, flush=True), hold=held.descriptor,
    )
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    tool = int(child.stdout.readline())
    try:
        child.kill()
        child.wait()
        child.stdout.close()
        with pytest.raises(LockedError), file_lock(lock, timeout=0, purpose="is installing"):
            pass
    finally:
        os.kill(tool, signal.SIGKILL)
    deadline = time.monotonic() + 10
    with file_lock(lock, timeout=deadline - time.monotonic(), purpose="is installing"):
        pass


def test_what_a_tool_says_is_kept_and_told_without_secrets(tmp_path: Path) -> None:
    script = "printf 'Looking in https://me:passw0rd-9@host/simple\\nand passw0'; sleep 0; printf 'rd-9 alone\\n'"
    lines: list[str] = []
    environ = {**os.environ, "PIP_INDEX_URL": "https://me:passw0rd-9@host/simple"}
    log = tmp_path / "log"
    SystemRunner().run(("/bin/sh", "-c", script), env=environ, log=log, on_line=lines.append, hold=None)
    assert [line for line in lines if line] == ["Looking in https://***@host/simple", "and *** alone"]
    assert "passw0rd-9@" not in log.read_text()
    assert "and *** alone" in log.read_text()
