"""Versions of an adapter side by side, and adapters on demand: what is done at the target, and in which order."""

from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.base.errors import ConflictError
from garrison.fleet.context import Fleet
from garrison.fleet.operations.repair import repair
from garrison.fleet.report.inventory import take_stock
from garrison.fleet.values import events
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, versioned_name
from garrison.fleet.values.demand import Place
from garrison.fleet.values.plan import ActionKind, Way
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import SilentView
from garrison.store.records import Operation
from garrison.testing.adapter_traffic import MemoryTraffic
from garrison.testing.targets import MemoryFault, refusal

ONE, TWO, THREE = ("1" * 64, "2" * 64, "3" * 64)
V1, V2, V3 = (versioned_name("sql", digest) for digest in (ONE, TWO, THREE))
PATH = "/models/sql"


class Stage(World):
    """One target with an adapter store, and a gateway in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.traffic = MemoryTraffic()
        self.fleet: Fleet = self.fleet
        self.fleet.traffic = self.traffic
        self.artifacts.default_store = "/store"
        self.artifacts.digests[PATH] = ONE

    def wanted(self, *more: AdapterDeclaration, slots: int | None = None, **changes: Any) -> Declaration:
        spec = TargetSpec(name="edge-1", base_url="http://edge-1:8000", adapter_slots=slots)
        first = adapter(**({"versioned": True} | changes))
        return Declaration(stack="lab", targets={"edge-1": spec}, adapters=(first, *more))

    def sent(self) -> list[tuple[str, str]]:
        """Loads and unloads, in order; forgotten afterwards."""
        short = {"/v1/load_lora_adapter": "load", "/v1/unload_lora_adapter": "unload"}
        found = [
            (short[one.path], one.json["lora_name"]) for one in self.targets.requests if one.json and one.path in short
        ]
        self.targets.requests.clear()
        return found

    async def repair(self) -> None:
        await repair(self.fleet, "lab", SilentView())

    def names(self) -> list[str]:
        rows = take_stock(self.store.stacks(), self.store.targets(), self.store.resources(), self.clock.now()).adapters
        return [f"{one.name}: {one.status}" for one in rows]


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_a_version_is_loaded_beside_the_one_before(stage: Stage) -> None:
    await stage.apply(stage.wanted())
    assert stage.sent() == [("load", V1)]
    stage.artifacts.digests[PATH] = TWO
    planned = (await stage.plan(stage.wanted())).actions
    assert [(one.kind, one.way, one.name) for one in planned] == [(ActionKind.UPDATE, Way.LOAD_THEN_UNLOAD, V2)]
    await stage.apply(stage.wanted())
    assert stage.sent() == [("load", V2), ("unload", V1)]
    assert stage.edge.served == {V2: f"/store/{TWO}"}
    assert stage.traffic.kept_away == [("edge-1", V1)], "requests were told to go elsewhere before it went"
    assert stage.names() == ["sql: served"]
    assert (await stage.plan(stage.wanted())).empty


async def test_the_record_says_so_before_the_old_one_is_left(stage: Stage) -> None:
    """A gateway follows the record: it must have the new version when requests are kept away from the old one."""
    await stage.apply(stage.wanted())
    stage.artifacts.digests[PATH] = TWO
    seen: list[set[str]] = []
    stage.traffic.tell = lambda: seen.append({one.key.name for one in stage.store.resources()})
    await stage.apply(stage.wanted())
    assert seen[0] == {V1, V2}


@pytest.mark.parametrize("slots", [None, 1], ids=["beside it", "in its place"])
async def test_requests_stay_away_until_the_end_is_on_record(stage: Stage, slots: int | None) -> None:
    """A gateway follows the record: it would send them to what has just been unloaded."""
    await stage.apply(stage.wanted(slots=slots))
    stage.artifacts.digests[PATH] = TWO
    seen: list[tuple[set[Place], set[str]]] = []

    def look() -> None:
        serving = {one.key.name for one in stage.store.resources() if one.operation.serves}
        seen.append((set(stage.traffic.away), serving))

    stage.traffic.tell = look
    await stage.apply(stage.wanted(slots=slots))
    assert seen[0][0] == {("edge-1", V1)}
    assert seen[-1] == (set(), {V2})


async def test_one_that_is_in_use_stays_until_its_last_request_has_ended(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.fleet.execute.procedures._LAST_REQUEST_SECONDS", 0.0)
    await stage.apply(stage.wanted())
    stage.artifacts.digests[PATH] = TWO
    stage.traffic.running["edge-1", V1] = 1
    applied = await stage.apply(stage.wanted())
    assert applied.exit_code == 0
    assert set(stage.edge.served) == {V1, V2}
    assert stage.names() == ["sql: served"], "one adapter, whatever is left of the one before"
    stage.sent()
    await stage.repair()
    assert stage.sent() == [], "it is in use"
    stage.traffic.running.clear()
    await stage.repair()
    assert stage.sent() == [("unload", V1)]
    assert stage.told(events.DRIFT) == []


async def test_a_request_that_comes_before_the_unload_keeps_it(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the plan was made from may be a moment old."""
    monkeypatch.setattr("garrison.fleet.execute.procedures._LAST_REQUEST_SECONDS", 0.0)
    await stage.apply(stage.wanted())
    stage.artifacts.digests[PATH] = TWO
    stage.traffic.running["edge-1", V1] = 1
    await stage.apply(stage.wanted())
    stage.traffic.running.clear()
    stage.traffic.tell = lambda: stage.traffic.running.update({("edge-1", V1): 1})
    await stage.repair()
    assert set(stage.edge.served) == {V1, V2}
    assert stage.recorded(V1) is not None, "it is still known"


