"""Sleep over HTTP, against a simulator in this loop."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import SleepFailedError
from garrison.engines.vllm_control import sleep_control
from garrison.instances.runner import Upstream
from garrison.instances.sleeper import HttpSleeper, may_sleep, open_sleeper, sleep_environment
from garrison.instances.values.spec import InstanceSpec
from garrison.net.client import HttpDialer
from garrison.sim.config import SimConfig
from garrison.sim.faults import Faults
from garrison.sim.simulator import Simulator

SPEC = InstanceSpec(name="a", engine="sim", options={"model": "acme/tiny", "enable-sleep-mode": True})
KEY = "secret-key-of-the-engine"


@asynccontextmanager
async def simulator(**settings: Any) -> AsyncIterator[tuple[Simulator, Upstream]]:
    wanted = {"dev_mode": True, "enable_sleep_mode": True, "enable_lora": True, "runtime_lora": True, **settings}
    config = SimConfig(port=0, model="acme/tiny", api_keys=(KEY,), **wanted)
    async with Simulator(config) as sim:
        yield sim, Upstream(sim.url, KEY, "acme/tiny")


def test_what_may_sleep() -> None:
    assert may_sleep(SPEC)
    assert sleep_environment(SPEC) == {"VLLM_SERVER_DEV_MODE": "1"}
    for other in (
        replace(SPEC, options={"enable_sleep_mode": False}),
        replace(SPEC, options={}),
        replace(SPEC, engine="llama_cpp"),
        replace(SPEC, engine="custom"),
    ):
        assert not may_sleep(other)
        assert sleep_environment(other) == {}


@pytest.mark.parametrize("level", [1, 2])
async def test_there_and_back(level: int, adapter: Callable[..., Path]) -> None:
    async with simulator() as (sim, upstream):
        sleeper = await open_sleeper(SPEC, upstream, HttpDialer())
        assert sleeper is not None
        assert sleeper.version == "0.32.0"
        assert sleeper.levels == {1: "host", 2: "dropped"}
        path = str(adapter("sql"))
        sim.state.engine.load("sql", path, in_place=False)
        assert await sleeper.models() == {"acme/tiny": "", "sql": path}
        before = [await sleeper.answer(name) for name in ("acme/tiny", "sql")]
        assert before[0] != before[1]
        assert await sleeper.asleep() is False
        await sleeper.sleep(level, 5)
        assert await sleeper.asleep() is True
        assert sim.state.engine.sleep_level == level
        assert await sleeper.wake(level, 5) == (1 if level == 2 else 0)
        assert await sleeper.asleep() is False
        assert [await sleeper.answer(name) for name in ("acme/tiny", "sql")] == before
        assert await sleeper.wake(level, 5) >= 0, "a wake of one that is awake is harmless"
        assert await sleeper.answer("nobody") == "status 404"


@pytest.mark.parametrize("version", [None, "0.32.0", "0.33.0", "0.40.1"])
def test_every_sleep_names_its_level_and_mode_in_the_query(version: str | None) -> None:
    control = sleep_control(version, None)
    assert control is not None
    for level in control.levels:
        for call in level.sleep:
            assert call.body is None
            assert call.target == f"/sleep?level={level.level}&mode=wait"


async def test_an_adapter_that_cannot_be_loaded_again_fails_the_wake(adapter: Callable[..., Path]) -> None:
    async with simulator() as (sim, upstream):
        path = adapter("sql")
        sim.state.engine.load("sql", str(path), in_place=False)
        sleeper = await open_sleeper(SPEC, upstream, HttpDialer())
        assert sleeper is not None
        await sleeper.sleep(2, 5)
        (path / "adapter_config.json").unlink()
        with pytest.raises(SleepFailedError, match="adapter sql could not be loaded again"):
            await sleeper.wake(2, 5)


@pytest.mark.parametrize(
    "settings", [{"dev_mode": False}, {"version": "0.15.0"}, {"version": "0.32.0+cpu"}], ids=lambda one: str(one)
)
async def test_one_that_cannot_sleep_is_not_asked_to(settings: dict[str, Any]) -> None:
    async with simulator(**settings) as (_, upstream):
        spec = replace(SPEC, engine="vllm")
        assert await open_sleeper(spec, upstream, HttpDialer()) is None
    assert await open_sleeper(spec, upstream, HttpDialer()) is None, "nor is one that has gone"


async def test_refusals_and_silence() -> None:
    async with simulator(faults=Faults(wake_fails=True, sleep_hangs=True)) as (sim, upstream):
        control = sleep_control(None, None)
        assert control is not None
        sleeper = HttpSleeper(upstream, control, "0.32.0", HttpDialer())
        with pytest.raises(SleepFailedError, match="POST /sleep"):
            await sleeper.sleep(1, 0.2)
        with pytest.raises(SleepFailedError, match="answered 500 to POST /wake_up"):
            await sleeper.wake(1, 5)
        with pytest.raises(SleepFailedError, match="no sleep level 7"):
            await sleeper.sleep(7, 5)
        await sim.stop()
        assert await sleeper.asleep() is None
