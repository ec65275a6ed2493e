"""Servers that stop with their test, and delays that take no time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from garrison.sim.adapters import AdapterReader
from garrison.sim.config import SimConfig
from garrison.sim.simulator import Simulator


@dataclass
class Sleeps:
    """Stands in for simulated delays: notes them and lets no time pass."""

    seconds: list[float]

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps([])


Start = Callable[..., Awaitable[Simulator]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    running: list[Simulator] = []

    async def run(*, adapters: AdapterReader | None = None, sleep: Any = asyncio.sleep, **options: Any) -> Simulator:
        settings = {"port": 0, "model": "acme/tiny", "enable_lora": True, "runtime_lora": True} | options
        sim = Simulator(SimConfig(**settings), adapters=adapters, sleep=sleep)
        await sim.start()
        running.append(sim)
        return sim

    yield run
    for sim in running:
        await sim.stop()
