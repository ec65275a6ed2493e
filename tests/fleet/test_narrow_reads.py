"""What is read for a few targets does not grow with the fleet, and what an idle agent writes is little."""

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from fleet_world import BASE, World, adapter
from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.agent.loop import Agent
from garrison.fleet.manifest.address import canonical_url
from garrison.fleet.operations.repair import repair
from garrison.fleet.plan.addresses import server_of, spellings
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.target import TargetSpec
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import ActionState
from garrison.testing.store import MemoryStore
from garrison.testing.targets import MemoryTarget

DOWN = TransportError(TransportCause.REFUSED, "connection refused")
ROWS = {"stacks", "stack", "targets", "resources", "unfinished", "declared", "actions", "unreachable"}


class ReadingStore(MemoryStore):
    """`rows`: how many records, or parts of them, were read since it was cleared. `calls`: by method."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0
        self.calls: list[str] = []
        self._reading = threading.local()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name.startswith("_") or name == "forget_reads" or not callable(found):
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._reading, "inside", False)
            self._reading.inside = True
            try:
                result = found(*args, **kwargs)
            finally:
                self._reading.inside = outer
            if not outer:
                self.calls.append(name)
                if name in ROWS:
                    self.rows += size(result)
            return result

        return call

    def forget_reads(self) -> None:
        self.rows, self.calls = 0, []


def size(found: Any) -> int:
    """Rows, and what is in the declarations among them."""
    if found is None:
        return 0
    if isinstance(found, list):
        return sum(map(size, found))
    if isinstance(found, tuple):
        return sum(map(size, found))
    declaration = getattr(found, "declaration", {})
    return 1 + len(declaration.get("targets", ())) + len(declaration.get("adapters", ()))


def fleet_of(targets: int) -> World:
    made = World(targets=targets)
    made.store = made.fleet.store = ReadingStore()
    return made


def everywhere(world: World, *, on_drift: str = "restore") -> Declaration:
    return world.declaration(
        *(adapter(name, target) for target in world.targets.targets for name in ("sql", "chat")), on_drift=on_drift
    )


async def reads_of_a_repair(targets: int) -> int:
    world = fleet_of(targets)
    await world.apply(everywhere(world))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    world.edge.restart()
    world.store.forget_reads()
    repaired = await repair(world.fleet, "lab", world.view, only={"edge-1"})
    assert repaired is not None
    assert len(repaired.outcomes) == 2
    await agent._follow()
    rows = world.store.rows
    await agent.shutdown()
    world.fleet.close()
    return rows


async def test_a_repair_reads_its_own_target_alone() -> None:
    small, large = await reads_of_a_repair(2), await reads_of_a_repair(40)
    assert small == large


async def reads_of_an_apply(targets: int) -> int:
    world = fleet_of(targets)
    await world.apply(everywhere(world))
    world.targets.targets["single"] = MemoryTarget(base=BASE)
    spec = TargetSpec(name="single", base_url="http://single:8000")
    world.store.forget_reads()
    one = Declaration(stack="small", targets={"single": spec}, adapters=(adapter("sql", "single"),))
    done = await world.apply(one)
    assert len(done.outcomes) == 1
    world.fleet.close()
    return world.store.rows


async def test_an_apply_reads_its_own_targets_alone() -> None:
    small, large = await reads_of_an_apply(2), await reads_of_an_apply(40)
    assert small == large


async def test_an_agent_reads_again_only_what_has_changed() -> None:
    world = fleet_of(30)
    await world.apply(everywhere(world))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    declaration = everywhere(world)
    await world.apply(replace(declaration, adapters=(*declaration.adapters, adapter("more", "edge-7"))))
    before = dict(agent._list.targets)
    world.store.forget_reads()
    await agent._follow()
    assert world.store.rows < 12
    fresh = [name for name, one in agent._list.targets.items() if one is not before.get(name)]
    assert fresh == ["edge-7"]
    assert agent._list.targets["edge-7"].wanted == {"sql", "chat", "more"}
    await agent.shutdown()
    world.fleet.close()


@pytest.fixture
def world() -> Iterator[World]:
    made = fleet_of(3)
    yield made
    made.fleet.close()


async def test_an_agent_follows_a_policy_that_changes(world: World) -> None:
    await world.apply(everywhere(world, on_drift="report"))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    declaration = everywhere(world)
    await world.apply(replace(declaration, policy=replace(declaration.policy, interval=7.0)))
    await agent._follow()
    assert {one.interval for one in agent._list.targets.values()} == {7.0}
    world.edge.restart()
    await agent.once()
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}
    await agent.shutdown()


async def test_an_agent_stops_looking_at_a_target_that_is_not_declared_any_more(world: World) -> None:
    await world.apply(everywhere(world))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    del world.targets.targets["edge-2"]
    await world.apply(everywhere(world))
    await agent._follow()
    assert set(agent._list.targets) == {"edge-1", "edge-2", "edge-3"}, "it is still owed an unload"
    world.fleet.store.forget("edge-2", world.clock.now(), world.told(events.APPLIED)[0])
    await agent._follow()
    assert set(agent._list.targets) == {"edge-1", "edge-3"}
    await world.destroy()
    await agent._follow()
    assert (set(agent._list.targets), agent.state.stacks) == (set(), 0)
    await agent.shutdown()


async def test_commands_that_were_killed_are_looked_for_once_for_all_stacks(world: World) -> None:
    for number in range(12):
        await world.apply(world.declaration(adapter(f"a{number}"), stack=f"stack-{number}"))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    agent._repairs._settle_due = 0.0
    world.store.forget_reads()
    await agent._repairs.settle()
    assert world.store.calls == ["begun"]
    await agent.shutdown()


# --- times


async def look(agent: Agent, world: World, seconds: float) -> None:
    world.clock.advance(seconds)
    agent._looks.all_due()
    await agent.step()
    while agent._looks.busy:
        await asyncio.sleep(0)
    await agent.step()


def last_seen(world: World) -> datetime | None:
    return world.store.targets(["edge-1"])[0].last_seen


async def test_times_of_calm_targets_are_written_once_a_minute(world: World) -> None:
    await world.apply(everywhere(world))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    world.store.forget_reads()
    for _ in range(23):
        await look(agent, world, 5.0)
    assert agent.state.looks >= 3 * 23
    assert 1 <= world.store.calls.count("touch") <= 2
    assert not {"sight", "put", "save_actions"} & set(world.store.calls)
    now = world.clock.now()
    assert now - timedelta(seconds=60) <= last_seen(world) <= now
    await agent.shutdown()
    assert last_seen(world) == now, "what is not written yet is written at the end"


async def test_a_target_that_goes_away_was_last_seen_at_the_last_look(world: World) -> None:
    await world.apply(everywhere(world))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    await look(agent, world, 5.0)
    await look(agent, world, 5.0)
    seen = world.clock.now()
    world.edge.down = DOWN
    await look(agent, world, 5.0)
    record = world.store.targets(["edge-1"])[0]
    assert (record.state, record.last_seen, record.last_checked) == ("unreachable", seen, world.clock.now())
    await agent.shutdown()


async def test_another_process_that_cannot_reach_a_calm_target_is_corrected_at_the_next_look(world: World) -> None:
    await world.apply(everywhere(world))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    await look(agent, world, 5.0)
    record = world.store.targets(["edge-1"])[0]
    world.store.sight([replace(record, state="unreachable", cause="timeout", last_checked=world.clock.now())])
    await look(agent, world, 5.0)
    await look(agent, world, 5.0)
    assert world.store.targets(["edge-1"])[0].state == "reachable"
    await agent.shutdown()


# --- stopping, and pruning


async def test_a_stop_in_the_middle_leaves_the_rest_for_later(world: World) -> None:
    await world.apply(everywhere(world))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    for target in world.targets.targets.values():
        target.restart()
    ends, go_on, save = threading.Event(), threading.Event(), world.store.save_actions

    def save_actions(results: Any) -> None:
        if any(one.action.state is ActionState.DONE for one in results):
            ends.set()
            assert go_on.wait(10)
        save(results)

    world.store.save_actions = save_actions  # type: ignore[method-assign] # one that takes its time
    agent._looks.all_due()
    loop = asyncio.create_task(agent.main_loop())
    async with asyncio.timeout(10):
        while not ends.is_set():
            await asyncio.sleep(0.001)
        agent.request_stop()
        go_on.set()
        await loop
        await agent.shutdown()
    restore = world.store.commands()[0]
    states = {one.state for one in world.store.actions(restore.id)}
    assert states == {ActionState.DONE, ActionState.SKIPPED}
    assert any(len(target.served) < 2 for target in world.targets.targets.values())
    await world.agent_pass()
    assert all(len(target.served) == 2 for target in world.targets.targets.values())


async def test_the_agent_goes_on_while_old_history_is_deleted(world: World) -> None:
    await world.apply(everywhere(world))
    held = threading.Event()

    def prune(_before: datetime) -> int:
        assert held.wait(10)
        return 0

    world.store.prune = prune  # type: ignore[method-assign] # one that takes its time
    agent = Agent(world.fleet, world.view, retention=timedelta(days=1))
    try:
        await agent.startup()
        async with asyncio.timeout(5):
            await agent.once()
        world.edge.restart()
        async with asyncio.timeout(5):
            await agent.once()
        assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}
        await agent.shutdown()
    finally:
        held.set()


# --- addresses


@given(
    st.sampled_from(["http", "https"]),
    st.sampled_from(["edge", "127.0.0.1", "localhost", "[::1]", "[fe80::1]", "10.0.0.2"]),
    st.sampled_from(["", ":80", ":443", ":8000"]),
    st.sampled_from(["", "/a", "/a/b"]),
)
def test_one_server_is_found_under_all_its_spellings(scheme: str, host: str, port: str, path: str) -> None:
    url = canonical_url(f"{scheme}://{host}{port}{path}")
    found = spellings(url)
    assert url in found
    assert {server_of(one) for one in found} == {server_of(url)}
    for other in ("http", "https"):
        same = f"{other}://{host}:{server_of(url).removesuffix(path).rpartition(':')[2]}{path}"
        assert canonical_url(same) in found
