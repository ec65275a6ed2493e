"""Trees of real processes, and a table that these tests write."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.base.identity import ProcessId, start_time
from garrison.processes.descendants import Descendants
from garrison.processes.portable import PsutilProcesses
from garrison.processes.procfs import Procfs
from garrison.testing.processes import MemoryProcesses


def identity(pid: int) -> ProcessId:
    start = start_time(pid)
    assert start is not None
    return ProcessId(pid, start)


def write(
    root: Path,
    pid: int,
    parent: int,
    *,
    children: dict[int, str] | None,
    state: str = "S",
    cpu: int = 3,
    start: int = 5,
) -> None:
    """A process whose threads have these children."""
    directory = root / str(pid)
    directory.mkdir()
    fields = f"{state} {parent} 1 1 0 -1 0 0 0 0 0 {cpu} 0 0 0 20 0 1 0 5 0"
    (directory / "stat").write_text(f"{pid} (x) {fields}\n")
    (directory / "statm").write_text("9 2 0 0 0 0 0\n")
    for thread, found in children.items():
        (directory / "task" / str(thread)).mkdir(parents=True)
        (directory / "task" / str(thread) / "stat").write_text("x")
        (directory / "task" / str(thread) / "children").write_text(found)


def pids(found: tuple[ProcessId, ...]) -> list[int]:
    return [one.pid for one in found]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Counting(Procfs):
    def __init__(self, root: str = "/proc") -> None:
        super().__init__(root)
        self.read_stats: list[int] = []
        self.scans = 0

    def stat(self, pid: int, *, zombies: bool = False) -> Any:
        self.read_stats.append(pid)
        return super().stat(pid, zombies=zombies)

    def snapshot(self, *, zombies: bool = False) -> Any:
        self.scans += 1
        return super().snapshot(zombies=zombies)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """10 has 11 (by its second thread) and 12; 11 has 13; 12 is a zombie with a living thread and the child 14."""
    write(tmp_path, 10, 1, children={10: "12 ", 20: "11 "})
    write(tmp_path, 11, 10, children={11: "13 "})
    write(tmp_path, 12, 10, children={12: "", 21: "14 "}, state="Z")
    write(tmp_path, 13, 11, children={13: ""})
    write(tmp_path, 14, 12, children={14: ""})
    for stranger in range(30, 60):
        write(tmp_path, stranger, 1, children={stranger: ""})
    return tmp_path


def test_children_of_all_threads_and_of_zombies_come_before_their_parents(tree: Path) -> None:
    found = pids(Descendants(ProcessId(10, 5), processes=Procfs(str(tree))).alive())
    assert sorted(found) == [11, 13, 14]
    assert found.index(13) < found.index(11)


def test_no_other_process_is_read(tree: Path) -> None:
    processes = Counting(str(tree))
    descendants = Descendants(ProcessId(10, 5), processes=processes)
    descendants.alive()
    assert descendants.cpu_seconds() == pytest.approx(3 * 3 / os.sysconf("SC_CLK_TCK"))
    assert descendants.memory_bytes() == 3 * 2 * os.sysconf("SC_PAGE_SIZE")
    assert set(processes.read_stats) == {10, 11, 12, 13, 14}
    assert processes.scans == 0


def test_a_subtree_is_its_root_and_the_living_below_it(tree: Path) -> None:
    processes = Counting(str(tree))
    assert sorted(processes.subtree(ProcessId(10, 5))) == [10, 11, 13, 14]
    assert set(processes.read_stats) == {10, 11, 12, 13, 14}
    assert processes.scans == 0
    assert processes.subtree(ProcessId(10, 4)) == {}
    assert processes.subtree(ProcessId(99, 5)) == {}


def test_a_subtree_without_lists_of_children(tree: Path) -> None:
    for path in tree.glob("*/task/*/children"):
        path.unlink()
    assert sorted(Procfs(str(tree)).subtree(ProcessId(10, 5))) == [10, 11, 13, 14]


def test_without_lists_of_children_the_whole_table_is_read(tree: Path) -> None:
    for path in tree.glob("*/task/*/children"):
        path.unlink()
    processes = Counting(str(tree))
    assert sorted(pids(Descendants(ProcessId(10, 5), processes=processes).alive())) == [11, 13, 14]
    assert processes.scans == 1


def test_a_root_whose_pid_was_taken_over_has_no_descendants(tree: Path) -> None:
    descendants = Descendants(ProcessId(10, 4), processes=Procfs(str(tree)))
    assert descendants.alive() == ()
    assert descendants.cpu_seconds() == 0
    assert Descendants(None, processes=Procfs(str(tree))).alive() == ()


def test_a_child_is_measured_after_the_next_walk(tree: Path) -> None:
    clock = Clock()
    descendants = Descendants(ProcessId(11, 5), processes=Procfs(str(tree)), now=clock)
    page = os.sysconf("SC_PAGE_SIZE")
    assert descendants.memory_bytes() == 2 * page
    write(tree, 15, 13, children={15: ""})
    (tree / "13" / "task" / "13" / "children").write_text("15 ")
    clock.now += 0.5
    assert descendants.memory_bytes() == 2 * page
    clock.now += 0.6
    assert descendants.memory_bytes() == 4 * page


def test_a_pid_that_was_taken_over_between_two_walks_is_not_measured(tree: Path) -> None:
    descendants = Descendants(ProcessId(11, 5), processes=Procfs(str(tree)), now=Clock())
    assert descendants.memory_bytes() > 0
    (tree / "13" / "stat").write_text("13 (x) S 1 1 1 0 -1 0 0 0 0 0 9 0 0 0 20 0 1 0 77 0\n")
    assert descendants.memory_bytes() == 0


@pytest.fixture
def shell(until: Callable[..., Any]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sh", "-c", "sleep 600 & sleep 600 & wait"])
    try:
        until(lambda: len(Procfs().children(process.pid) or ()) == 2, what="two children")
        yield process
    finally:
        for one in Descendants(identity(process.pid)).alive():
            Procfs().signal(one, 9)
        process.kill()
        process.wait()


@pytest.mark.system
def test_a_subtree_is_the_same_through_each_reader(shell: subprocess.Popen[bytes]) -> None:
    root = identity(shell.pid)
    linux, portable = Procfs().subtree(root), PsutilProcesses().subtree(PsutilProcesses().read(shell.pid).id)
    assert linux.keys() == portable.keys()
    assert len(linux) == 3
    twin = MemoryProcesses(linux.values())
    assert twin.subtree(root).keys() == linux.keys()


@pytest.mark.system
def test_a_real_tree(shell: subprocess.Popen[bytes], until: Callable[..., Any]) -> None:
    descendants = Descendants(identity(shell.pid))
    assert len(descendants.alive()) == 2
    assert descendants.memory_bytes() > 0
    descendants.signal_all(9)
    until(lambda: descendants.alive() == (), what="their end")
