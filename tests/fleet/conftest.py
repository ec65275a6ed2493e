"""Targets for the fleet's tests: simulators that stop with their test."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from garrison.sim.adapters import MemoryAdapters
from garrison.sim.config import SimConfig
from garrison.sim.simulator import Simulator

StartSim = Callable[..., Awaitable[Simulator]]


class EveryAdapter(MemoryAdapters):
    """Every path that starts with `/models/` holds an adapter; its content is its path."""

    def read(self, path: str) -> Any:
        if path not in self.files and path.startswith("/models/"):
            self.put(path, f"weights of {path}")
        return super().read(path)


@pytest.fixture
async def start_sim() -> AsyncIterator[StartSim]:
    """`await start_sim(adapters=…, **SimConfig fields)`: a running vLLM simulator with LoRA routes, on a free port."""
    running: list[Simulator] = []

    async def run(*, adapters: Any = None, sleep: Any = asyncio.sleep, **options: Any) -> Simulator:
        settings = {"port": 0, "model": "acme/tiny", "enable_lora": True, "runtime_lora": True} | options
        sim = Simulator(SimConfig(**settings), adapters=adapters or EveryAdapter(), sleep=sleep)
        await sim.start()
        running.append(sim)
        return sim

    yield run
    for sim in running:
        await sim.stop()
