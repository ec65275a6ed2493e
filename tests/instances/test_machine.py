"""What this machine has, by files that a test wrote and by its own."""

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from garrison.base.settings import Settings
from garrison.instances.host_memory import read_host
from garrison.instances.live import Live
from garrison.instances.machine import MachineDevices
from garrison.instances.memory_reader import Reading
from garrison.instances.room.values import HOST, Device, Need
from garrison.instances.values.record import Costs, InstanceRecord
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import Condition, State
from garrison.net.thread_pool import ThreadPool
from garrison.testing.memory_reader import MemoryReadings
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import VirtualLoop

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
    spec = InstanceSpec(name="a", engine=engine, **fields)  # type: ignore[arg-type]  # fields by name
    return Live(InstanceRecord(1, spec, Condition(State.STOPPED, NOW), NOW, NOW, costs=costs or Costs()))


GPUS = (Device("GPU-a", 80 * GIB, 70 * GIB, index=0), Device("GPU-b", 80 * GIB, 80 * GIB, index=1))
READING = Reading(GPUS, {"GPU-a": {7: 3 * GIB, 8: GIB}}, "CUDA_VISIBLE_DEVICES")
HOST_MEMORY = Device(HOST, 64 * GIB, 48 * GIB)


def machine(
    tmp_path: Path, *gpus: Reading | None, device: str | None = None, environ: dict[str, str] | None = None, **rows: Any
) -> MachineDevices:
    settings = Settings(data_dir=tmp_path / "data", models_dir=tmp_path / "models", **rows)
    return MachineDevices(
        DirectPool(), settings, environ or {}, in_use=lambda _: device,
        gpus=[MemoryReadings(*(gpus or (READING,)))], host=[MemoryReadings([HOST_MEMORY])],
    )  # fmt: skip


async def look(devices: MachineDevices, one: Live) -> Need:
    await devices.look_up(one)
    return devices.need(one)


async def test_the_needs_of_instances(tmp_path: Path, tiny_model: Path) -> None:
    devices = machine(tmp_path)
    assert [one.key for one in await devices.read()] == [HOST, "GPU-a", "GPU-b"]

    async def need(one: Live) -> tuple[int | None, int, str]:
        found = await look(devices, one)
        return found.bytes, found.count, found.source

    assert await need(live()) == (None, 1, "default")
    assert (await need(live(options={"tensor-parallel-size": 4, "pipeline_parallel_size": 2})))[1] == 8
    assert (await need(live(env={"CUDA_VISIBLE_DEVICES": ""})))[1] == 0
    assert await need(live("sim", options={"model": str(tiny_model)})) == (None, 0, "unknown")
    assert (await need(live("mlx_lm")))[1] == 0
    assert await need(live("llama_cpp", Costs(memory_bytes={"GPU-a": 7, HOST: 3}))) == (7, 1, "measured")
    assert await need(live(costs=Costs(memory_bytes={"GPU-a": 7}), memory_bytes=9)) == (9, 1, "declared")
    assert await need(live("custom")) == (None, 0, "unknown")
    assert (await need(live("custom", devices=("0", "1"))))[1] == 2


