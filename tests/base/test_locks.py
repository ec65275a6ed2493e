import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.base import locks
from garrison.base.clock import FakeClock
from garrison.base.errors import InvalidError, LockedError
from garrison.base.locks import file_lock, start_time

HOLDER = """
import sys
from pathlib import Path
from garrison.base import locks
if sys.argv[2] == "directory":
    def unsupported(*_): raise OSError(95, "not supported")
    locks.fcntl.flock = unsupported
with locks.file_lock(Path(sys.argv[1]), timeout=0, purpose="holds it"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that holds the lock until its standard input ends."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, kind: str = "flock") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def take(path: Path, **options: Any) -> None:
    with file_lock(path, **({"timeout": 0, "purpose": "is at work", "clock": FakeClock()} | options)):
        pass


@pytest.fixture(params=["flock", "directory"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "directory":
        no_flock(monkeypatch)
    return str(request.param)


def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(locks.fcntl, "flock", unsupported)


def test_held_then_free(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lock"
    with file_lock(path, timeout=0, purpose="is at work"), pytest.raises(LockedError):
        take(path)
    take(path)


def test_the_lock_is_free_after_an_error_in_the_body(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lock"
    with pytest.raises(RuntimeError), file_lock(path, timeout=0, purpose="is at work"):
        raise RuntimeError
    take(path)


def test_release_twice_is_harmless_and_frees_nobody_elses(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.lock"
    with file_lock(path, timeout=0, purpose="is at work") as first:
        first.release()
        with file_lock(path, timeout=0, purpose="is at work"):
            first.release()
            with pytest.raises(LockedError):
                take(path)


def test_mode_and_directories(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "x.lock"
    take(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.system
def test_another_process_is_named(tmp_path: Path, kind: str, holder: Any) -> None:
    path = tmp_path / "x.lock"
    process = holder(path, kind)
    with pytest.raises(LockedError) as caught:
        take(path, purpose="is resolving acme/tiny")
    assert caught.value.message.startswith(f"pid {process.pid} is resolving acme/tiny")
    assert caught.value.details == {"path": str(path), "pid": process.pid}
    assert caught.value.hint


@pytest.mark.system
def test_waiting_ends_at_the_timeout_and_is_announced_once(tmp_path: Path, kind: str, holder: Any) -> None:
    path = tmp_path / "x.lock"
    process = holder(path, kind)
    clock, said = FakeClock(), list[str]()
    with pytest.raises(LockedError, match="after waiting 7 s"):
        take(path, timeout=7, clock=clock, on_wait=said.append)
    assert clock.monotonic() == pytest.approx(7)
    assert said == [f"waiting for the lock {path}, held by pid {process.pid}"]


@pytest.mark.system
def test_the_end_of_the_holder_ends_the_wait(tmp_path: Path, kind: str, holder: Any) -> None:
    path = tmp_path / "x.lock"
    process = holder(path, kind)

    class EndsHolder(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            process.communicate()

    take(path, timeout=60, clock=EndsHolder())


@pytest.mark.system
def test_kill_9_of_the_holder_frees_it(tmp_path: Path, kind: str, holder: Any) -> None:
    path = tmp_path / "x.lock"
    process = holder(path, kind)
    process.send_signal(signal.SIGKILL)
    process.wait()
    take(path, timeout=1)


@pytest.mark.system
def test_many_processes_never_hold_it_at_once(tmp_path: Path, kind: str) -> None:
    """Each notes its entry and its exit: between them nobody else's may be."""
    program = """
import sys
from pathlib import Path
from garrison.base import locks
if sys.argv[2] == "directory":
    def unsupported(*_): raise OSError(95, "not supported")
    locks.fcntl.flock = unsupported
locks._POLL_SECONDS = 0.001
for _ in range(20):
    with locks.file_lock(Path(sys.argv[1]), timeout=60, purpose="holds it"):
        for word in ("in", "out"):
            with open(sys.argv[1] + ".log", "a") as log:
                log.write(word + "\\n")
"""
    path = tmp_path / "x.lock"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(path), kind]) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert Path(f"{path}.log").read_text().split() == ["in", "out"] * 80


