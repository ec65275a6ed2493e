"""Repairs of one stack, in batches side by side."""

import asyncio
from typing import Any

import pytest
from fleet_world import World

from garrison.fleet.agent import repair_queue as queue_module
from garrison.fleet.agent.repair_queue import RepairQueue
from garrison.fleet.operations.repair import Repaired


async def test_a_slow_batch_does_not_delay_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """All targets are requested at once, as after an outage of the network."""
    repaired, slow = list[str](), asyncio.Event()

    async def repair(_fleet: Any, _stack: str, _view: Any, *, only: set[str], **_: Any) -> Repaired | None:
        if "edge-000" in only:
            await slow.wait()
        repaired.extend(only)
        return None

    def bug(stack: str, error: BaseException) -> None:
        raise AssertionError(stack) from error

    monkeypatch.setattr(queue_module, "repair", repair)
    queue = RepairQueue(world.fleet, world.view, {}, lambda _stack, _result: None, bug)
    names = [f"edge-{number:03}" for number in range(queue_module._TARGETS * (queue_module._BATCHES - 1))]
    for name in names:
        queue.request("lab", name)
    async with asyncio.timeout(5):
        while len(repaired) < len(names) - queue_module._TARGETS:
            await asyncio.sleep(0.01)
    assert "edge-000" not in repaired
    slow.set()
    async with asyncio.timeout(5):
        while queue.busy:
            await asyncio.sleep(0.01)
    assert sorted(repaired) == names
    await queue.close(5)