async def test_a_model_on_disk_is_estimated_and_what_is_told_changes_with_the_spec(
    tmp_path: Path, tiny_model: Path
) -> None:
    devices = machine(tmp_path)
    one = live(options={"model": str(tiny_model)})
    found = await look(devices, one)
    assert found.source == "estimated"
    assert [part.what for part in found.parts] == ["weights", "KV cache of 32768 tokens", "overhead"]
    weights = sum(path.stat().st_size for path in tiny_model.glob("*.safetensors"))
    assert found.parts[0].bytes == weights
    # Two layers, two heads of 32 numbers for keys and for values, two bytes each.
    assert found.parts[1].bytes == 32768 * 2 * 2 * 2 * 32 * 2
    granted = devices.grant(one, found, ("GPU-b",))
    assert granted.args == ("--gpu-memory-utilization", "0.04")
    assert granted.env == {"CUDA_VISIBLE_DEVICES": "GPU-b"}
    assert granted.held == {"GPU-b": 4 * 80 * GIB // 100 + 1, HOST: 3 * GIB}
    changed = live(options={"model": str(tiny_model), "gpu_memory_utilization": 0.25})
    found = await look(devices, changed)
    assert (found.share, found.source) == (0.25, "declared")
    assert devices.grant(changed, found, ("GPU-a",)).args == ()
    assert devices.grant(changed, found, ("GPU-a",)).held == {"GPU-a": 20 * GIB, HOST: 3 * GIB}


async def test_arguments_and_variables_of_the_backend_count_and_those_of_the_instance_win(
    tmp_path: Path, tiny_model: Path
) -> None:
    rows = {"vllm_args": ("--max-model-len", "100000"), "vllm_env": (("VLLM_CPU_KVCACHE_SPACE", "7"),)}
    devices = machine(tmp_path, device="cpu", **rows)
    found = await look(devices, live(options={"model": str(tiny_model)}))
    assert found.count == 0
    assert {part.what: part.bytes for part in found.parts}["KV cache of 100000 tokens"] == 7 * GIB
    own = live(options={"model": str(tiny_model), "max_model_len": 512}, env={"VLLM_CPU_KVCACHE_SPACE": "2"})
    assert {part.what: part.bytes for part in (await look(devices, own)).parts}["KV cache of 512 tokens"] == 2 * GIB


def test_a_model_that_comes_later_is_seen(tmp_path: Path, tiny_model: Path) -> None:
    async def body() -> None:
        devices = machine(tmp_path, device="cpu")
        one = live("mlx_lm", options={"model": "tiny"})
        assert (await look(devices, one)).source == "unknown"
        shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
        assert (await look(devices, one)).source == "unknown", "the disk is not read for each look"
        await asyncio.sleep(11)
        assert (await look(devices, one)).source == "estimated"

    on_a_virtual_clock(body)


async def test_what_the_server_may_see_bounds_what_an_instance_may_use(tmp_path: Path) -> None:
    devices = machine(tmp_path, environ={"CUDA_VISIBLE_DEVICES": "1"})
    assert (await look(devices, live())).devices == ("GPU-b",)
    assert (await look(devices, live(devices=("0",)))).devices == ("GPU-a",)


async def test_a_driver_that_breaks_leaves_what_was_known(tmp_path: Path) -> None:
    devices = MachineDevices(
        DirectPool(), Settings(data_dir=tmp_path), {}, gpus=[MemoryReadings(None)], host=[MemoryReadings(None)]
    )
    assert await devices.read() == ()


async def test_a_driver_that_hangs_holds_one_thread(tmp_path: Path) -> None:
    class Hanging(MemoryReadings):
        def read(self) -> Reading:
            self.reads += 1
            release.wait(20)
            return READING

    release, hanging = threading.Event(), Hanging(READING)
    pool = ThreadPool("devices", 4)
    devices = MachineDevices(pool, Settings(data_dir=tmp_path), {}, gpus=[hanging], host=[MemoryReadings([])])
    looks = [asyncio.create_task(devices.read()) for _ in range(20)]
    await asyncio.sleep(0.1)
    assert hanging.reads == 1
    release.set()
    assert {tuple(found) for found in await asyncio.gather(*looks)} == {GPUS}
    pool.close(5)


async def test_the_limit_of_all_instances_is_the_memory_of_the_machine(tmp_path: Path) -> None:
    devices = machine(tmp_path, memory_limit=16 * GIB)
    assert (await devices.read())[0] == Device(HOST, 16 * GIB, 16 * GIB)
    devices = machine(tmp_path, memory_limit=60 * GIB)
    assert (await devices.read())[0] == Device(HOST, 60 * GIB, 48 * GIB)


class Engine:
    def __init__(self, resident: int = 0, pids: frozenset[int] = frozenset()) -> None:
        self.resident, self._pids = resident, pids

    def memory_bytes(self) -> int:
        return self.resident

    def pids(self) -> frozenset[int]:
        return self._pids


async def test_what_is_measured(tmp_path: Path) -> None:
    devices = machine(tmp_path)

    async def measured(one: Live, held: dict[str, int], engine: Engine) -> Mapping[str, int]:
        one.held, one.engine = held, engine  # type: ignore[assignment]  # what the test needs of it
        return await devices.measure(one)

    own = Engine(GIB, frozenset({7, 99}))
    assert await measured(live(), {"GPU-a": 9 * GIB, HOST: 2 * GIB}, own) == {"GPU-a": 3 * GIB, HOST: 2 * GIB}
    assert await measured(live(), {"GPU-a": 9 * GIB}, Engine(GIB, frozenset({1}))) == {}, "the driver does not tell"
    assert await measured(live("llama_cpp"), {HOST: 4 * GIB}, own) == {HOST: GIB}
    assert await measured(live("mlx_lm"), {HOST: 4 * GIB}, own) == {HOST: 4 * GIB}, "its weights are not loaded yet"
    assert await measured(live("llama_cpp", memory_bytes=2 * GIB), {HOST: 2 * GIB}, own) == {HOST: 2 * GIB}
    assert await devices.measure(live()) == {}


def on_a_virtual_clock(body: Callable[[], Awaitable[None]]) -> float:
    async def whole() -> float:
        await body()
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(whole())


def used(free: int) -> Reading:
    return Reading((Device("GPU-a", 80 * GIB, free * GIB, index=0),))


@pytest.mark.parametrize(
    ("readings", "seconds"),
    [
        ([used(20), used(20), used(30), used(50)], 0.5),  # before, at once, and two looks later
        ([used(20), used(49)], 5.0),  # never three quarters of forty
        ([used(20), used(80)], 0.0),
    ],
)
def test_a_stop_ends_when_the_memory_is_back(tmp_path: Path, readings: list[Reading], seconds: float) -> None:
    async def body() -> None:
        devices = machine(tmp_path, *readings)
        one = live()
        one.held = {"GPU-a": 40 * GIB, HOST: GIB}
        async with devices.released(one):
            pass

    assert on_a_virtual_clock(body) == pytest.approx(seconds)


def test_system_memory_is_not_waited_for(tmp_path: Path) -> None:
    async def body() -> None:
        devices = machine(tmp_path, used(20))
        one = live()
        one.held = {HOST: 40 * GIB}
        async with devices.released(one):
            pass

    assert on_a_virtual_clock(body) == 0.0
