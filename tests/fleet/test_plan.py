"""The table of decisions, a row a test; and what holds for all inputs."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.plan.planner import check_models, plan
from garrison.fleet.values.causes import INTERRUPTED
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration, ModelSpec
from garrison.fleet.values.failure import FailureCode
from garrison.fleet.values.observation import Capabilities, Cause, Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind, Plan, Way
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Key, Operation, Resource, TargetRecord

AT = datetime(2026, 1, 1, tzinfo=UTC)
BASE = "acme/tiny"
OLD, NEW = "a" * 64, "b" * 64


def spec(**changes: Any) -> AdapterDeclaration:
    values: dict[str, Any] = {"target": "edge", "label": "sql", "lora_name": "sql", "lora_path": "/models/sql"}
    return AdapterDeclaration(**(values | changes))


def declared(*adapters: AdapterDeclaration) -> Declaration:
    targets = {one.target: TargetSpec(name=one.target, base_url="http://edge:8000") for one in adapters}
    return Declaration(stack="lab", targets=targets or {"edge": TargetSpec(name="edge", base_url="http://edge:8000")},
                       adapters=adapters)  # fmt: skip


def applied(one: AdapterDeclaration | None = None, **changes: Any) -> Resource:
    one = one or spec()
    values: dict[str, Any] = {
        "key": Key(one.target, ADAPTER_TYPE, one.lora_name),
        "stack": "lab",
        "label": one.label,
        "operation": Operation.CREATED,
        "spec": one.to_json(),
        "served_path": one.lora_path,
        "parent": BASE,
        "at": AT,
    }
    return Resource(**(values | changes))


def seen(adapters: Mapping[str, str] | None = None, *, base: str = BASE, **changes: Any) -> dict[str, Sighting]:
    served = {base: Served(base, base, None)}
    served |= {name: Served(name, path, base) for name, path in (adapters or {}).items()}
    return {"edge": Sighting(target="edge", at=AT, served=served, base=base, **changes)}


def away(cause: Cause = Cause.REFUSED) -> dict[str, Sighting]:
    return {"edge": Sighting(target="edge", at=AT, cause=cause, detail="connection refused")}


def only(found: Plan) -> Action:
    assert len(found.actions) == 1, found.actions
    return found.actions[0]


STORE = {"staged_path": lambda _target, digest: f"/store/{digest[:8]}"}
FORCE, ADOPT = PlanOptions(force=True), PlanOptions(adopt=True)
LOST = applied(operation=Operation.LOST)

ROWS: dict[str, tuple[Any, Any, dict[str, Sighting], dict[str, Any], ActionKind, Way | None]] = {
    # name: declared, recorded, observed, options, action, way
    "new-absent": (spec(), None, seen(), {}, ActionKind.CREATE, Way.LOAD),
    "new-there-as-declared": (spec(), None, seen({"sql": "/models/sql"}), {}, ActionKind.ADOPT, Way.RECORD),
    "new-there-other-path": (spec(), None, seen({"sql": "/tmp/sql"}), {}, ActionKind.BLOCKED, None),
    "new-there-other-path-adopt": (
        spec(), None, seen({"sql": "/tmp/sql"}), {"options": ADOPT}, ActionKind.UPDATE, Way.SWAP),
    "new-there-other-path-force-is-not-adopt": (
        spec(), None, seen({"sql": "/tmp/sql"}), {"options": FORCE}, ActionKind.BLOCKED, None),
    "as-applied": (spec(), applied(), seen({"sql": "/models/sql"}), {}, ActionKind.KEEP, None),
    "another-path": (
        spec(lora_path="/models/v2"), applied(), seen({"sql": "/models/sql"}), {}, ActionKind.UPDATE, Way.SWAP),
    "new-content-staged": (
        spec(digest=NEW), applied(spec(digest=OLD), served_path="/store/aaaaaaaa"), seen({"sql": "/store/aaaaaaaa"}),
        STORE, ActionKind.UPDATE, Way.SWAP),
    "new-content-same-path": (
        spec(digest=NEW), applied(spec(digest=OLD)), seen({"sql": "/models/sql"}), {}, ActionKind.BLOCKED, None),
    "new-content-same-path-no-prefix-caching": (
        spec(digest=NEW), applied(spec(digest=OLD)), seen({"sql": "/models/sql"}),
        {"prefix_caching": {"edge": False}}, ActionKind.UPDATE, Way.SWAP),
    "new-content-same-path-accepted": (
        spec(digest=NEW), applied(spec(digest=OLD)), seen({"sql": "/models/sql"}),
        {"options": PlanOptions(accept_stale_cache=True)}, ActionKind.UPDATE, Way.SWAP),
    "same-content-other-path": (
        spec(lora_path="/models/moved", digest=OLD), applied(spec(digest=OLD)), seen({"sql": "/models/sql"}),
        STORE, ActionKind.ADOPT, Way.RECORD),
    "content-not-readable-now": (
        spec(), applied(spec(digest=OLD)), seen({"sql": "/models/sql"}), {}, ActionKind.KEEP, None),
    "content-not-readable-then": (
        spec(digest=NEW), applied(), seen({"sql": "/models/sql"}), {}, ActionKind.ADOPT, Way.RECORD),
    "base-left-out": (
        spec(base_model_name=None), applied(spec(base_model_name=BASE)), seen({"sql": "/models/sql"}), {},
        ActionKind.KEEP, None),
    "base-named-now": (
        spec(base_model_name=BASE), applied(), seen({"sql": "/models/sql"}), {}, ActionKind.KEEP, None),
    "wrong-base": (spec(base_model_name="acme/huge"), None, seen(), {}, ActionKind.BLOCKED, None),
    "name-of-the-base": (spec(lora_name=BASE), None, seen(), {}, ActionKind.BLOCKED, None),
    "base-changed-and-declared": (
        spec(base_model_name="acme/two"), applied(spec(base_model_name=BASE)), seen(base="acme/two"), {},
        ActionKind.REPLACE, Way.LOAD),
    "3d-converges": (
        spec(is_3d_lora_weight=True), applied(spec(is_3d_lora_weight=True)), seen({"sql": "/models/sql"}), {},
        ActionKind.KEEP, None),
    "3d-changed": (
        spec(is_3d_lora_weight=True), applied(), seen({"sql": "/models/sql"}), {"prefix_caching": {"edge": False}},
        ActionKind.REPLACE, Way.SWAP),
    "unloaded-by-somebody": (spec(), applied(), seen(), {}, ActionKind.CREATE, Way.LOAD),
    "tombstone": (spec(), LOST, seen(), {}, ActionKind.CREATE, Way.LOAD),
    "tombstone-new-content-same-path": (
        spec(digest=NEW), applied(spec(digest=OLD), operation=Operation.LOST, cause="unloaded"), seen(), {},
        ActionKind.BLOCKED, None),
    "tombstone-new-content-same-path-accepted": (
        spec(digest=NEW), applied(spec(digest=OLD), operation=Operation.LOST, cause="unloaded"), seen(),
        {"options": PlanOptions(accept_stale_cache=True)}, ActionKind.CREATE, Way.LOAD),
    "tombstone-of-a-restart-new-content-same-path": (
        spec(digest=NEW), applied(spec(digest=OLD), operation=Operation.LOST, cause="restarted"), seen(), {},
        ActionKind.CREATE, Way.LOAD),
    "tombstone-new-content-staged": (
        spec(digest=NEW), applied(spec(digest=OLD), operation=Operation.LOST, served_path="/store/aaaaaaaa"), seen(),
        STORE, ActionKind.CREATE, Way.LOAD),
    "tombstone-loaded-by-somebody-as-declared": (
        spec(), LOST, seen({"sql": "/models/sql"}), {}, ActionKind.ADOPT, Way.RECORD),
    "tombstone-loaded-by-somebody-else": (spec(), LOST, seen({"sql": "/tmp/x"}), {}, ActionKind.BLOCKED, None),
    "overwritten": (spec(), applied(), seen({"sql": "/tmp/x"}), {}, ActionKind.BLOCKED, None),
    "overwritten-force": (
        spec(), applied(), seen({"sql": "/tmp/x"}), {"options": FORCE}, ActionKind.UPDATE, Way.SWAP),
    "overwritten-as-declared": (
        spec(lora_path="/models/v2"), applied(), seen({"sql": "/models/v2"}), {}, ActionKind.ADOPT, Way.RECORD),
    "not-declared": (None, applied(), seen({"sql": "/models/sql"}), {}, ActionKind.DELETE, Way.UNLOAD),
    "not-declared-patch": (
        None, applied(), seen({"sql": "/models/sql"}), {"mode": "patch"}, ActionKind.KEEP, None),
    "not-declared-gone": (None, applied(), seen(), {}, ActionKind.RELEASE, Way.RECORD),
    "not-declared-somebody-elses": (None, applied(), seen({"sql": "/tmp/x"}), {}, ActionKind.RELEASE, Way.RECORD),
    "not-declared-tombstone-then-somebodys": (
        None, LOST, seen({"sql": "/models/sql"}), {}, ActionKind.RELEASE, Way.RECORD),
    "out-of-reach-new": (spec(), None, away(), {}, ActionKind.BLOCKED, None),
    "out-of-reach-as-applied": (spec(), applied(), away(), {}, ActionKind.KEEP, None),
    "out-of-reach-changed": (spec(lora_path="/v2"), applied(), away(), {}, ActionKind.BLOCKED, None),
    "out-of-reach-not-declared": (None, applied(), away(), {}, ActionKind.BLOCKED, None),
    "never-asked": (spec(), None, {}, {}, ActionKind.BLOCKED, None),
    "owned-by-another-stack": (
        spec(), applied(stack="other"), seen({"sql": "/models/sql"}), {}, ActionKind.BLOCKED, None),
    "routes-off-new": (
        spec(), None, seen(capabilities=Capabilities(lora_routes=False)), {}, ActionKind.BLOCKED, None),
    "routes-off-not-declared": (
        None, applied(), seen({"sql": "/models/sql"}, capabilities=Capabilities(lora_routes=False)), {},
        ActionKind.BLOCKED, None),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_table(row: str) -> None:
    wanted, recorded, sightings, more, kind, way = ROWS[row]
    declaration = declared(wanted) if wanted else declared()
    action = only(plan(declaration, [recorded] if recorded else [], sightings, **more))
    assert (action.kind, action.way) == (kind, way), action
    assert action.reason
    assert (action.failure is not None) == (kind is ActionKind.BLOCKED)
    assert action.failure is None or action.failure.hint


@pytest.mark.parametrize(
    "row",
    ["new-there-other-path", "overwritten", "tombstone-loaded-by-somebody-else", "owned-by-another-stack"],
)
def test_conflicts_are_what_would_overwrite_others(row: str) -> None:
    wanted, recorded, sightings, more, *_ = ROWS[row]
    found = plan(declared(wanted), [recorded] if recorded else [], sightings, **more)
    assert found.conflicts


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row.startswith(("unloaded", "tombstone", "out-of-reach", "wrong", "routes"))
            and row != "tombstone-loaded-by-somebody-else"],
)  # fmt: skip
def test_what_is_missing_or_unknown_is_no_conflict(row: str) -> None:
    wanted, recorded, sightings, more, *_ = ROWS[row]
    found = plan(declared(wanted) if wanted else declared(), [recorded] if recorded else [], sightings, **more)
    assert not found.conflicts


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (Cause.REFUSED, FailureCode.NETWORK_FAILURE),
        (Cause.TIMEOUT, FailureCode.SERVICE_TIMEOUT),
        (Cause.UNAUTHORIZED, FailureCode.INVALID_CREDENTIALS),
        (Cause.FORBIDDEN, FailureCode.ACCESS_DENIED),
    ],
)
def test_what_stands_in_the_way_of_an_unknown_target_has_its_own_code(cause: Cause, code: FailureCode) -> None:
    action = only(plan(declared(spec()), [], away(cause)))
    assert action.failure is not None
    assert (action.failure.code, action.owed) == (code, True)


def test_a_renamed_adapter_is_replaced_and_the_new_name_comes_first() -> None:
    new = spec(lora_name="sql2")
    action = only(plan(declared(new), [applied()], seen({"sql": "/models/sql"})))
    assert (action.kind, action.way, action.name) == (ActionKind.REPLACE, Way.LOAD_THEN_UNLOAD, "sql2")
    assert action.replaced is not None
    assert action.replaced.key.name == "sql"
    first = action.changes[0]
    assert (first.field, first.before, first.after, first.immutable) == ("lora_name", "sql", "sql2", True)


def test_a_rename_whose_new_name_is_somebody_elses_is_a_conflict_and_the_old_one_goes_by_itself() -> None:
    found = plan(declared(spec(lora_name="sql2")), [applied()], seen({"sql": "/models/sql", "sql2": "/tmp/x"}))
    assert {action.name: action.kind for action in found.actions} == {
        "sql": ActionKind.DELETE,
        "sql2": ActionKind.BLOCKED,
    }


def test_a_base_that_changed_is_shown_as_an_immutable_change() -> None:
    new = spec(base_model_name="acme/two")
    action = only(plan(declared(new), [applied(spec(base_model_name=BASE))], seen(base="acme/two")))
    assert [(one.field, one.before, one.after) for one in action.changes if one.immutable] == [
        ("base_model_name", BASE, "acme/two")
    ]


def test_the_base_may_be_called_by_any_of_its_names() -> None:
    sighting = seen()["edge"]
    served = dict(sighting.served) | {"tiny": Served("tiny", BASE, None)}
    action = only(plan(declared(spec(base_model_name="tiny")), [], {"edge": replace(sighting, served=served)}))
    assert action.kind is ActionKind.CREATE


def test_the_same_name_on_two_targets_is_two_adapters() -> None:
    both = declared(spec(), spec(target="other"))
    sightings = seen({"sql": "/models/sql"}) | {"other": replace(seen()["edge"], target="other")}
    found = plan(both, [applied()], sightings)
    assert {action.target: action.kind for action in found.actions} == {
        "edge": ActionKind.KEEP,
        "other": ActionKind.CREATE,
    }


def test_unmanaged_adapters_are_in_no_plan() -> None:
    found = plan(declared(), [], seen({"theirs": "/tmp/theirs"}))
    assert found.actions == ()


def test_destroy_deletes_and_says_so() -> None:
    empty = Declaration(stack="lab")
    action = only(plan(empty, [applied()], seen({"sql": "/models/sql"}), mode="destroy"))
    assert (action.kind, action.reason) == (ActionKind.DELETE, "the stack is destroyed")


def test_an_interrupted_update_is_owed_and_not_drift() -> None:
    cut = applied(operation=Operation.LOST, cause=INTERRUPTED)
    action = only(plan(declared(spec()), [cut], seen()))
    assert (action.owed, action.drift) == (True, False)
    by_somebody = only(plan(declared(spec()), [applied()], seen()))
    assert (by_somebody.owed, by_somebody.drift) == (False, True)


def test_staged_content_is_loaded_from_the_path_that_carries_its_digest() -> None:
    action = only(plan(declared(spec(digest=NEW)), [], seen(), **STORE))
    assert (action.load_path, action.stage) == ("/store/bbbbbbbb", True)
    plain = only(plan(declared(spec()), [], seen(), **STORE))
    assert (plain.load_path, plain.stage) == ("/models/sql", False)


def test_changed_targets_are_listed() -> None:
    now = TargetSpec(name="edge", base_url="http://edge:9000")
    known = {"edge": TargetRecord(name="edge", spec={"base_url": "http://edge:8000"}, declared_at=AT)}
    declaration = Declaration(stack="lab", targets={"edge": now})
    found = plan(declaration, [], seen(), known_targets=known, declared_before=["edge", "gone"])
    assert [(one.kind, one.name) for one in found.targets] == [("update", "edge"), ("delete", "gone")]
    change = found.targets[0].changes[0]
    assert (change.field, change.before, change.after) == ("base_url", "http://edge:8000", "http://edge:9000")


def test_changed_settings_are_written_as_in_a_manifest() -> None:
    now = TargetSpec(name="edge", base_url="http://edge", labels={"site": "lab"}, prefix_caching=False)
    known = {"edge": TargetRecord(name="edge", spec={"base_url": "http://edge"}, declared_at=AT)}
    found = plan(Declaration(stack="lab", targets={"edge": now}), [], seen(), known_targets=known)
    changes = {change.field: change.after for change in found.targets[0].changes}
    assert (changes["labels"], changes["prefix_caching"]) == ('{"site": "lab"}', "false")


def test_a_base_model_cannot_be_declared_to_be_another() -> None:
    check_models([ModelSpec(target="edge", label="base", id=BASE)], seen())
    check_models([ModelSpec(target="edge", label="base", id="other")], away())
    with pytest.raises(InvalidError, match="serves base model") as raised:
        check_models([ModelSpec(target="edge", label="base", id="acme/huge")], seen())
    assert "Restart vLLM" in (raised.value.hint or "")
    with pytest.raises(InvalidError, match="from /other"):
        check_models([ModelSpec(target="edge", label="base", id=BASE, root="/other")], seen())


NAMES = st.sampled_from(["sql", "chat", "code"])
PATHS = st.sampled_from(["/models/sql", "/models/v2", "/tmp/x", "/store/aaaaaaaa"])
SPECS = st.builds(
    spec, lora_name=NAMES, label=NAMES, lora_path=PATHS, digest=st.sampled_from([None, OLD, NEW]),
    base_model_name=st.sampled_from([None, BASE, "acme/huge"]), is_3d_lora_weight=st.booleans(),
)  # fmt: skip
RESOURCES = st.builds(
    lambda one, operation, stack, path: applied(one, operation=operation, stack=stack, served_path=path),
    SPECS, st.sampled_from([Operation.CREATED, Operation.LOST, Operation.ADOPTED]), st.sampled_from(["lab", "other"]),
    PATHS,
)  # fmt: skip


@given(
    st.lists(SPECS, unique_by=lambda one: one.lora_name, max_size=3),
    st.lists(RESOURCES, unique_by=lambda one: one.key, max_size=3),
    st.one_of(st.none(), st.dictionaries(NAMES, PATHS)),
    st.sampled_from(["reconcile", "patch", "destroy"]),
    st.builds(PlanOptions, force=st.booleans(), adopt=st.booleans(), accept_stale_cache=st.booleans()),
    st.booleans(),
)
def test_for_all_inputs(
    specs: list[AdapterDeclaration],
    recorded: list[Resource],
    served: dict[str, str] | None,
    mode: Any,
    options: PlanOptions,
    staged: bool,
) -> None:
    sightings = away() if served is None else seen(served)
    declaration = Declaration(stack="lab") if mode == "destroy" else declared(*specs)
    found = plan(declaration, recorded, sightings, mode=mode, options=options, **(STORE if staged else {}))
    owned = {one.key.name: one for one in recorded}
    names = [action.name for action in found.actions]
    assert len(names) == len(set(names)), "two actions on one name"
    for action in found.actions:
        mine = owned.get(action.name)
        if served is None:
            assert not action.acts, "an unknown target is sent nothing"
        if action.kind is ActionKind.DELETE:
            assert mode != "patch"
            assert mine is not None
            assert mine.stack == "lab"
            assert (served or {}).get(action.name) == mine.served_path, "what somebody else loaded is left alone"
        if action.kind in (ActionKind.UPDATE, ActionKind.DELETE) and not (options.force or options.adopt):
            assert mine is not None
            assert (served or {}).get(action.name) == mine.served_path
        if action.kind is ActionKind.CREATE:
            assert action.name not in (served or {})
        if action.acts:
            assert mine is None or mine.stack == "lab", "another stack's is never touched"
        if action.kind is ActionKind.BLOCKED:
            assert action.failure is not None
