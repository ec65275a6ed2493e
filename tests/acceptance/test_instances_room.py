"""Room for real engines on this machine: what was estimated against what they take, and a limit that fits one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker

from garrison.base.clock import SystemClock
from garrison.base.settings import Settings
from garrison.engines.environments import in_use
from garrison.instances.engine_runner import EngineRunner
from garrison.instances.machine import MachineDevices
from garrison.instances.manager import InstanceManager
from garrison.instances.room.values import HOST, Limits
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.net.thread_pool import ThreadPool
from garrison.testing.instances import MemoryInstances

Home = Callable[[str], dict[str, str]]
MIB = 1024**2
PORTS = (18700, 18799)
SECONDS = 480.0


@asynccontextmanager
async def server(env: dict[str, str], **rows: Any) -> AsyncIterator[InstanceManager]:
    settings = Settings(data_dir=Path(env["GARRISON_DATA_DIR"]), **rows)
    pool, store = ThreadPool("instances", 8), ThreadPool("store")

    def variant(engine: str) -> str | None:
        found = in_use(settings.data_dir, engine)
        return None if found is None else found.device

    manager = InstanceManager(
        MemoryInstances(),
        EngineRunner(settings, env, ports=PORTS, pool=pool),
        MachineDevices(pool, settings, env, in_use=variant),
        ManagerSettings(limits=Limits(residency=0.5, patience=5.0), start_timeout=SECONDS),
        clock=SystemClock(),
        pool=store,
    )
    await manager.startup()
    try:
        yield manager
    finally:
        await manager.shutdown(stop=True)
        pool.close(5)
        store.close(5)


async def measured(manager: InstanceManager, name: str) -> int:
    """Resident bytes of an engine that is ready and was measured."""
    lease = await manager.acquire(name)
    lease.release()
    async with asyncio.timeout(30):
        while not manager.get(name).record.costs.memory_bytes.get(HOST):
            await asyncio.sleep(0.05)
    engine = manager.get(name).engine
    assert engine is not None
    return engine.memory_bytes()


def spec(engine: str, name: str, model: Path) -> InstanceSpec:
    options: dict[str, Any] = {"model": str(model)}
    if engine == "llama_cpp":
        options |= {"ctx_size": 512}
    if engine == "vllm":
        options |= {"max_model_len": 512, "enforce_eager": True, "dtype": "bfloat16"}
    return InstanceSpec(name=name, engine=engine, options=options)


@pytest.mark.parametrize(
    "engine",
    [
        pytest.param("llama_cpp", marks=pytest.mark.engine("llama_cpp")),
        pytest.param("mlx_lm", marks=pytest.mark.engine("mlx_lm")),
        pytest.param("vllm", marks=pytest.mark.engine("vllm")),
    ],
)
@pytest.mark.timeout(600)
async def test_an_estimate_is_not_below_what_an_engine_takes(
    engine: str, home_with: Home, tmp_path: Path, tiny_model: Path
) -> None:
    model = maker.make_gguf(tmp_path / "tiny.gguf") if engine == "llama_cpp" else tiny_model
    async with server(home_with(engine)) as manager:
        await manager.create(spec(engine, "a", model))
        before = await manager.explain("a")
        assert (before.verdict, before.need.source) == ("fits", "estimated")
        took = await measured(manager, "a")
        print(f"{engine}: estimated {before.need.bytes} bytes, measured {took}")
        assert before.need.bytes is not None
        assert 0 < took <= before.need.bytes


@pytest.mark.engine("llama_cpp")
@pytest.mark.timeout(300)
async def test_a_memory_limit_that_fits_one_of_two_swaps_them(home_with: Home, tmp_path: Path) -> None:
    model = maker.make_gguf(tmp_path / "tiny.gguf")
    async with server(home_with("llama_cpp"), memory_limit=270 * MIB) as manager:
        for name in "ab":
            await manager.create(spec("llama_cpp", name, model))
        await measured(manager, "a")
        found = (await manager.explain("b")).to_json()
        assert (found["verdict"], found["evicts"]) in (("evicts", ["a"]), ("waits", []))
        await measured(manager, "b")
        assert (manager.get("a").state, manager.get("b").state) == (State.STOPPED, State.RUNNING)
        large = InstanceSpec(name="c", engine="llama_cpp", options={"model": str(model), "ctx_size": 10_000_000})
        never = (await manager.evaluate(large)).to_json()
        assert never["verdict"] == "never"
        assert "there are 0.3 GiB for instances" in never["text"]
