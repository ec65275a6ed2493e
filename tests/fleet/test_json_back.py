"""What a server answers is read back as the values that it was made of: the same JSON again, and the same page."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_samples import AWAY, NOW, adapter_status, fleet_status, full_plan, large_plan, plan_facts, target_status
from rendered import in_a_pipe

from garrison.cli.views.applied import show_applied
from garrison.cli.views.drift import show_drifts
from garrison.cli.views.history import show_event
from garrison.cli.views.inventory import show_rows
from garrison.cli.views.plan import show_plan
from garrison.cli.views.status import show_status
from garrison.fleet.hooks.queues import event_from_json, event_json
from garrison.fleet.management.requests import Destroyed
from garrison.fleet.observe.drift import Drift
from garrison.fleet.operations.apply import Applied
from garrison.fleet.report.drifts import DriftRow, Drifts
from garrison.fleet.report.inventory_rows import AdapterRow, ModelRow, Reach, StackRow, TargetRow, row_from_json
from garrison.fleet.report.status import FleetStatus
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.instance_change import InstanceChange, InstanceOutcome
from garrison.fleet.values.observation import Cause, Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.fleet.values.view import Outcome
from garrison.store.records import ActionState, Event, Key, Operation, Resource


def sent(value: Any) -> Any:
    """What arrives at the other end."""
    return json.loads(json.dumps(value.to_json()))


def shown(plan: Plan) -> Plan:
    """A plan without what only matters to whoever carries it out."""
    basis = {"stage": False, "load_path": None, "desired": None, "recorded": None, "observed": None, "replaced": None}
    return replace(
        plan,
        actions=tuple(replace(one, **basis) for one in plan.actions),
        instances=tuple(replace(one, spec=None) for one in plan.instances),
    )


def plans() -> list[Plan]:
    owed = replace(full_plan().actions[7], owed=True, drift=False)  # one that is on record
    away = replace(AWAY, cause=Cause.SERVER_ERROR, retry_after=2.5)
    return [
        full_plan(),
        large_plan(),
        Plan(stack="s", mode="destroy", fingerprint="f" * 32),
        Plan(stack="s", mode="patch", actions=(owed, replace(owed, name="b", failure=away)), fingerprint="a"),
    ]


@pytest.mark.parametrize("plan", plans(), ids=["full", "large", "empty", "owed"])
def test_a_plan(plan: Plan) -> None:
    back = Plan.from_json(sent(plan))
    assert back == shown(plan)
    assert back.to_json() == plan.to_json()
    pages = [in_a_pipe(lambda page, one=one: show_plan(one, page, plan_facts(everything=True))) for one in (plan, back)]
    assert pages[0] == pages[1]
    for name in ("changes_required", "empty", "conflicts", "instance_conflicts", "instance_work", "blocked"):
        assert repr(getattr(back, name)) == repr(getattr(shown(plan), name))


def test_an_owed_action_that_is_on_record_is_marked() -> None:
    (page,) = [in_a_pipe(lambda page, one=one: show_plan(one, page, plan_facts())) for one in plans()[3:]]
    assert "owed  gone from the target" in page


TEXT = st.text(max_size=5)


@given(
    st.builds(
        Failure,
        code=st.sampled_from(FailureCode),
        message=st.sampled_from(["", "it failed", "ü"]),
        hint=st.none() | TEXT.filter(bool),
        recoverable=st.booleans(),
        retry_after=st.none() | st.floats(0, 1e6),
        cause=st.none() | st.sampled_from(Cause),
    )
)
def test_a_failure(failure: Failure) -> None:
    assert Failure.from_json(sent(failure)) == failure


def applied(plan: Plan) -> Applied:
    states = [ActionState.DONE, ActionState.FAILED, ActionState.SKIPPED, ActionState.STARTED]
    work = [one for one in plan.actions if one.kind is not ActionKind.KEEP]
    failure = Failure(code=FailureCode.NOT_FOUND, message="no adapter there", hint="put it there")
    return Applied(
        plan=plan,
        outcomes=tuple(
            Outcome(
                action=one,
                state=states[number % 4],
                failure=failure if states[number % 4] is ActionState.FAILED else None,
                seconds=1.125,
                gap_ms=4.5 if number % 2 else None,
                notes=("one token in 3 ms",),
            )
            for number, one in enumerate(work)
        ),
        instances=tuple(
            InstanceOutcome(change=one, error="no room" if number else None, hint="stop one" if number else None)
            for number, one in enumerate(plan.instance_work)
        ),
        command="20260301-115000-abc",
    )


@pytest.mark.parametrize("plan", plans(), ids=["full", "large", "empty", "owed"])
def test_an_apply_and_a_destroy(plan: Plan) -> None:
    done = applied(plan)
    for body in (sent(done), sent(done) | {"warnings": [], "notes": ["added by the API"]}):
        back = Applied.from_json(body)
        assert back == applied(shown(plan))
        assert (back.exit_code, back.to_json()) == (done.exit_code, done.to_json())
    page, other = (in_a_pipe(lambda page, one=one: show_applied(one, page)) for one in (done, back))
    assert page == other
    destroyed = Destroyed(applied=done, gone=True)
    assert Destroyed.from_json(sent(destroyed)).to_json() == destroyed.to_json()


def test_an_outcome_of_an_action_that_no_plan_has() -> None:
    """A server of another version may do more than it planned: what it did is shown all the same."""
    one = Outcome(
        action=Action(kind=ActionKind.DELETE, target="t", name="a", label="l", reason=""), state=ActionState.DONE
    )
    assert Outcome.from_json(sent(one), {}) == one
    gone = InstanceOutcome(change=InstanceChange(kind=full_plan().instances[3].kind, name="i", node="n"))
    assert InstanceOutcome.from_json(sent(gone), ()) == gone


@pytest.mark.parametrize("status", [fleet_status(3), FleetStatus(at=NOW, cached=True, stacks=(), targets=())])
def test_a_status(status: FleetStatus) -> None:
    back = FleetStatus.from_json(sent(status))
    assert back == status
    page, other = (in_a_pipe(lambda page, one=one: show_status(one, page, everything=True)) for one in (status, back))
    assert page == other


REACH = Reach(state="unreachable", since=NOW, last_seen=NOW - timedelta(days=1), cause="tls", detail="self-signed")
NEW = Reach(state="new", since=None, last_seen=None, cause=None)
ROWS = {
    "adapters": [
        AdapterRow(
            target="t", name="a", status="served", stack="s", label="l", path="/a", base="b", detail="d", at=NOW,
            reach=REACH, labels=("site=lab",),
        ),
        AdapterRow(target="t", name="b", status="unmanaged", reach=NEW),
    ],
    "models": [ModelRow(target="t", name="m", status="served", path=None, reach=REACH, stacks=("s",), labels=("a=b",))],
    "targets": [
        TargetRow(status=target_status("t"), unmanaged=3, labels=("a=b",)),
        TargetRow(
            status=target_status("u", state="unreachable", cause="dns", detail="no name", since=NOW, insecure=True),
            unmanaged=0,
        ),
    ],
    "stacks": [StackRow.of(one) for one in fleet_status(3).stacks],
}  # fmt: skip


@pytest.mark.parametrize("noun", ROWS)
def test_rows_of_the_inventory(noun: str) -> None:
    rows = ROWS[noun]
    back = [row_from_json(noun, sent(one)) for one in rows]
    assert back == rows
    assert [one.fields for one in back] == [one.fields for one in rows]
    page, other = (in_a_pipe(lambda page, some=some: show_rows(noun, some, page, NOW, everything=True))
                   for some in (rows, back))  # fmt: skip
    assert page == other


def drift(kind: str, observed: Served | None, operation: Operation = Operation.CREATED, **more: Any) -> DriftRow:
    lost = operation is Operation.LOST
    resource = Resource(
        key=Key("edge", ADAPTER_TYPE, "sql"), stack="lab", label="sql-1", operation=operation, spec={"a": 1},
        served_path="/models/sql", parent="acme/tiny", at=NOW, cause="restarted" if lost else None,
    )  # fmt: skip
    return DriftRow.of(
        Drift(kind=kind, resource=resource, observed=observed, seen=Sighting(target="edge", at=NOW), **more)
    )


def test_a_drift_check() -> None:
    found = Drifts(
        found=(
            drift("missing", None),
            drift("missing", None, Operation.LOST),
            drift("path", Served("sql", "/tmp/sql", "acme/tiny")),
            drift("base", Served("sql", None, "acme/other")),
            drift("content", Served("sql", "/models/sql", "acme/tiny"), detail="its entry has other files"),
        ),
        unknown={"far": "refused: connection refused", "near": "local: api_key: KEY is not set"},
        checked=7,
    )
    back = Drifts.from_json(sent(found))
    assert back == found
    page, other = (in_a_pipe(lambda page, one=one: show_drifts(one, page, NOW, everything=True))
                   for one in (found, back))  # fmt: skip
    assert page == other
    assert "gone since 2026-03-01 12:00:00 UTC" in page
    assert "applied from /models/sql, served from /tmp/sql" in page


@pytest.mark.parametrize(
    "event",
    [
        Event(at=NOW, kind="applied", stack="lab", cause="reconcile", command="c", id=7),
        Event(at=datetime(2026, 3, 1, 12, 0, 0, 123456, UTC), kind="drift", target="edge", name="sql", id=8),
        Event(at=NOW, kind="changed", target="edge", before={"a": [1]}, after={"a": None}, id=9),
        Event(at=NOW, kind="instance_created", stack="lab", subject_kind="instance", subject_name="qwen", id=10),
    ],
    ids=lambda one: one.kind,
)
def test_an_event(event: Event) -> None:
    back = event_from_json(json.loads(json.dumps(event_json(event))))
    assert back == event
    page, other = (in_a_pipe(lambda page, one=one: show_event(one, page)) for one in (event, back))
    assert page == other


def test_the_states_of_adapters_survive() -> None:
    one = adapter_status("edge", "sql", "owed", "will be loaded")
    assert type(one).from_json(sent(one)) == one
