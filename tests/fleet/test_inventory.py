from datetime import UTC, datetime

import pytest

from garrison.fleet.report.inventory import take_stock
from garrison.fleet.report.inventory_rows import FIELDS, NOUNS, select
from garrison.fleet.report.query import parse_query
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Key, Operation, Resource, StackRecord, TargetRecord

NOW = datetime(2026, 1, 2, tzinfo=UTC)
BASE = {"name": "acme/tiny", "root": "/models/tiny", "parent": None}


def served(name, root, parent="acme/tiny"):
    return {"name": name, "root": root, "parent": parent}


def target(name, *adapters, state="reachable", **fields):
    away = {"cause": "timeout", "detail": "no answer in 5 s"} if state == "unreachable" else {}
    spec = {"base_url": f"http://{name}:8000", "labels": {"site": "lab"}}
    return TargetRecord(
        **{"name": name, "spec": spec, "declared_at": NOW, "state": state, "since": NOW, "last_seen": NOW, "base":
           "acme/tiny", "served": (BASE, *adapters)} | away | fields
    )  # fmt: skip


def spec(target, name="sql", path="/a/sql"):
    return AdapterDeclaration(target=target, label=name, lora_name=name, lora_path=path)


def resource(spec, operation=Operation.CREATED, **fields):
    return Resource(
        **{"key": Key(spec.target, ADAPTER_TYPE, spec.lora_name), "stack": "s", "label": spec.label, "operation":
           operation, "spec": spec.to_json(), "served_path": spec.lora_path, "parent": "acme/tiny", "at": NOW} | fields
    )  # fmt: skip


def stack(*specs, name="s", **fields):
    targets = {one.target: TargetSpec(name=one.target, base_url="http://x") for one in specs}
    declaration = Declaration(stack=name, targets=targets, adapters=specs).to_json()
    return StackRecord(name=name, declaration=declaration, at=NOW, version=3, **fields)


SQL = spec("edge")
CASES = {
    "served": ([stack(SQL)], [target("edge", served("sql", "/a/sql"))], [resource(SQL)], "served", True),
    "missing": ([stack(SQL)], [target("edge")], [resource(SQL)], "missing", True),
    "tombstone": ([stack(SQL)], [target("edge")], [resource(SQL, Operation.LOST)], "missing", True),
    "path": ([stack(SQL)], [target("edge", served("sql", "/b"))], [resource(SQL)], "drifted", True),
    "base": ([stack(SQL)], [target("edge", served("sql", "/a/sql", "else"))], [resource(SQL)], "drifted", True),
    "owed": ([stack(SQL)], [target("edge", state="unreachable")], [], "owed", True),
    "unknown": (
        [stack(SQL)], [target("edge", served("sql", "/a/sql"), state="unreachable")], [resource(SQL)], "unknown", True,
    ),
    "unmanaged": ([], [target("edge", served("sql", "/a/sql"))], [], "unmanaged", False),
    "unmanaged-away": ([], [target("edge", served("sql", "/a"), state="unreachable")], [], "unknown", False),
}  # fmt: skip


@pytest.mark.parametrize(("stacks", "targets", "resources", "status", "managed"), CASES.values(), ids=CASES)
def test_adapters(stacks, targets, resources, status, managed):
    (row,) = take_stock(stacks, targets, resources, NOW).adapters
    assert (row.target, row.name, row.status, row.managed) == ("edge", "sql", status, managed)
    assert row.to_json()["target_state"]["last_seen"] == NOW.isoformat()
    if status == "unknown":
        assert (row.reach.cause, row.reach.since) == ("timeout", NOW)
        assert row.detail


def test_one_name_on_two_targets_is_two_adapters():
    rows = take_stock([], [target("a", served("sql", "/x")), target("b", served("sql", "/x"))], [], NOW).adapters
    assert [(row.target, row.name) for row in rows] == [("a", "sql"), ("b", "sql")]


def test_what_somebody_else_loaded_under_a_declared_name_is_shown_beside_what_is_owed():
    rows = take_stock([stack(SQL)], [target("edge", served("sql", "/b"))], [], NOW).adapters
    assert [(row.stack, row.status, row.path) for row in rows] == [(None, "unmanaged", "/b"), ("s", "owed", None)]


def test_what_is_seen_comes_before_what_was_applied():
    (row,) = take_stock([stack(SQL)], [target("edge", served("sql", "/b", "other"))], [resource(SQL)], NOW).adapters
    assert (row.path, row.base) == ("/b", "other")
    (row,) = take_stock([stack(SQL)], [target("edge")], [resource(SQL)], NOW).adapters
    assert (row.path, row.base) == ("/a/sql", "acme/tiny")


def test_targets_models_and_stacks():
    away = target("far", served("x", "/x"), state="unreachable")
    stock = take_stock([stack(SQL)], [target("edge", served("sql", "/a/sql")), away], [resource(SQL)], NOW)
    edge, far = (row.to_json() for row in stock.targets)
    assert (edge["adapters"], edge["unmanaged"], edge["stacks"], edge["labels"]) == (
        {"served": 1}, 0, ["s"], ["site=lab"],
    )  # fmt: skip
    assert (far["state"], far["cause"], far["unmanaged"]) == ("unreachable", "timeout", 1)
    assert [(row.target, row.name, row.status) for row in stock.models] == [
        ("edge", "acme/tiny", "served"), ("far", "acme/tiny", "unknown"),
    ]  # fmt: skip
    (one,) = stock.stacks
    assert one.to_json() == {
        "name": "s", "version": 3, "applied_at": NOW.isoformat(), "on_drift": "report", "ending": False,
        "targets": ["edge"], "adapters": {"served": 1},
    }  # fmt: skip


QUERIES = {
    "status:unmanaged": ["x"],
    "managed:true": ["sql"],
    "stack:s": ["sql"],
    "-stack:*": ["x"],
    "base:acme/* path:/a/*": ["sql"],
    "labels:site=lab": ["sql", "x"],
    "type:adapter": ["sql", "x"],
    "type:model": [],
    "label:sql": ["sql"],
}


@pytest.mark.parametrize(("query", "names"), QUERIES.items(), ids=QUERIES)
def test_queries(query, names):
    targets = [target("edge", served("sql", "/a/sql"), served("x", "/x"))]
    stock = take_stock([stack(SQL)], targets, [resource(SQL)], NOW)
    assert [row.name for row in select(stock.adapters, parse_query(query, FIELDS["adapters"]))] == names


@pytest.mark.parametrize("noun", NOUNS)
def test_every_field_that_can_be_asked_is_in_every_row(noun):
    targets = [target("edge", served("sql", "/a/sql"), served("x", "/x"))]
    rows = getattr(take_stock([stack(SQL)], targets, [resource(SQL)], NOW), noun)
    assert rows
    assert all(row.fields.keys() == FIELDS[noun].keys() for row in rows)


def test_nothing_on_record():
    stock = take_stock([], [], [], NOW)
    assert (stock.targets, stock.adapters, stock.models, stock.stacks) == ((), (), (), ())


@pytest.mark.parametrize(("query", "found"), [("status:drifted", 1), ("status:missing", 1), ("-status:drifted", 0)])
@pytest.mark.parametrize("noun", ["adapters", "stacks"])
def test_drifted_finds_what_is_missing(noun, query, found):
    rows = getattr(take_stock([stack(SQL)], [target("edge")], [resource(SQL)], NOW), noun)
    assert len(select(rows, parse_query(query, FIELDS[noun]))) == found
