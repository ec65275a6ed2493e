"""What became of actions that were cut short, by what is seen afterwards."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from garrison.fleet.plan.interrupted import settle
from garrison.fleet.values.causes import INTERRUPTED
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.fleet.values.observation import Cause, Served, Sighting
from garrison.store.records import ActionRecord, ActionState, Key, Operation, Resource

AT = datetime(2026, 1, 1, tzinfo=UTC)
NOW = AT + timedelta(minutes=5)
KEY = Key("edge", ADAPTER_TYPE, "sql")
OLD = {"spec": {"lora_path": "/v1"}, "served_path": "/v1", "parent": "base"}
NEW = {"spec": {"lora_path": "/v2"}, "served_path": "/v2", "parent": None}


def started(before: Any, after: Any, **changes: Any) -> ActionRecord:
    action = ActionRecord(
        command="c", seq=0, key=KEY, label="sql", kind="update", reason="", state=ActionState.STARTED,
        before=before, after=after,
    )  # fmt: skip
    return replace(action, **changes)


def owned(name: str = "sql", path: str = "/v1") -> dict[Key, Resource]:
    key = replace(KEY, name=name)
    one = Resource(
        key=key, stack="lab", label="sql", operation=Operation.CREATED, spec={"lora_path": path}, served_path=path,
        parent="base", at=AT, version=1,
    )  # fmt: skip
    return {key: one}


def seen(**adapters: str) -> dict[str, Sighting]:
    served = {"base": Served("base", "base", None)} | {n: Served(n, p, "base") for n, p in adapters.items()}
    return {"edge": Sighting(target="edge", at=NOW, served=served, base="base")}


ROWS: dict[str, tuple[ActionRecord, dict[Key, Resource], dict[str, Sighting], ActionState, list[Any]]] = {
    "load-happened": (
        started(None, NEW), {}, seen(sql="/v2"), ActionState.DONE, [("sql", Operation.CREATED, "/v2")]),
    "load-did-not-happen": (started(None, NEW), {}, seen(), ActionState.FAILED, []),
    "load-and-somebody-elses-is-there": (started(None, NEW), {}, seen(sql="/x"), ActionState.FAILED, []),
    "swap-happened": (
        started(OLD, NEW), owned(), seen(sql="/v2"), ActionState.DONE, [("sql", Operation.UPDATED, "/v2")]),
    "swap-cut-in-its-gap": (
        started(OLD, NEW), owned(), seen(), ActionState.FAILED, [("sql", Operation.LOST, "/v1")]),
    "swap-not-begun": (started(OLD, NEW), owned(), seen(sql="/v1"), ActionState.FAILED, []),
    "unload-happened": (
        started(OLD, None), owned(), seen(), ActionState.DONE, [("sql", Operation.DELETED, "/v1")]),
    "unload-did-not-happen": (started(OLD, None), owned(), seen(sql="/v1"), ActionState.FAILED, []),
    "rename-new-there-old-gone": (
        started(OLD | {"name": "old"}, NEW), owned("old"), seen(sql="/v2"), ActionState.DONE,
        [("sql", Operation.UPDATED, "/v2"), ("old", Operation.DELETED, "/v1")]),
    "rename-new-there-old-there": (
        started(OLD | {"name": "old"}, NEW), owned("old"), seen(sql="/v2", old="/v1"), ActionState.DONE,
        [("sql", Operation.UPDATED, "/v2")]),
    "planned-only": (
        started(OLD, NEW, state=ActionState.PLANNED), owned(), seen(), ActionState.SKIPPED, []),
    "out-of-reach": (
        started(OLD, NEW), owned(), {"edge": Sighting(target="edge", at=NOW, cause=Cause.REFUSED)},
        ActionState.STARTED, []),
    "never-asked": (started(OLD, NEW), owned(), {}, ActionState.STARTED, []),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_table(row: str) -> None:
    action, recorded, sightings, state, versions = ROWS[row]
    (end,) = settle("lab", [action], recorded, sightings, NOW)
    assert end.action.state is state
    assert [(one.key.name, one.operation, one.served_path) for one in end.resources] == versions
    assert all(one.cause == INTERRUPTED and one.stack == "lab" for one in end.resources)


def test_another_stacks_resource_is_not_buried() -> None:
    others = {key: replace(one, stack="other") for key, one in owned().items()}
    (end,) = settle("lab", [started(OLD, NEW)], others, seen(), NOW)
    assert end.resources == ()
