"""A server that answers and cannot load what is missing is not well, and is not said to be."""

from collections.abc import Mapping
from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.fleet.agent.loop import Agent
from garrison.fleet.hooks.queues import Hooks
from garrison.fleet.report.inspect import Drifts, find_drifts, status_of
from garrison.fleet.report.inventory import take_stock
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration, Hook
from garrison.fleet.values.failure import Failure
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import Event

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def declared(world: World) -> Declaration:
    return world.declaration(adapter(), adapter("chat"), on_drift="restore")


def came_back_without_routes(world: World) -> None:
    world.edge.down = None
    world.edge.lora_routes = False
    world.edge.restart()


async def drifts(world: World) -> Drifts:
    return await find_drifts(world.fleet, world.view, stack=None)


async def test_drift_names_the_cause(world: World, declared: Declaration) -> None:
    await world.apply(declared)
    came_back_without_routes(world)
    found = await drifts(world)
    assert (found.found, found.checked) == ((), 0)
    assert found.unknown == {"edge-1": "no-lora-routes: cannot load adapters at run time, and does not serve chat, sql"}


async def test_what_is_still_served_is_compared(world: World, declared: Declaration) -> None:
    await world.apply(declared)
    world.edge.static["sql"] = "/models/sql"
    came_back_without_routes(world)
    found = await drifts(world)
    assert (found.checked, list(found.unknown)) == (1, ["edge-1"])
    world.edge.served["chat"] = "/models/chat"
    found = await drifts(world)
    assert (found.checked, found.unknown) == (2, {})


@pytest.mark.parametrize("outage", [True, False])
async def test_the_agent_tells_and_does_not_end_well(world: World, declared: Declaration, outage: bool) -> None:
    await world.apply(declared)
    if outage:
        world.edge.down = DOWN
        await world.agent_pass()
    came_back_without_routes(world)
    agent = await world.agent_pass()
    assert agent.state.out_of_reach == 1
    told = world.told(events.UNREACHABLE, events.RECOVERED)
    assert [(one.kind, one.cause) for one in told] == [("unreachable", "refused")] * outage + [
        ("unreachable", "no-lora-routes")
    ]
    assert "chat, sql" in str((told[-1].after or {})["detail"])
    again = await world.agent_pass()  # told once, and not forgotten
    assert again.state.out_of_reach == 1
    assert world.told(events.UNREACHABLE, events.RECOVERED) == told
    world.edge.lora_routes = True
    world.edge.restart()
    well = await world.agent_pass()
    assert well.state.out_of_reach == 0
    assert [(one.kind, (one.before or {})["cause"]) for one in world.told(events.RECOVERED)] == [
        ("recovered", "no-lora-routes")
    ]
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}


async def test_hooks_hear_of_it(world: World, declared: Declaration) -> None:
    heard: list[Mapping[str, Any]] = []

    class Deliver:
        async def deliver(self, hook: Hook, body: Mapping[str, Any]) -> Failure | None:
            heard.append(body)
            return None

    from dataclasses import replace

    await world.apply(replace(declared, hooks=(Hook(on=("unreachable",), url="http://hooks:1/"),)))
    world.edge.down = DOWN
    await world.agent_pass()
    came_back_without_routes(world)
    world.clock.advance(60)
    hooks = Hooks(Deliver(), clock=world.clock, note=world.view.note, sleep=world.sleep)
    agent = Agent(world.fleet, world.view, hooks=hooks)
    await agent.startup()
    await agent.once()
    await agent.shutdown()
    assert [(one["kind"], one["cause"], one["target"]) for one in heard] == [
        ("unreachable", "no-lora-routes", "edge-1")
    ]


async def test_every_view_names_it(world: World, declared: Declaration) -> None:
    await world.apply(declared)
    came_back_without_routes(world)
    await world.agent_pass()
    for cached in (True, False):
        status = await status_of(world.fleet, world.view, stack=None, cached=cached)
        (target,) = status.targets
        assert (target.state, target.cause, target.well) == ("reachable", "no-lora-routes", False)
        assert {one.state for one in status.stacks[0].adapters} == {"unknown"}
        assert all("no-lora-routes" in one.detail for one in status.stacks[0].adapters)
    stock = take_stock(world.store.stacks(), world.store.targets(), world.store.resources(), world.clock.now())
    assert [one.status.cause for one in stock.targets] == ["no-lora-routes"]
    assert {one.reach.cause for one in stock.adapters} == {"no-lora-routes"}


async def test_status_alone_names_it_without_an_agent(world: World, declared: Declaration) -> None:
    await world.apply(declared)
    came_back_without_routes(world)
    (target,) = (await status_of(world.fleet, world.view, stack=None, cached=False)).targets
    assert (target.cause, target.well) == ("no-lora-routes", False)


async def test_what_was_owed_when_it_came_back_counts_too(world: World, declared: Declaration) -> None:
    world.edge.down = DOWN
    await world.apply(declared)
    came_back_without_routes(world)
    agent = await world.agent_pass()
    assert agent.state.out_of_reach == 1
    assert [one.cause for one in world.told(events.UNREACHABLE)][-1] == "no-lora-routes"
    assert list((await drifts(world)).unknown) == ["edge-1"]


async def test_a_target_out_of_reach_with_nothing_loaded_yet_is_unknown(world: World, declared: Declaration) -> None:
    world.edge.down = DOWN
    await world.apply(declared)
    assert (await drifts(world)).unknown == {"edge-1": "refused: connection refused"}
    world.edge.down = None
    await world.agent_pass()
    assert (await drifts(world)).unknown == {}


async def test_a_server_without_routes_that_serves_all_of_it_is_well(world: World) -> None:
    world.edge.static["sql"] = "/models/sql"
    world.edge.served["sql"] = "/models/sql"
    world.edge.lora_routes = False
    await world.apply(world.declaration(adapter()))
    agent = await world.agent_pass()
    assert agent.state.out_of_reach == 0
    assert not world.told(events.UNREACHABLE)
    assert (await drifts(world)).unknown == {}


async def test_an_apply_in_between_says_neither(world: World, declared: Declaration) -> None:
    await world.apply(declared)
    came_back_without_routes(world)
    await world.agent_pass()
    before: list[Event] = world.told(events.UNREACHABLE, events.RECOVERED)
    await world.apply(declared)
    assert world.told(events.UNREACHABLE, events.RECOVERED) == before


async def test_a_destroyed_stack_that_is_owed_something_counts(world: World, declared: Declaration) -> None:
    await world.apply(declared)
    world.edge.down = DOWN
    await world.destroy()
    assert (await world.agent_pass()).state.out_of_reach == 1