async def test_a_version_that_does_not_answer_changes_nothing(stage: Stage) -> None:
    await stage.apply(stage.wanted())
    stage.sent()
    stage.artifacts.digests[PATH] = TWO
    stage.edge.broken[f"/store/{TWO}"] = refusal(500, "InternalServerError", "LoRA rank 64 is greater than 16")
    applied = await stage.apply(stage.wanted())
    assert len(applied.failed) == 1
    assert stage.sent() == [("load", V2)]
    assert stage.edge.served == {V1: f"/store/{ONE}"}
    stage.edge.broken.clear()
    stage.edge.faults.append(MemoryFault("/v1/completions", refusal(500, "InternalServerError", "no"), times=1))
    await stage.apply(stage.wanted(probe=True))
    assert stage.sent() == [("load", V2), ("unload", V2)], "it was loaded, did not answer, and is gone again"
    assert stage.edge.served == {V1: f"/store/{ONE}"}


async def test_the_old_version_answers_where_somebody_else_has_the_name_of_the_new_one(stage: Stage) -> None:
    await stage.apply(stage.wanted())
    stage.artifacts.digests[PATH] = TWO
    stage.edge.served[V2] = "/theirs"
    stage.sent()
    with pytest.raises(ConflictError):
        await stage.apply(stage.wanted())
    kept = {one.name: one.kind for one in (await stage.plan(stage.wanted())).actions}
    assert kept == {V1: ActionKind.KEEP, V2: ActionKind.BLOCKED}
    assert stage.sent() == []


