from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fleet_world import adapter

from garrison.fleet.plan.declared import _unseen
from garrison.fleet.report.fleet_status import fleet_status
from garrison.fleet.report.last_failure import LastFailure
from garrison.fleet.report.status import AdapterStatus, CutShort
from garrison.fleet.values.declaration import ADAPTER_TYPE, Declaration, Policy
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Capabilities, Cause, Served, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Tls
from garrison.store.records import (
    CommandRecord,
    Holder,
    Key,
    Lease,
    Operation,
    Resource,
    StackRecord,
    TargetRecord,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EDGE = TargetSpec(name="edge-1", base_url="https://edge-1:8000", tls=Tls(insecure=True))
RECORD = TargetRecord(name="edge-1", spec=EDGE.to_json(), declared_at=NOW, state="reachable", last_seen=NOW)


def stack(*adapters: Any, on_drift: Any = "report", **changes: Any) -> StackRecord:
    policy = Policy(on_drift=on_drift)
    declared = Declaration(stack="lab", targets={"edge-1": EDGE}, adapters=adapters, policy=policy)
    return replace(StackRecord(name="lab", declaration=declared.to_json(), at=NOW, version=3), **changes)


def recorded(operation: Operation = Operation.CREATED, **spec: Any) -> Resource:
    return Resource(
        key=Key("edge-1", ADAPTER_TYPE, "sql"), stack="lab", label="sql", operation=operation,
        spec=adapter(**spec).to_json(), served_path="/models/sql", parent="acme/tiny", at=NOW, cause="restarted",
    )  # fmt: skip


def seen(*adapters: Served, **changes: Any) -> Sighting:
    served = {one.name: one for one in (Served("acme/tiny", "acme/tiny"), *adapters)}
    return replace(Sighting(target="edge-1", at=NOW, served=served, base="acme/tiny"), **changes)


def states(declared: StackRecord, resources: list[Resource], look: Sighting) -> list[AdapterStatus]:
    status = fleet_status([declared], [RECORD], resources, {"edge-1": look}, now=NOW)
    return list(status.stacks[0].adapters)


SERVED = Served("sql", "/models/sql", "acme/tiny")
AWAY = Sighting(target="edge-1", at=NOW, cause=Cause.REFUSED, detail="refused")
NO_ROUTES = Capabilities(lora_routes=False)
JUDGED = {
    "as applied": (stack(adapter()), [recorded()], seen(SERVED), "served", ""),
    "unloaded": (stack(adapter()), [recorded()], seen(), "missing", "no longer served"),
    "a tombstone": (stack(adapter()), [recorded(Operation.LOST)], seen(), "missing", "(restarted)"),
    "loaded again by somebody": (stack(adapter()), [recorded(Operation.LOST)], seen(SERVED), "served", ""),
    "another path": (stack(adapter()), [recorded()], seen(replace(SERVED, root="/x")), "drifted", "served from /x"),
    "another base": (stack(adapter()), [recorded()], seen(replace(SERVED, parent="b")), "drifted", "attached to b"),
    "never loaded": (stack(adapter()), [], seen(), "owed", "not loaded yet"),
    "not unloaded": (stack(), [recorded()], seen(SERVED), "owed", "not unloaded yet"),
    "destroyed": (stack(adapter(), ending=True), [recorded()], seen(SERVED), "owed", "not unloaded yet"),
    "another path declared": (stack(adapter(lora_path="/y")), [recorded()], seen(SERVED), "owed", "differently"),
    "other content declared": (stack(adapter(digest="b")), [recorded(digest="a")], seen(SERVED), "owed", "differently"),
    "a base that was left out": (stack(adapter()), [recorded(base_model_name="acme/tiny")], seen(SERVED), "served", ""),
    "away": (stack(adapter()), [recorded()], AWAY, "unknown", "as applied"),
    "away, never loaded": (stack(adapter()), [], AWAY, "owed", "will be loaded"),
    "away, lost before": (
        stack(adapter()), [recorded(Operation.LOST)], AWAY, "unknown", "missing when the target was last seen"
    ),
    "away, lost before, cut short": (
        stack(adapter()), [replace(recorded(Operation.LOST), cause="interrupted")], AWAY, "owed", "will be loaded"
    ),
    "away, lost before, and restored": (
        stack(adapter(), on_drift="restore"), [recorded(Operation.LOST)], AWAY, "owed", "will be loaded"
    ),
    "away, to be changed": (stack(adapter(lora_path="/y")), [recorded()], AWAY, "owed", "will be updated"),
    "away, to be removed": (stack(), [recorded()], AWAY, "owed", "will be unloaded"),
    "routes off": (stack(adapter()), [recorded()], seen(capabilities=NO_ROUTES), "unknown", "cannot load adapters"),
    "routes off, still there": (stack(adapter()), [recorded()], seen(SERVED, capabilities=NO_ROUTES), "served", ""),
}  # fmt: skip


@pytest.mark.parametrize(("declared", "resources", "look", "state", "detail"), JUDGED.values(), ids=JUDGED)
def test_an_adapter(declared: StackRecord, resources: list[Resource], look: Sighting, state: str, detail: str) -> None:
    (one,) = states(declared, resources, look)
    assert one.state == state
    assert detail in one.detail
    assert bool(one.detail) is bool(detail)


LATER = NOW + timedelta(seconds=1)
NO_FILES = LastFailure(at=LATER, message="/models/sql holds no adapter", hint="Put it there.")
FAILED = {
    "never loaded": (stack(adapter()), [], seen(), NO_FILES, "failed"),
    "lost": (stack(adapter()), [recorded(Operation.LOST)], seen(), NO_FILES, "failed"),
    "served all the same": (stack(adapter()), [recorded()], seen(SERVED), NO_FILES, "served"),
    "applied again since": (stack(adapter(), at=LATER + timedelta(1)), [], seen(), NO_FILES, "owed"),
    "lost since": (
        stack(adapter()), [replace(recorded(Operation.LOST), at=LATER + timedelta(1))], seen(), NO_FILES, "missing"
    ),
    "away": (stack(adapter()), [], AWAY, NO_FILES, "owed"),
}  # fmt: skip


@pytest.mark.parametrize(("declared", "resources", "look", "failure", "state"), FAILED.values(), ids=FAILED)
def test_what_failed_for_good(
    declared: StackRecord, resources: list[Resource], look: Sighting, failure: LastFailure, state: str
) -> None:
    status = fleet_status(
        [declared], [RECORD], resources, {"edge-1": look}, now=NOW, failures={("lab", "edge-1", "sql"): failure}
    )
    (one,) = status.stacks[0].adapters
    assert one.state == state
    assert (one.hint == "Put it there.") is (state == "failed")
    assert ("holds no adapter" in one.detail) is (state == "failed")


def test_a_target_and_its_unmanaged_adapters() -> None:
    look = seen(SERVED, Served("theirs", "/t", "acme/tiny"))
    (target,) = fleet_status([stack(adapter())], [RECORD], [recorded()], {"edge-1": look}, now=NOW).targets
    assert (target.unmanaged, target.insecure, target.stacks) == (("theirs",), True, ("lab",))
    assert dict(target.adapters) == {"served": 1}
    assert target.well


def test_what_another_stack_owns_is_not_unmanaged() -> None:
    other = replace(recorded(), stack="other")
    (target,) = fleet_status([stack()], [RECORD], [other], {"edge-1": seen(SERVED)}, now=NOW).targets
    assert target.unmanaged == ()


def test_who_holds_it_and_what_was_interrupted() -> None:
    lease = Lease(
        stack="lab", token="t", holder=Holder(host="h/boot", pid=7, started=1, user="u", purpose="apply"),
        acquired_at=NOW, expires_at=NOW + timedelta(seconds=30),
    )  # fmt: skip
    command = CommandRecord(id="c", kind="apply", stack="lab", started_at=NOW, by="u@h 7")

    def of(leases: list[Lease], dead: Any = ()) -> Any:
        unfinished = {"lab": [CutShort.of(command, [])]}
        status = fleet_status([stack()], [], [], {}, now=NOW, leases=leases, dead=dead, unfinished=unfinished)
        return status.to_json()["stacks"][0]

    held = of([lease])
    assert held["lease"]["holder"] == "u@h"
    assert held["interrupted"] == []
    expired = of([replace(lease, expires_at=NOW)])
    assert expired["lease"] is None
    assert expired["interrupted"][0]["command"] == "c"
    killed = of([lease], dead={"t"})
    assert killed["lease"]["dead"] is True
    assert killed["interrupted"][0]["command"] == "c"


DUE = {
    Cause.REFUSED: "when the target is seen again",
    Cause.LOCAL: "when the target is seen again",
    Cause.UNAUTHORIZED: "when the target answers as it should",
    Cause.WRONG_BASE: "when the target answers as it should",
}


@pytest.mark.parametrize(("cause", "due"), DUE.items(), ids=lambda one: str(one))
def test_a_target_that_answers_is_not_waited_for_to_be_seen_again(cause, due):
    away = Sighting(target="edge-1", at=NOW, cause=cause, detail="x")
    assert [one.detail for one in states(stack(adapter()), [], away)] == [f"will be loaded {due}"]
    assert [one.detail for one in states(stack(), [recorded()], away)] == [f"will be unloaded {due}"]
    assert [one.detail for one in states(stack(adapter(lora_path="/y")), [recorded()], away)] == [
        f"will be updated {due}"
    ]
    unknown = Failure(code=FailureCode.INVALID_REQUEST, message="x", cause=cause)
    assert _unseen(adapter(), None, unknown).reason == f"will be loaded {due}"
