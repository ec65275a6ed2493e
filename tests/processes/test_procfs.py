import os
import subprocess
from pathlib import Path

import pytest

from garrison.processes.procfs import Procfs, parse_stat


@pytest.mark.parametrize("name", ["python3", "a b", "ev)il (x) R 7", ")"])
def test_stat_with_any_command_name(name: str) -> None:
    fields = "S 42 43 44 0 -1 4194304 1 2 3 4 700 30 5 6 20 0 1 0 123456 1 2"
    assert parse_stat(f"77 ({name}) {fields}\n".encode()) == (b"S", 42, 730, 123456)


def proc(root: Path, pid: int, state: str = "S", start: int = 5, argv: bytes = b"python\0x\0") -> None:
    directory = root / str(pid)
    (directory / "fd").mkdir(parents=True)
    fields = f"{state} 1 1 1 0 -1 0 0 0 0 0 3 4 0 0 20 0 1 0 {start} 0"
    (directory / "stat").write_text(f"{pid} (x) {fields}\n")
    (directory / "status").write_text("Name:\tx\nUid:\t1000\t1001\t1000\t1000\n")
    (directory / "cmdline").write_bytes(argv)
    (directory / "exe").symlink_to("/usr/bin/python3.11 (deleted)")


def test_a_process(tmp_path: Path) -> None:
    proc(tmp_path, 7)
    found = Procfs(str(tmp_path)).read(7)
    assert found is not None
    assert (found.id.pid, found.id.start, found.parent, found.uid, found.cpu) == (7, 5, 1, 1000, 7)
    assert (found.exe, found.argv) == ("/usr/bin/python3.11", ("python", "x"))


def test_a_rewritten_title_loses_its_padding(tmp_path: Path) -> None:
    proc(tmp_path, 7, argv=b"VLLM::EngineCore" + bytes(60))
    found = Procfs(str(tmp_path)).read(7)
    assert found is not None
    assert found.argv == ("VLLM::EngineCore",)


@pytest.mark.parametrize("state", ["Z", "X"])
def test_the_dead_are_gone(tmp_path: Path, state: str) -> None:
    proc(tmp_path, 7, state)
    assert Procfs(str(tmp_path)).read(7) is None
    assert Procfs(str(tmp_path)).snapshot() == {}


def test_owners_are_all_that_hold_a_socket_and_nothing_without_inode(tmp_path: Path) -> None:
    for pid in (7, 8, 9):
        proc(tmp_path, pid)
    for pid, inode in ((7, 70), (8, 70), (9, 90)):
        (tmp_path / str(pid) / "fd" / "3").symlink_to(f"socket:[{inode}]")
    (tmp_path / "10").mkdir()
    assert Procfs(str(tmp_path)).owners([70, 80, 0]) == {70: frozenset({7, 8})}


@pytest.mark.system
def test_this_process() -> None:
    me = Procfs().read(os.getpid())
    assert me is not None
    assert (me.parent, me.uid) == (os.getppid(), os.getuid())
    assert me.exe == os.readlink("/proc/self/exe")
    assert Procfs().snapshot()[os.getpid()].id == me.id


@pytest.mark.system
@pytest.mark.parametrize("use_pidfd", [True, False])
def test_nothing_happens_to_a_pid_that_was_taken_over_a_hundred_times(use_pidfd: bool) -> None:
    """Real processes that end while they are signalled: the signal meets them or nobody."""
    processes = Procfs(use_pidfd=use_pidfd)
    with subprocess.Popen(["sleep", "600"]) as bystander:
        for _ in range(100):
            child = subprocess.Popen(["true"])
            found = processes.read(child.pid)
            if found is not None:
                processes.signal(found.id, 15)
            child.wait(20)
            if found is not None:
                assert processes.signal(found.id, 9) is False
        alive = bystander.poll() is None
        bystander.kill()
    assert alive
