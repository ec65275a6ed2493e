"""What this machine has, by files that a test wrote and by its own."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.instances.host_memory import read_host
from garrison.instances.live import Live
from garrison.instances.machine import MachineDevices
from garrison.instances.room.values import HOST, Device
from garrison.instances.values.record import Costs, InstanceRecord
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import Condition, State
from garrison.preflight.gpu.gpus import Gpu
from garrison.testing.thread_pool import DirectPool

GIB = 1024**3
NOW = datetime(2026, 11, 1, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(
        "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\nHugePages_Total:   0\n"
    )
    (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    (tmp_path / "sys/fs/cgroup/a/b").mkdir(parents=True)
    return tmp_path


def limit(root: Path, group: str, most: object, used: int, droppable: int = 0) -> None:
    directory = root / "sys/fs/cgroup" / group
    (directory / "memory.max").write_text(f"{most}\n")
    (directory / "memory.current").write_text(f"{used}\n")
    (directory / "memory.stat").write_text(f"anon 1\ninactive_file {droppable}\n")


def test_without_a_limit_the_machine_counts(root: Path) -> None:
    assert read_host(root) == Device(HOST, 8 * GIB, 4 * GIB)


def test_the_narrowest_group_above_counts(root: Path) -> None:
    limit(root, "a/b", "max", 5 * GIB)
    limit(root, "a", 3 * GIB, 2 * GIB + 1, droppable=1)
    assert read_host(root) == Device(HOST, 3 * GIB, GIB)
    limit(root, "a/b", GIB, 2 * GIB)
    assert read_host(root) == Device(HOST, GIB, 0)


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert read_host(tmp_path) is None


def test_this_machine() -> None:
    found = read_host()
    assert found is not None
    assert 0 < found.free <= found.total


def live(engine: str = "vllm", costs: Costs | None = None, **fields: object) -> Live:
    spec = InstanceSpec(name="a", engine=engine, **fields)  # type: ignore[arg-type]
    return Live(InstanceRecord(1, spec, Condition(State.STOPPED, NOW), NOW, NOW, costs=costs or Costs()))


GPUS = [Gpu(0, "GPU-a", "card", 80 * 1024, 70 * 1024), Gpu(1, "GPU-b", "card", 80 * 1024, None)]


async def test_gpus_that_tell_their_memory_are_devices() -> None:
    devices = MachineDevices(DirectPool(), lambda: GPUS)
    assert [one.key for one in await devices.read()] == [HOST, "GPU-a"]
    assert devices.need(live()) == (None, 1)
    assert devices.need(live(options={"tensor-parallel-size": 4, "pipeline_parallel_size": 2})) == (None, 8)
    assert devices.need(live(env={"CUDA_VISIBLE_DEVICES": ""})) == (None, 0)
    assert devices.need(live("sim")) == (None, 0)
    assert devices.need(live("mlx_lm"))[1] == 0
    assert devices.need(live(costs=Costs(memory_bytes={"GPU-a": 7, HOST: 3}))) == (7, 1)
    assert devices.need(live(costs=Costs(memory_bytes={"GPU-a": 7}), memory_bytes=9)) == (9, 1)


async def test_an_engine_that_was_installed_for_cpus_takes_no_gpu() -> None:
    devices = MachineDevices(DirectPool(), lambda: GPUS, lambda _: "cpu")
    await devices.read()
    assert devices.need(live()) == (None, 0)


async def test_a_driver_that_breaks_leaves_what_was_known() -> None:
    def broken() -> list[Gpu]:
        raise InvalidError("the NVIDIA driver is loaded and reports no GPU")

    devices = MachineDevices(DirectPool(), broken)
    assert await devices.read() == ()
