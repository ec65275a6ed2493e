"""The end of a container, whatever was killed before; and a program that does not work."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from garrison.base.errors import EngineMissingError
from garrison.base.identity import ProcessId, start_time
from garrison.launch.containers.program import ContainerProgram, ContainerStatus
from garrison.launch.run.contained import Contained, ContainedSpawner, end_containers
from garrison.testing.containers import MemoryContainers
from garrison.testing.engines import MemoryEngine, MemorySpawner

OURS = {"garrison.server": "1", "garrison.instance": "a"}
THEIRS = {"garrison.server": "1", "garrison.instance": "b"}


@pytest.fixture
def containers() -> MemoryContainers:
    made = MemoryContainers()
    made.add(ContainerStatus("ours", running=True, pid=1), OURS)
    made.add(ContainerStatus("theirs", running=True), THEIRS)
    return made


async def test_a_stop_ends_the_container_first_and_leaves_those_of_others(containers: MemoryContainers) -> None:
    spawner = MemorySpawner()
    process = await ContainedSpawner(spawner, containers, OURS).spawn(("docker",), {}, stop_timeout=10)
    assert await process.stop(10) == ()
    assert containers.calls == ["stop ours 7", "remove ours"]
    assert list(containers.known) == ["theirs"]
    assert len(spawner.started[0].stops) == 1
    process.close()


async def test_a_container_that_appears_after_its_start_was_stopped(containers: MemoryContainers) -> None:
    containers.known.pop("ours")
    containers.appears = {3: (OURS, ContainerStatus("late", running=True))}
    containers.add(ContainerStatus("created", running=False), OURS)
    process = Contained(MemoryEngine(), containers, OURS)
    await process.stop(10)
    process.close()
    assert containers.calls == ["remove created", "remove late"]
    assert list(containers.known) == ["theirs"]


async def test_a_program_that_fails_does_not_keep_the_rest_from_being_stopped(containers: MemoryContainers) -> None:
    engine = MemoryEngine(pid=2**22 + 1)
    containers.fails = EngineMissingError("no daemon")
    process = Contained(engine, containers, OURS)
    assert await process.stop(5) == ()
    assert engine.stops
    process.close()
    assert engine.closed


async def test_the_main_process_is_believed_only_where_it_is_ours(containers: MemoryContainers) -> None:
    engine = MemoryEngine(pid=100)
    process = Contained(engine, containers, OURS)
    containers.add(ContainerStatus("ours", running=True, pid=os.getpid()), OURS)
    await asyncio.sleep(0.6)
    assert process.main == ProcessId(100, 1), "this process is not in the container's group"
    own = start_time(os.getpid())
    assert own is not None
    engine.main = ProcessId(os.getpid(), own)
    await process.located(5)
    assert process.main == ProcessId(os.getpid(), own)
    process.close()


async def test_nothing_is_waited_for_where_nothing_is_left() -> None:
    containers = MemoryContainers()
    assert await end_containers(containers, OURS) == 0
    assert containers.calls == []


def program(tmp_path: Path, script: str) -> ContainerProgram:
    path = tmp_path / "docker"
    path.write_text(f"#!{sys.executable} -I\nimport sys, time\n{script}\n")
    path.chmod(0o755)
    return ContainerProgram((str(path), "--own"), os.environ)


@pytest.mark.system
async def test_a_program_that_is_missing_or_broken(tmp_path: Path) -> None:
    with pytest.raises(EngineMissingError, match="nodocker is not installed"):
        await ContainerProgram(("nodocker",), os.environ).find(OURS)
    broken = program(tmp_path, "sys.exit('Cannot connect to the Docker daemon')")
    with pytest.raises(EngineMissingError, match="ps` failed: Cannot connect to the Docker daemon"):
        await broken.find(OURS)


@pytest.mark.system
async def test_a_program_that_does_not_answer_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.launch.containers.program._SECONDS", 3.0)
    pid = tmp_path / "pid"
    hangs = program(tmp_path, f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(60)")
    with pytest.raises(EngineMissingError, match=r"no answer within 3 s"):
        await hangs.remove("x")
    assert start_time(int(pid.read_text())) is None


@pytest.mark.system
async def test_one_that_is_gone_is_removed_already(tmp_path: Path) -> None:
    gone = program(tmp_path, "sys.exit('Error: No such container: x')")
    await gone.remove("x")
    await gone.stop("x", 1)
