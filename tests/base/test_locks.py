import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base import locks
from garrison.base.errors import DiskFullError, GarrisonError, InvalidError, LockedError
from garrison.base.identity import Identity, Place, this_place, this_process
from garrison.base.locks import file_lock
from garrison.testing.clock import FakeClock

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


def leave_directory(path: Path, holder: Identity) -> None:
    """The fallback's directory, as `holder` left it."""
    directory = path.with_name(f"{path.name}.d")
    directory.mkdir()
    (directory / "pid").write_text(f"{holder}\n")


NOBODY = 65534


@pytest.mark.system
def test_a_file_that_another_user_left_in_a_shared_place(tmp_path: Path, kind: str) -> None:
    """As root leaves one in /tmp; and then root again, beside the other user's."""
    shared = open_to_all(tmp_path / "shared", 0o1777)
    path = shared / "port.lock"
    take(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert take_as_nobody(path) == ""
    assert (shared / f"port.lock.{NOBODY}").stat().st_uid == NOBODY
    take(path)


IN_THE_WAY: dict[str, Callable[[Path], object]] = {
    "a symlink": lambda path: path.symlink_to("elsewhere"),
    "a FIFO": os.mkfifo,
    "a directory": lambda path: path.mkdir(),
    "a file that is open to all": lambda path: (path.touch(), path.chmod(0o666)),
    "a file of its own": lambda path: (path.touch(), path.chmod(0o600)),
}


@pytest.mark.system
@pytest.mark.parametrize("make", IN_THE_WAY.values(), ids=IN_THE_WAY)
def test_nothing_that_another_user_puts_in_the_way_blocks_a_user(tmp_path: Path, make: Any) -> None:
    """In /tmp anybody may take the name first, and keep it locked."""
    shared = open_to_all(tmp_path / "shared", 0o1777)
    path = shared / "port.lock"
    make(path)
    held = os.open(path, os.O_RDWR) if path.is_file() else None
    if held is not None:
        fcntl.flock(held, fcntl.LOCK_EX)
    assert take_as_nobody(path) == ""
    assert (shared / f"port.lock.{NOBODY}").stat().st_uid == NOBODY
    assert not (shared / "elsewhere").exists()
    if held is not None:
        os.close(held)


@pytest.mark.system
def test_what_root_makes_in_a_users_directory_is_the_users(tmp_path: Path) -> None:
    """As `sudo garrison models import` does before a service downloads there."""
    owned = open_to_all(tmp_path / "library", 0o755)
    os.chown(owned, NOBODY, NOBODY)
    path = owned / ".locks" / "deep" / "x.lock"
    take(path)
    for made in (path, path.parent, path.parent.parent):
        assert (made.stat().st_uid, made.stat().st_gid) == (NOBODY, NOBODY)
    assert take_as_nobody(path) == ""
    assert take_as_nobody(path.with_name("y.lock")) == ""
    with file_lock(path, timeout=0, purpose="is at work"):
        assert "LockedError" in take_as_nobody(path), "both lock the one file"


@pytest.mark.system
def test_a_directory_that_a_user_may_not_write_to_is_named(tmp_path: Path) -> None:
    closed = open_to_all(tmp_path / "closed", 0o755)
    said = take_as_nobody(closed / "x.lock")
    assert "cannot be opened: Permission denied" in said


@pytest.mark.system
def test_root_takes_a_file_of_another_user_in_a_sticky_directory(tmp_path: Path) -> None:
    """With `fs.protected_regular` the kernel refuses O_CREAT there, even to root."""
    shared = open_to_all(tmp_path / "shared", 0o1777)
    path = shared / "port.lock"
    assert take_as_nobody(path) == ""
    assert path.stat().st_uid == NOBODY
    with file_lock(path, timeout=0, purpose="is at work") as lock:
        assert lock.path == path


@pytest.mark.system
@pytest.mark.parametrize(
    ("mode", "expected"),
    [(0o2770, 0o660), (0o2777, 0o660), (0o2755, 0o600), (0o770, 0o600), (0o777, 0o600), (0o1777, 0o600)],
)
def test_a_group_that_shares_the_directory_shares_its_locks(tmp_path: Path, mode: int, expected: int) -> None:
    directory = open_to_all(tmp_path / "library", mode)
    os.chown(directory, -1, NOBODY)
    directory.chmod(mode)
    take(directory / "x.lock")
    assert (directory / "x.lock").stat().st_mode & 0o777 == expected
    if expected == 0o660:
        with file_lock(directory / "x.lock", timeout=0, purpose="is at work"):
            assert "LockedError" in take_as_nobody(directory / "x.lock"), "both lock the one file"


def open_to_all(directory: Path, mode: int) -> Path:
    directory.mkdir()
    directory.chmod(mode)
    for parent in list(directory.parents)[:3]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    return directory


def take_as_nobody(path: Path) -> str:
    """Take the lock and let go as another user, in a forked child: that user may not see the checkout. What was raised,
    in words."""
    readable, writable = os.pipe()
    if (child := os.fork()) == 0:
        said = ""
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            take(path)
        except (GarrisonError, OSError) as error:
            said = repr(error)
        finally:
            os.write(writable, said.encode())
            os._exit(0)
    os.close(writable)
    with open(readable) as file:
        said = file.read()
    os.waitpid(child, 0)
    return said


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

    @pytest.mark.parametrize("pid", [4194305, os.getpid()], ids=["pid of nobody", "pid that was used again"])
    def test_a_dead_holder_is_seen(self, tmp_path: Path, pid: int) -> None:
        path = tmp_path / "x.lock"
        leave_directory(path, replace(this_process(), pid=pid, start=1))
        take(path, timeout=1)
        assert sorted(os.listdir(tmp_path)) == ["x.lock"]

    @pytest.mark.parametrize(
        "place",
        [
            Place("elsewhere", "another-boot", "pid:[4026531836]"),
            Place(this_place().host, "another-boot", this_place().namespace),
            Place(this_place().host, this_place().boot, "pid:[1]"),
            Place("elsewhere"),
        ],
        ids=["another host", "another host of that name", "another container", "a host without boot ids"],
    )
    @pytest.mark.parametrize("pid", [4194305, os.getpid()], ids=["pid of nobody here", "pid of this process"])
    def test_a_holder_elsewhere_is_not_judged_by_the_pids_of_this_host(
        self, tmp_path: Path, place: Place, pid: int
    ) -> None:
        path = tmp_path / "x.lock"
        leave_directory(path, Identity(place, pid, 1))
        os.utime(tmp_path / "x.lock.d", (0, 0))
        with pytest.raises(LockedError, match=f"pid {pid} on {place.host} is at work") as caught:
            take(path, timeout=1)
        assert str(tmp_path / "x.lock.d") in (caught.value.hint or "")
        assert (tmp_path / "x.lock.d" / "pid").exists()

    @pytest.mark.system
    def test_another_user_of_a_shared_directory_sees_a_dead_holder(self, tmp_path: Path) -> None:
        directory = open_to_all(tmp_path / "library", 0o2770)
        os.chown(directory, -1, NOBODY)
        directory.chmod(0o2770)
        with file_lock(directory / "x.lock", timeout=0, purpose="is at work"):
            assert "LockedError" in take_as_nobody(directory / "x.lock")
            (directory / "x.lock.d" / "pid").write_text(f"{replace(this_process(), pid=4194305, start=1)}\n")
            assert take_as_nobody(directory / "x.lock") == ""

    def test_a_dead_holder_is_seen_without_waiting(self, tmp_path: Path) -> None:
        leave_directory(tmp_path / "x.lock", replace(this_process(), pid=4194305, start=1))
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


def test_a_full_disk_costs_only_the_holders_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with file_lock(tmp_path / "x.lock", timeout=0, purpose="is at it"):
        pass


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFullError), (errno.EIO, InvalidError)])
def test_a_holder_that_cannot_be_named_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[GarrisonError]
) -> None:
    no_flock(monkeypatch)
    path = tmp_path / "x.lock"

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", fail)
        with pytest.raises(kind, match=r"x\.lock"):
            take(path)
    assert list(tmp_path.iterdir()) == [path]
    take(path)


def test_a_file_system_that_fails_to_lock_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(locks.fcntl, "flock", fail)
    with pytest.raises(InvalidError, match="cannot be locked: Input/output error"):
        take(tmp_path / "x.lock")