REFUSED = {
    "symlink": (lambda path: path.symlink_to(path.parent / "elsewhere"), "is a symlink"),
    "symlink to a file": (lambda path: (path.parent / "f").touch() or path.symlink_to("f"), "is a symlink"),
    "fifo": (os.mkfifo, "is not a regular file"),
    "directory": (lambda path: path.mkdir(), "cannot be opened"),
}


@pytest.mark.parametrize(("make", "said"), REFUSED.values(), ids=REFUSED)
def test_refused(tmp_path: Path, make: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "x.lock"
    make(path)
    with pytest.raises(InvalidError, match=said) as caught:
        take(path)
    assert caught.value.hint
    assert not (tmp_path / "elsewhere").exists()


def test_a_parent_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(InvalidError, match="cannot be opened"):
        take(tmp_path / "f" / "x.lock")


class TestDirectoryFallback:
    """Where the file system has no flock."""

    @pytest.fixture(autouse=True)
    def _no_flock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        no_flock(monkeypatch)

    def test_it_is_beside_the_file_and_goes_with_the_lock(self, tmp_path: Path) -> None:
        path = tmp_path / "x.lock"
        with file_lock(path, timeout=0, purpose="is at work") as lock:
            assert lock.descriptor is None
            assert (tmp_path / "x.lock.d" / "pid").read_text().split()[0] == str(os.getpid())
        assert not (tmp_path / "x.lock.d").exists()

    @pytest.mark.parametrize(
        "content", ["4194305 1", f"{os.getpid()} 1"], ids=["pid of nobody", "pid that was used again"]
    )
    def test_a_dead_holder_is_seen(self, tmp_path: Path, content: str) -> None:
        path = tmp_path / "x.lock"
        (tmp_path / "x.lock.d").mkdir()
        (tmp_path / "x.lock.d" / "pid").write_text(content)
        take(path, timeout=1)
        assert sorted(os.listdir(tmp_path)) == ["x.lock"]

    def test_a_dead_holder_is_seen_without_waiting(self, tmp_path: Path) -> None:
        (tmp_path / "x.lock.d").mkdir()
        (tmp_path / "x.lock.d" / "pid").write_text("4194305 1")
        take(tmp_path / "x.lock", timeout=0)

    def test_a_lock_that_was_freed_and_taken_while_it_was_judged_is_not_stolen(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, real = tmp_path / "x.lock", locks._is_stale
        monkeypatch.setattr(locks, "_is_stale", lambda directory: directory.name.endswith(".d") or real(directory))
        with file_lock(path, timeout=0, purpose="is at work"):
            with pytest.raises(LockedError, match="is at work"):
                take(path, timeout=0)
            assert sorted(os.listdir(tmp_path)) == ["x.lock", "x.lock.d"]

    @pytest.mark.parametrize("content", [None, "", "abc 1", "1"], ids=["no file", "empty", "words", "half"])
    def test_a_directory_without_a_pid_is_young_for_a_minute(self, tmp_path: Path, content: str | None) -> None:
        directory = tmp_path / "x.lock.d"
        directory.mkdir()
        if content is not None:
            (directory / "pid").write_text(content)
        with pytest.raises(LockedError, match="is at work"):
            take(tmp_path / "x.lock", timeout=1)
        os.utime(directory, (0, 0))
        take(tmp_path / "x.lock", timeout=1)


def test_another_flock_error_is_not_swallowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", broken)
    with pytest.raises(OSError, match="Input/output"):
        take(tmp_path / "x.lock")


def test_start_time_is_that_of_the_process() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert start_time(4194305) is None


@pytest.mark.system
def test_start_time_of_a_name_with_spaces_and_parentheses(tmp_path: Path, until: Any) -> None:
    program = tmp_path / "a) S 1 (b"
    program.symlink_to("/bin/sleep")
    process = subprocess.Popen([str(program), "60"])
    try:
        until(lambda: b"a) S" in Path(f"/proc/{process.pid}/stat").read_bytes())
        found = start_time(process.pid)
        assert found is not None
        assert found > (start_time(os.getpid()) or 0)
    finally:
        process.kill()
        process.wait()


def test_a_full_disk_costs_only_the_holders_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with file_lock(tmp_path / "x.lock", timeout=0, purpose="is at it"):
        pass
