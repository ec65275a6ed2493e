from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.artifacts.pins import Pin, pins
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.store.records import ActionRecord, ActionState, Key, Operation, Resource, StackRecord, TargetRecord

NOW = datetime(2026, 1, 2, tzinfo=UTC)
D1, D2 = "1" * 64, "2" * 64


def target(name="edge", state="reachable", roots=()):
    served = tuple({"name": f"a{n}", "root": root, "parent": "acme/tiny"} for n, root in enumerate(roots))
    return TargetRecord(name=name, spec={}, declared_at=NOW, state=state, since=NOW, served=served)


def resource(path):
    return Resource(
        key=Key("edge", ADAPTER_TYPE, "sql"), stack="s", label="sql", operation=Operation.LOST, spec={},
        served_path=path, parent=None, at=NOW,
    )  # fmt: skip


def action(state, before=None, after=None):
    return ActionRecord(
        command="c", seq=1, key=Key("edge", ADAPTER_TYPE, "sql"), label="sql", kind="update", reason="", state=state,
        before=before, after=after,
    )  # fmt: skip


def stack(digest):
    spec = {"target": "edge", "lora_name": "sql", "digest": digest}
    return StackRecord(name="s", declaration={"adapters": [spec]}, at=NOW)


CASES = {
    "served": (([target(roots=[f"/store/{D1}"])], [], [], []), [Pin("edge", "a0", "served")]),
    "served-when-last-seen": (
        ([target(state="unreachable", roots=[f"/store/{D1}"])], [], [], []),
        [Pin("edge", "a0", "served", NOW)],
    ),
    "under-another-mount": (([target(roots=[f"/mnt/x/{D1}"])], [], [], []), [Pin("edge", "a0", "served")]),
    "fresh-name": (([target(roots=[f"/store/{D1}-2"])], [], [], []), [Pin("edge", "a0", "served")]),
    "tombstone": (([target()], [resource(f"/store/{D1}")], [], []), [Pin("edge", "sql", "applied")]),
    "declared": (([target()], [], [stack(D1)], []), [Pin("edge", "sql", "declared")]),
    "put-back": (
        ([], [], [], [action(ActionState.STARTED, before={"served_path": f"/store/{D1}"})]),
        [Pin("edge", "sql", "running")],
    ),
    "to-be-loaded": (
        ([], [], [], [action(ActionState.PLANNED, after={"spec": {"digest": D1}, "served_path": None})]),
        [Pin("edge", "sql", "running")],
    ),
    "elsewhere": (([target(roots=["/models/sql", None])], [resource("/a/b")], [stack(None)], []), []),
}


@pytest.mark.parametrize(("known", "expected"), CASES.values(), ids=CASES)
def test_who_pins(known, expected):
    assert pins(*known) == ({D1: tuple(expected)} if expected else {})


def test_each_adapter_is_named_once_with_the_strongest_reason():
    known = [target(roots=[f"/store/{D1}", f"/store/{D2}"])], [resource(f"/store/{D1}")], [stack(D1)], []
    assert pins(*known) == {
        D1: (Pin("edge", "a0", "served"), Pin("edge", "sql", "applied")),
        D2: (Pin("edge", "a1", "served"),),
    }


@given(roots=st.lists(st.text("0123456789abcdef/-", max_size=70) | st.sampled_from([f"/s/{D1}", f"/s/{D2}-3"])))
def test_whatever_a_server_lists_is_pinned_or_no_entry(roots):
    found = pins([target(roots=roots)], [], [], [])
    for root in roots:
        for digest in (D1, D2):
            assert digest not in root.rpartition("/")[2] or digest in found