async def test_back_to_the_version_before_while_it_is_still_loaded(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.fleet.execute.procedures._LAST_REQUEST_SECONDS", 0.0)
    await stage.apply(stage.wanted())
    stage.artifacts.digests[PATH] = TWO
    stage.traffic.running["edge-1", V1] = 1
    await stage.apply(stage.wanted())
    stage.artifacts.digests[PATH] = ONE
    stage.traffic.running.clear()
    stage.sent()
    await stage.apply(stage.wanted())
    assert stage.sent() == [("unload", V2)]
    assert set(stage.edge.served) == {V1}


async def test_a_patch_updates_too(stage: Stage) -> None:
    await stage.apply(stage.wanted())
    stage.artifacts.digests[PATH] = TWO
    await stage.apply(stage.wanted(), mode="patch")
    assert set(stage.edge.served) == {V2}


async def test_a_target_without_a_free_slot_is_updated_in_place(stage: Stage) -> None:
    await stage.apply(stage.wanted(slots=1))
    stage.artifacts.digests[PATH] = TWO
    (action,) = (await stage.plan(stage.wanted(slots=1))).actions
    assert action.way is Way.SWAP
    assert "no room" in action.way_reason
    stage.sent()
    await stage.apply(stage.wanted(slots=1))
    assert stage.sent() == [("unload", V1), ("load", V2)]
    assert stage.traffic.kept_away == [("edge-1", V1)]
    assert {one.key.name: one.operation for one in stage.store.resources()} == {V2: Operation.UPDATED}


async def test_in_place_the_old_version_is_put_back(stage: Stage) -> None:
    await stage.apply(stage.wanted(slots=1))
    stage.artifacts.digests[PATH] = TWO
    stage.edge.broken[f"/store/{TWO}"] = refusal(500, "InternalServerError", "LoRA rank 64 is greater than 16")
    stage.sent()
    await stage.apply(stage.wanted(slots=1))
    assert stage.sent() == [("unload", V1), ("load", V2), ("load", V1)]
    assert stage.edge.served == {V1: f"/store/{ONE}"}


async def test_from_in_place_to_versioned_and_back(stage: Stage) -> None:
    await stage.apply(stage.wanted(versioned=False))
    assert stage.sent() == [("load", "sql")]
    await stage.apply(stage.wanted())
    assert stage.sent() == [("load", V1), ("unload", "sql")]
    await stage.apply(stage.wanted(versioned=False))
    assert stage.sent() == [("load", "sql"), ("unload", V1)]


async def test_a_source_that_can_no_longer_be_read_is_no_other_version(stage: Stage) -> None:
    await stage.apply(stage.wanted())
    del stage.artifacts.digests[PATH]
    assert (await stage.plan(stage.wanted())).empty


async def test_one_that_is_not_declared_any_more_goes_although_it_is_in_use(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.fleet.execute.procedures._LAST_REQUEST_SECONDS", 0.0)
    await stage.apply(stage.wanted())
    stage.traffic.running["edge-1", V1] = 1
    await stage.destroy()
    assert stage.edge.served == {}
    assert stage.store.stacks() == []


# --- on demand


def demanded(name: str = "sql", **changes: Any) -> AdapterDeclaration:
    return adapter(name, on_demand=True, **changes)


async def test_an_adapter_on_demand_is_loaded_when_it_is_asked_for(stage: Stage) -> None:
    declared = stage.wanted(versioned=False, on_demand=True)
    assert (await stage.apply(declared)).exit_code == 0
    await stage.repair()
    assert stage.sent() == []
    assert stage.names() == ["sql: on-demand"]
    stage.traffic.wanted.add(("edge-1", "sql"))
    await stage.repair()
    assert stage.sent() == [("load", "sql")]
    stage.traffic.wanted.clear()
    await stage.repair()
    assert stage.sent() == []
    assert stage.names() == ["sql: served"]


async def test_what_a_restart_took_is_not_drift_and_not_loaded_again(stage: Stage) -> None:
    declared = stage.wanted(versioned=False, on_demand=True)
    await stage.apply(declared)
    stage.traffic.wanted.add(("edge-1", "sql"))
    await stage.repair()
    stage.traffic.wanted.clear()
    stage.edge.restart()
    stage.sent()
    await stage.repair()
    assert stage.sent() == []
    assert stage.told(events.DRIFT) == []
    assert stage.recorded("sql") is None
    assert stage.names() == ["sql: on-demand"]


async def test_one_makes_room_unless_it_is_in_use(stage: Stage) -> None:
    await stage.apply(stage.wanted(versioned=False, on_demand=True))
    stage.traffic.wanted.add(("edge-1", "sql"))
    await stage.repair()
    stage.traffic.wanted.clear()
    stage.sent()
    stage.traffic.unwanted.add(("edge-1", "sql"))
    stage.traffic.running["edge-1", "sql"] = 1
    await stage.repair()
    assert stage.sent() == []
    stage.traffic.running.clear()
    serving: list[bool] = []
    stage.traffic.tell = lambda: serving.append(any(one.operation.serves for one in stage.store.resources()))
    await stage.repair()
    assert stage.sent() == [("unload", "sql")]
    assert stage.names() == ["sql: on-demand"]
    assert serving == [True, False], "requests came back when the record said that it is gone"


async def test_a_loaded_one_on_demand_is_updated_and_another_is_not(stage: Stage) -> None:
    await stage.apply(stage.wanted(on_demand=True))
    stage.artifacts.digests[PATH] = TWO
    await stage.apply(stage.wanted(on_demand=True))
    assert stage.sent() == []
    stage.traffic.wanted.add(("edge-1", "sql"))
    await stage.repair()
    assert stage.sent() == [("load", V2)]
    stage.artifacts.digests[PATH] = THREE
    await stage.apply(stage.wanted(on_demand=True))
    assert stage.sent() == [("load", V3), ("unload", V2)]
