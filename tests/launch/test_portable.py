"""Shims and trees without `/proc`, pidfds and subreapers, as on macOS: psutil and process groups do the work."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from garrison.base.identity import Identity, Place, is_gone, start_time, this_place, this_process
from garrison.base.procfs import WITHOUT_PROC, has_proc
from garrison.launch.port_server import started_at
from garrison.launch.run.detached import DetachedSpawner, adopt_engine, lives, read_status
from garrison.launch.run.engine_tree import EngineTree
from garrison.launch.run.shims import Shims
from garrison.net.thread_pool import ThreadPool
from garrison.preflight.machine import Machine
from garrison.processes.local import local_processes
from garrison.processes.portable import PsutilProcesses

pytestmark = pytest.mark.system

ORPHAN = "(sleep 600 & echo $! > {0}/orphan); echo $$ > {0}/main; exec sleep 600"
"""The parent of the first sleep ends at once, so it belongs to pid 1, or to a subreaper."""


@pytest.fixture(autouse=True)
def without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WITHOUT_PROC, "1")


@pytest.fixture
async def pool(tmp_path: Path) -> AsyncIterator[ThreadPool]:
    made = ThreadPool("test", 4)
    yield made
    for name in ("main", "orphan"):
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((tmp_path / name).read_text()), signal.SIGKILL)
    made.close(5)


async def spawn(root: Path, pool: ThreadPool) -> EngineTree:
    argv = ("/bin/sh", "-c", ORPHAN.format(root))
    spawner = DetachedSpawner(root / "engine", root / "log", pool, Shims())
    found = await spawner.spawn(argv, {"PATH": os.defpath}, stop_timeout=5)
    assert isinstance(found, EngineTree)
    async with asyncio.timeout(20):
        while not (root / "main").exists() or not (root / "orphan").read_text().strip():
            await asyncio.sleep(0.02)
    return found


async def gone(*pids: int) -> None:
    async with asyncio.timeout(20):
        while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in pids):
            await asyncio.sleep(0.05)


async def test_a_stop_ends_an_orphan_of_the_group_too(tmp_path: Path, pool: ThreadPool) -> None:
    engine = await spawn(tmp_path, pool)
    orphan = int((tmp_path / "orphan").read_text())
    assert engine.main is not None
    parent = psutil.Process(orphan).ppid()
    status = read_status(tmp_path / "engine")
    assert status is not None
    assert status.shim is not None
    assert parent not in (status.shim.pid, engine.main.pid), "nothing adopts it"
    assert {one.pid for one in engine.alive()} == {engine.main.pid, orphan}
    assert engine.memory_bytes() > 0
    assert await engine.stop(5) == ()
    await gone(orphan, engine.main.pid, status.shim.pid)
    assert engine.returncode == -signal.SIGTERM


async def test_when_its_main_process_dies_the_rest_of_the_group_is_ended(tmp_path: Path, pool: ThreadPool) -> None:
    engine = await spawn(tmp_path, pool)
    orphan = int((tmp_path / "orphan").read_text())
    assert engine.main is not None
    status = read_status(tmp_path / "engine")
    assert status is not None
    assert status.shim is not None
    engine.close()  # the starter is gone, and the shim looks after what is left
    os.kill(engine.main.pid, signal.SIGKILL)
    await gone(orphan, status.shim.pid)
    await engine.end_of_shim()


async def test_a_successor_adopts_it(tmp_path: Path, pool: ThreadPool) -> None:
    first = await spawn(tmp_path, pool)
    first.close()
    second = await adopt_engine(tmp_path / "engine", tmp_path / "log", pool)
    assert second.main == first.main
    assert lives(second.main)
    orphan = int((tmp_path / "orphan").read_text())
    assert orphan in {one.pid for one in second.alive()}
    await second.stop(5)
    await gone(orphan)
    await first.end_of_shim()


async def test_a_shim_that_was_killed_leaves_nothing_behind_after_a_stop(tmp_path: Path, pool: ThreadPool) -> None:
    engine = await spawn(tmp_path, pool)
    orphan = int((tmp_path / "orphan").read_text())
    status = read_status(tmp_path / "engine")
    assert status is not None
    assert status.shim is not None
    assert engine.main is not None
    assert engine.alive()
    os.kill(status.shim.pid, signal.SIGKILL)
    await engine.stop(5)
    await gone(orphan, engine.main.pid)
    await engine.end_of_shim()


def test_identities_hold_without_proc() -> None:
    assert not has_proc()
    me = this_process()
    assert me.start == start_time(os.getpid())
    assert me.start is not None
    assert Identity.parse(str(me)) == me
    assert is_gone(me) is False
    assert is_gone(Identity(this_place(), os.getpid(), me.start - 1)) is True
    assert is_gone(Identity(Place("elsewhere"), os.getpid(), me.start)) is None
    assert start_time(2**22 + 1) is None
    found = local_processes().stat(os.getpid())
    assert found is not None
    assert found.id.start == me.start
    begun = started_at(os.getpid())
    assert begun is not None
    assert abs(begun.timestamp() - me.start / 1_000_000) < 2
    assert isinstance(local_processes(), PsutilProcesses)
    assert isinstance(Machine(lambda _: None).processes, PsutilProcesses)


def test_both_ways_see_the_same_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    portable = local_processes()
    monkeypatch.delenv(WITHOUT_PROC)
    assert has_proc()
    linux = local_processes()
    assert (portable.adopts, linux.adopts) == (False, True)
    group = os.getpgid(0)
    assert os.getpid() in portable.in_group(group)
    assert os.getpid() in linux.in_group(group)
    assert portable.resident_bytes(os.getpid()) == pytest.approx(linux.resident_bytes(os.getpid()), rel=0.2)
    for table in (portable, linux):
        with pytest.raises(OSError):
            table.resident_bytes(2**22 + 1)
