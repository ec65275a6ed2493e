"""What the agent knows of a target is what was seen last, whoever saw it and however long a read or a repair takes."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.fleet.agent.loop import Agent
from garrison.fleet.operations.repair import Repaired
from garrison.fleet.operations.survey import survey
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import TargetSpec
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
async def agent(world: World) -> AsyncIterator[Agent]:
    """One that has looked once."""
    await world.apply(world.declaration(adapter()))
    made = Agent(world.fleet, world.view)
    await made.startup()
    world.clock.advance(60)
    await made.once()
    yield made
    await made.shutdown()


async def test_an_outage_during_a_repair_is_told_once(world: World, agent: Agent) -> None:
    """A repair begins with a look of its own, and may load for minutes after that."""
    stack = world.store.stack("lab")
    assert stack is not None
    found = await survey(world.fleet, Declaration.from_json(stack.declaration), world.view, as_applied=True)
    world.edge.down = DOWN
    world.clock.advance(60)
    await agent.once()
    agent._repairs._ended("lab", Repaired(survey=found))
    world.clock.advance(60)
    await agent.once()
    assert len(world.told(events.UNREACHABLE)) == 1


async def test_an_outage_while_the_store_is_read_is_told_once(
    world: World, agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on, declared = threading.Event(), threading.Event(), world.store.declared

    def slow(*args: Any) -> Any:
        begun.set()
        assert go_on.wait(5)
        return declared(*args)

    monkeypatch.setattr(world.store, "declared", slow)
    world.store.put(world.store.resources())
    reading = asyncio.create_task(agent._list.reload())
    assert await asyncio.to_thread(begun.wait, 5)
    world.edge.down = DOWN
    world.clock.advance(60)
    agent._looks.all_due()
    agent._looks.begin_due()
    async with asyncio.timeout(5):
        while agent._looks.busy:
            await asyncio.sleep(0)
        go_on.set()
        await reading
    assert agent._list.away == {"edge-1"}
    world.clock.advance(60)
    await agent.once()
    assert len(world.told(events.UNREACHABLE)) == 1


async def test_what_another_process_saw_later_counts(world: World, agent: Agent) -> None:
    world.edge.down = DOWN
    world.clock.advance(60)
    await world.plan(world.declaration(adapter()))
    await world.apply(world.declaration(adapter(), adapter("chat")))
    assert len(world.told(events.UNREACHABLE)) == 1
    world.clock.advance(60)
    await agent.once()
    assert len(world.told(events.UNREACHABLE)) == 1


@pytest.mark.parametrize("followed", [False, True], ids=["before the agent hears of it", "after"])
async def test_a_look_at_the_old_address_of_a_target_that_is_moved_meanwhile(
    world: World, agent: Agent, followed: bool
) -> None:
    """The usual reason to move a target is that its server is dead, so there is nearly always a look in progress."""
    timed_out, open_it = asyncio.Event(), world.targets.open

    @contextlib.asynccontextmanager
    async def open_new(target: TargetSpec) -> AsyncIterator[Any]:
        if target.base_url == "http://edge-1:8000":
            await timed_out.wait()
            raise TransportError(TransportCause.TIMEOUT, "no answer")
        async with open_it(target) as connection:
            yield connection

    world.targets.open = open_new  # type: ignore[method-assign]  # the test's own
    world.clock.advance(60)
    agent._looks.all_due()
    agent._looks.begin_due()
    await asyncio.sleep(0)
    world.edge.base = "other/base"
    world.edge.restart()
    there = TargetSpec(name="edge-1", base_url="http://elsewhere:8000")
    await world.apply(replace(world.declaration(adapter()), targets={"edge-1": there}))
    if followed:
        await agent._follow()
    timed_out.set()
    async with asyncio.timeout(5):
        while agent._looks.busy:
            await asyncio.sleep(0)
    for _ in range(2):
        world.clock.advance(60)
        await agent.once()
    (record,) = world.store.targets()
    assert (record.state, record.cause, record.base) == ("reachable", None, "other/base")
    assert not world.told(events.UNREACHABLE, events.RECOVERED)
