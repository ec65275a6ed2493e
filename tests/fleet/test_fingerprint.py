"""The fingerprint of a plan: what it covers, and what it leaves out."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from garrison.fleet.operations.fingerprint import digest_of, fingerprint_of, plan_changes
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, Hook, Policy
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Cause, Served
from garrison.fleet.values.plan import Action, ActionKind, Change, Plan, TargetChange, Way
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Key, Operation, Resource, StackRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def spec(name: str = "sql", **values: Any) -> AdapterDeclaration:
    body: dict[str, Any] = {"target": "edge", "label": name, "lora_name": name, "lora_path": f"/models/{name}"}
    return AdapterDeclaration(**(body | values))


def resource(name: str = "sql", **values: Any) -> Resource:
    body: dict[str, Any] = {
        "key": Key("edge", ADAPTER_TYPE, name), "stack": "lab", "label": name, "operation": Operation.CREATED,
        "spec": spec(name).to_json(), "served_path": f"/old/{name}", "parent": "acme/tiny", "at": NOW, "version": 1,
    }  # fmt: skip
    return Resource(**(body | values))


def action(name: str = "sql", **values: Any) -> Action:
    body: dict[str, Any] = {
        "kind": ActionKind.UPDATE, "target": "edge", "name": name, "label": name, "reason": "new path", "way": Way.SWAP,
        "load_path": f"/models/{name}", "desired": spec(name), "recorded": resource(name),
        "observed": Served(name=name, root=f"/old/{name}", parent="acme/tiny"),
    }  # fmt: skip
    return Action(**(body | values))


def blocked(**values: Any) -> Action:
    failure = Failure(
        code=FailureCode.NETWORK_FAILURE, message="refused after 1.2 s", recoverable=True, cause=Cause.REFUSED
    )
    return action("far", **({"kind": ActionKind.BLOCKED, "way": None, "target": "far", "failure": failure} | values))


PLAN = Plan(
    stack="lab",
    mode="reconcile",
    actions=(action("chat"), action("sql"), action("kept", kind=ActionKind.KEEP, way=None), blocked()),
    targets=(TargetChange(kind="update", name="edge", changes=(Change("timeout", "5", "9"),)),),
    unknown={"far": "timeout: no answer within 5 s"},
    warnings=("odd",),
)
DECLARED = Declaration(
    stack="lab",
    targets={name: TargetSpec(name=name, base_url=f"http://{name}:8000") for name in ("edge", "far")},
    adapters=(spec("chat"), spec("sql"), spec("kept")),
)
BEFORE = StackRecord(name="lab", declaration=DECLARED.to_json(), at=NOW, version=3, command="c1")


def of(plan: Plan = PLAN, declared: Declaration = DECLARED, before: StackRecord | None = BEFORE) -> str:
    return fingerprint_of(plan, declared, before)


def with_action(changed: Callable[[Action], Action], at: int = 1) -> Plan:
    actions = list(PLAN.actions)
    actions[at] = changed(actions[at])
    return replace(PLAN, actions=tuple(actions))


def test_it_is_stable() -> None:
    assert of() == of()
    assert len(of()) == 32
    assert set(of()) <= set("0123456789abcdef")


SAME: dict[str, str] = {
    "order of actions": of(replace(PLAN, actions=PLAN.actions[::-1])),
    "order of declared adapters": of(declared=replace(DECLARED, adapters=DECLARED.adapters[::-1])),
    "order of declared targets": of(declared=replace(DECLARED, targets=dict(reversed(DECLARED.targets.items())))),
    "order of adapters on record": of(
        before=replace(BEFORE, declaration=DECLARED.to_json() | {"adapters": DECLARED.to_json()["adapters"][::-1]})
    ),
    "wording of a reason": of(with_action(lambda one: replace(one, reason="other words", way_reason="so"))),
    "times and versions on record": of(
        with_action(
            lambda one: replace(one, recorded=resource("sql", at=NOW + timedelta(days=1), version=7, command="c9"))
        )
    ),
    "time and version of the stack": of(
        before=replace(BEFORE, at=NOW + timedelta(days=1), version=9, command="c9")
    ),
    "an adapter at which nothing is done, as it is observed": of(
        with_action(lambda one: replace(one, observed=Served(name="kept", root="/elsewhere", parent="x")), at=2)
    ),
    "why a target is out of reach": of(
        with_action(
            lambda one: replace(
                one,
                failure=Failure(
                    code=FailureCode.SERVICE_TIMEOUT, message="no answer", recoverable=True, cause=Cause.TIMEOUT
                ),
            ),
            at=3,
        )
    ),
    "details of unknown targets": of(replace(PLAN, unknown={"far": "refused", "farther": "timeout"})),
    "warnings": of(replace(PLAN, warnings=())),
    "a target that is new on record": of(
        replace(PLAN, targets=(*PLAN.targets, TargetChange(kind="create", name="far")))
    ),
    "a target that stays as it is": of(replace(PLAN, targets=(*PLAN.targets, TargetChange(kind="keep", name="z")))),
}  # fmt: skip

OTHER: dict[str, str] = {
    "the stack": of(replace(PLAN, stack="other")),
    "the mode": of(replace(PLAN, mode="destroy")),
    "an action more": of(replace(PLAN, actions=(*PLAN.actions, action("code")))),
    "an action less": of(replace(PLAN, actions=PLAN.actions[1:])),
    "the kind": of(with_action(lambda one: replace(one, kind=ActionKind.REPLACE))),
    "the way": of(with_action(lambda one: replace(one, way=Way.LOAD_THEN_UNLOAD))),
    "where it is loaded from": of(with_action(lambda one: replace(one, load_path="/elsewhere"))),
    "staging": of(with_action(lambda one: replace(one, stage=True))),
    "a conflict": of(with_action(lambda one: replace(one, conflict=True))),
    "what is served": of(
        with_action(lambda one: replace(one, observed=Served(name="sql", root="/elsewhere", parent="acme/tiny")))
    ),
    "the base model it is attached to": of(
        with_action(lambda one: replace(one, observed=Served(name="sql", root="/old/sql", parent="other")))
    ),
    "what is on record": of(with_action(lambda one: replace(one, recorded=resource("sql", served_path="/other")))),
    "that nothing is on record": of(with_action(lambda one: replace(one, recorded=None))),
    "what is replaced": of(with_action(lambda one: replace(one, replaced=resource("old")))),
    "the content": of(declared=replace(DECLARED, adapters=(spec("chat"), spec("sql", digest="d"), spec("kept")))),
    "the declared policy": of(declared=replace(DECLARED, policy=Policy(on_drift="restore"))),
    "the declared hooks": of(declared=replace(DECLARED, hooks=(Hook(on=("drift",), url="http://hook"),))),
    "a declared target": of(
        declared=replace(DECLARED, targets=dict(DECLARED.targets) | {"new": TargetSpec(name="new", base_url="http://n")})
    ),
    "a change of a target": of(
        replace(PLAN, targets=(TargetChange(kind="update", name="edge", changes=(Change("timeout", "5", "8"),)),))
    ),
    "a target that came back": of(with_action(lambda one: replace(one, kind=ActionKind.CREATE, failure=None), at=3)),
    "a failure that is permanent": of(
        with_action(
            lambda one: replace(one, failure=Failure(code=FailureCode.INVALID_REQUEST, message="no")), at=3
        )
    ),
    "no stack on record": of(before=None),
    "the policy on record": of(
        before=replace(BEFORE, declaration=DECLARED.to_json() | {"policy": {"on_drift": "restore", "interval": 30.0}})
    ),
    "an adapter on record that would be dropped": of(
        before=replace(
            BEFORE, declaration=DECLARED.to_json() | {"adapters": [spec("x", target="far").to_json()]}
        )
    ),
    "a stack that is being destroyed": of(before=replace(BEFORE, ending=True)),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_it_is_the_same_whatever(what: str) -> None:
    assert SAME[what] == of()


@pytest.mark.parametrize("what", OTHER)
def test_it_is_another_with(what: str) -> None:
    assert OTHER[what] != of()


def test_no_two_changes_look_alike() -> None:
    assert len(set(OTHER.values())) == len(OTHER)


def test_a_patch_does_not_replace_what_is_on_record() -> None:
    patch = replace(PLAN, mode="patch")
    assert of(patch, before=None) == of(patch)


def test_a_plan_of_nothing_is_the_same_whatever_is_on_record() -> None:
    nothing = replace(PLAN, actions=PLAN.actions[2:3], targets=())
    assert of(nothing, before=None) == of(nothing)
    assert of(nothing) != of()


def test_parts_do_not_run_into_each_other() -> None:
    assert len({digest_of(parts) for parts in (["ab", "c"], ["a", "bc"], ["abc"], ["abc", ""], [])}) == 5


# --- what changed, in words


def test_changes_are_named_by_place() -> None:
    before = replace(PLAN, actions=(action("gone"), action("sql", changes=(Change("path", "/a", "/b"),)))).to_json()
    after = replace(
        PLAN,
        targets=(),
        actions=(action("sql", changes=(Change("path", "/a", "/c"),)), replace(blocked(), reason="out of reach")),
    ).to_json()
    assert plan_changes(before, after) == (
        "target edge: update (timeout 5 → 9), now nothing to do; edge/gone: update, now nothing to do; "
        "edge/sql: update (path /a → /b), now update (path /a → /c); "
        "far/far: nothing to do, now blocked (out of reach)"
    )


def test_many_changes_are_counted() -> None:
    before = replace(PLAN, targets=(), actions=()).to_json()
    after = replace(PLAN, targets=(), actions=tuple(action(f"a{number}") for number in range(8))).to_json()
    assert plan_changes(before, after).endswith("edge/a4: nothing to do, now update; and 3 more")


def test_what_the_plan_does_not_show_is_said_too() -> None:
    assert "based on has changed" in plan_changes(PLAN.to_json(), PLAN.to_json())
