"""Entries of the adapter store that must not be loaded from again: told in every view, and replaced."""

from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.observe.entry_faults import entry_faults
from garrison.fleet.report.inspect import find_drifts, status_of
from garrison.fleet.values import events
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.plan import ActionKind, Way
from garrison.store.records import Operation


@pytest.fixture
async def world() -> World:
    """`sql` is served from the store."""
    made = World()
    made.artifacts.default_store = "/store"
    made.artifacts.digests["/models/sql"] = "a" * 64
    await made.apply(made.declaration(adapter()))
    assert made.edge.served["sql"] == ENTRY
    return made


ENTRY = f"/store/{'a' * 64}"


def harmed(world: World, fault: str) -> None:
    """By an edit in place of its source, whose content is back now; or it may still happen."""
    (world.artifacts.spoiled if fault == "changed" else world.artifacts.shared).add(ENTRY)


async def states(world: World) -> list[tuple[str, str]]:
    found = await status_of(world.fleet, world.view, stack=None, cached=False)
    return [(one.state, one.detail) for one in found.stacks[0].adapters]


@pytest.mark.parametrize("fault", ["changed", "shared"])
async def test_an_apply_serves_the_same_content_from_a_new_entry(world: World, fault: str) -> None:
    harmed(world, fault)
    applied = await world.apply(world.declaration(adapter()))
    (outcome,) = applied.outcomes
    assert (applied.exit_code, outcome.action.kind, outcome.action.way) == (0, ActionKind.UPDATE, Way.SWAP)
    assert ENTRY in outcome.action.reason
    assert world.edge.served["sql"] == f"{ENTRY}-2"
    recorded = world.recorded("sql")
    assert recorded is not None
    assert (recorded.served_path, recorded.operation) == (f"{ENTRY}-2", Operation.UPDATED)
    assert (await world.plan(world.declaration(adapter()))).empty
    assert await states(world) == [("served", "")]


@pytest.mark.parametrize("fault", ["changed", "shared"])
@pytest.mark.parametrize("on_drift", ["report", "restore"])
async def test_a_pass_of_the_agent_does_so_whatever_the_policy_is(world: World, fault: str, on_drift: Any) -> None:
    await world.apply(world.declaration(adapter(), on_drift=on_drift))
    harmed(world, fault)
    agent = await world.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (1, 0)
    assert world.edge.served["sql"] == f"{ENTRY}-2"
    again = await world.agent_pass()
    assert (again.state.repaired, again.state.failed) == (0, 0)


async def test_a_changed_entry_is_drift_with_a_hook(world: World) -> None:
    harmed(world, "changed")
    drifts = await find_drifts(world.fleet, world.view, stack=None)
    (one,) = drifts.found
    assert (one.kind, one.words) == ("content", f"its entry in the adapter store, {ENTRY}, {EntryFault.CHANGED}")
    ((state, detail),) = await states(world)
    assert state == "drifted"
    assert "no longer holds what was applied" in detail
    await world.agent_pass()
    assert [(told.name, told.cause) for told in world.told(events.DRIFT)] == [("sql", "content")]
    assert events.DRIFT in events.HOOK_KINDS


async def test_a_hard_linked_entry_is_owed_and_no_drift(world: World) -> None:
    harmed(world, "shared")
    assert (await find_drifts(world.fleet, world.view, stack=None)).found == ()
    ((state, detail),) = await states(world)
    assert state == "owed"
    assert "hard links" in detail
    await world.agent_pass()
    assert world.told(events.DRIFT) == []


@pytest.mark.parametrize("source", ["other content", "gone"])
async def test_a_changed_entry_without_a_source_is_refused(world: World, source: str) -> None:
    """What is served stays, until somebody says what is to be served."""
    harmed(world, "changed")
    world.artifacts.digests["/models/sql"] = "b" * 64
    if source == "gone":
        del world.artifacts.digests["/models/sql"]
    agent = await world.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (0, 1)
    assert world.edge.served["sql"] == ENTRY
    (refused,) = [one for one in (await world.plan(as_applied(world))).actions if one.failure]
    assert refused.failure is not None
    assert ENTRY in refused.failure.message
    assert refused.failure.hint
    ((state, _),) = await states(world)
    assert state == "drifted"


def as_applied(world: World) -> Any:
    """The manifest, for an apply where the source has come to nothing."""
    world.artifacts.digests.pop("/models/sql", None)
    return world.declaration(adapter())


async def test_new_content_at_the_source_is_rolled_out_by_the_next_apply(world: World) -> None:
    harmed(world, "changed")
    world.artifacts.digests["/models/sql"] = "b" * 64
    applied = await world.apply(world.declaration(adapter()))
    assert (applied.exit_code, world.edge.served["sql"]) == (0, f"/store/{'b' * 64}")


async def test_a_hard_linked_entry_stands_in_for_a_source_that_was_replaced(world: World) -> None:
    harmed(world, "shared")
    world.artifacts.digests["/models/sql"] = "b" * 64
    agent = await world.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (1, 0)
    assert world.edge.served["sql"] == f"{ENTRY}-2"


@pytest.mark.parametrize("fault", ["changed", "shared"])
async def test_after_a_restart_nothing_is_loaded_from_it(world: World, fault: str) -> None:
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    harmed(world, fault)
    world.edge.restart()
    agent = await world.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (1, 0)
    assert world.edge.served["sql"] == f"{ENTRY}-2"


async def test_a_broken_source_does_not_keep_an_intact_entry_from_being_loaded(world: World) -> None:
    """The server was restarted while somebody was writing new weights."""
    from garrison.fleet.artifacts.check import being_written

    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.artifacts.digests[ENTRY] = "a" * 64
    world.artifacts.refused["/models/sql"] = being_written("/models/sql")
    world.edge.restart()
    agent = await world.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (1, 0)
    assert world.edge.served["sql"] == ENTRY


async def test_a_broken_source_is_not_what_a_faulty_entry_is_replaced_by(world: World) -> None:
    """Its digest is the one that was applied, and it would be served as garbage all the same."""
    harmed(world, "changed")
    world.artifacts.refused["/models/sql"] = Failure(code=FailureCode.INVALID_REQUEST, message="truncated")
    agent = await world.agent_pass()
    assert (agent.state.repaired, agent.state.failed) == (0, 1)
    assert world.edge.served["sql"] == ENTRY


async def test_broken_files_are_not_staged() -> None:
    made = World()
    made.artifacts.default_store, made.artifacts.digests["/models/sql"] = "/store", "a" * 64
    made.artifacts.refused["/models/sql"] = Failure(code=FailureCode.INVALID_REQUEST, message="truncated")
    applied = await made.apply(made.declaration(adapter()))
    assert applied.exit_code == 30
    assert made.edge.served == {}


async def test_many_entries_are_looked_at_in_parts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else waits for the disk's thread until all are done."""
    calls: list[int] = []
    real = world.artifacts.faults
    monkeypatch.setattr(
        type(world.artifacts), "faults", lambda _self, paths: calls.append(len(paths)) or real(paths), raising=True
    )
    await entry_faults(world.fleet, [f"/store/{number}" for number in range(1000)])
    assert sum(calls) == 1000
    assert max(calls) <= 256
