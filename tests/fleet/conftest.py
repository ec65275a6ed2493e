"""Targets for the fleet's tests: simulators that stop with their test."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
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


@pytest.fixture
def settled() -> Callable[[Path], str]:
    """`settled(adapter)`: its files are an hour old, so that a stamp tells every later write. The path, as text."""

    def age(adapter: Path) -> str:
        for file in adapter.iterdir():
            then = file.stat().st_mtime - 3600
            os.utime(file, (then, then))
        return str(adapter)

    return age
