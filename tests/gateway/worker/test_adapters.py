"""Requests for adapters: to where one is loaded, under the name that it has there, or none."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
import pytest
from routed import Routed, body_of, refuse

from garrison.base.errors import NotReadyError
from garrison.gateway.link.messages import RouteValue, Tables, TargetValue
from garrison.gateway.worker.exchange.exchange import Exchange
from garrison.gateway.worker.table.targets import RouteTable, Target


@pytest.fixture
async def two() -> AsyncIterator[Routed]:
    async with Routed("a", "b") as made:
        yield made


def sql(two: Routed, *models: str, **more: Any) -> None:
    """Say what each place calls the adapter `sql`; an empty name for one that has not loaded it."""
    two.route(*"ab"[: len(models)], models=models, adapters=("sql",) * len(models), **more)


def asked(two: Routed, name: str) -> list[str]:
    return [one["model"] for one in two.places[name].asked]


async def test_it_goes_where_the_adapter_is_loaded(two: Routed) -> None:
    sql(two, "", "sql@1")
    assert await two.answers(6) == ["b"] * 6
    assert asked(two, "b") == ["sql@1"] * 6
    assert two.link.activated == []


async def test_the_next_request_goes_to_the_next_version(two: Routed) -> None:
    sql(two, "sql@1")
    assert await two.answers(2) == ["a"] * 2
    sql(two, "sql@2")
    assert await two.answers(2) == ["a"] * 2
    assert asked(two, "a") == ["sql@1", "sql@1", "sql@2", "sql@2"]


@pytest.mark.parametrize("policy", ["least-outstanding", "round-robin", "hash", "warm-first", "pin", "spill"])
async def test_a_version_that_changes_does_not_move_a_session(two: Routed, policy: str) -> None:
    sql(two, "sql@1", "sql@1", policy=policy)
    headers = "x-session-id: s\r\n"
    before = await two.answers(4, headers=headers)
    sql(two, "sql@2", "sql@2", policy=policy)
    after = await two.answers(4, headers=headers)
    assert len(before) == len(after) == 4
    if policy in ("hash", "warm-first", "pin", "spill"):
        assert set(before) == set(after)


async def test_two_versions_behind_an_alias_by_weight(two: Routed) -> None:
    two.tell(
        routes=[
            RouteValue(
                name="r", targets=("instance:a", "instance:a"), models=("old@1", "new@2"), adapters=("old", "new"),
                weights=(3.0, 1.0), policy="round-robin",
            )
        ]
    )  # fmt: skip
    await two.answers(40)
    assert (asked(two, "a").count("old@1"), asked(two, "a").count("new@2")) == (30, 10)
    two.tell(
        routes=[
            RouteValue(
                name="r", targets=("instance:a", "instance:a"), models=("old@1", ""), adapters=("old", "new"),
                weights=(3.0, 1.0), policy="round-robin",
            )
        ]
    )  # fmt: skip
    await two.answers(4)
    assert asked(two, "a")[40:] == ["old@1"] * 4, "the share of one that is not loaded goes to the other"


async def test_where_none_has_it_the_control_process_is_asked(two: Routed) -> None:
    sql(two, "", "")
    ends: list[tuple[str, str]] = []

    def load(target: Target, exchange: Exchange) -> None:
        ends.append((exchange.cold[0].adapter, exchange.cold[0].model))
        sql(two, "", "sql@1")
        exchange.activated(two.target("b"))

    two.link.on_activate = load
    assert await two.answers(1) == ["b"]
    assert ends == [("sql", "")]
    assert (two.link.activated, asked(two, "b"), two.counted()) == (["instance:a"], ["sql@1"], {})
    assert two.target("a").using == two.target("b").using == {}


async def test_a_version_that_changed_while_a_request_waited(two: Routed) -> None:
    sql(two, "")

    def load(target: Target, exchange: Exchange) -> None:
        sql(two, "sql@1")
        sql(two, "sql@2")
        exchange.activated(target)

    two.link.on_activate = load
    assert await two.answers(1) == ["a"]
    assert asked(two, "a") == ["sql@2"]


async def test_one_that_was_unloaded_again_meanwhile(two: Routed) -> None:
    sql(two, "")
    two.link.on_activate = lambda target, exchange: exchange.activated(target)
    status, head, text = await two.ask()
    assert (status, "unloaded again" in text, "retry-after" in head) == (503, True, True)
    assert two.places["a"].asked == [], "the base was not asked instead"


async def test_why_it_is_not_loaded_is_said(two: Routed) -> None:
    sql(two, "")
    two.link.on_activate = refuse(NotReadyError("sql is not loaded: no such file", details={"retry_after": 5}))
    status, head, text = await two.ask()
    assert (status, "no such file" in text, "retry-after: 5" in head) == (503, True, True)
    assert two.places["a"].asked == []


async def test_the_end_of_the_last_request_to_a_name_is_told(two: Routed) -> None:
    sql(two, "sql@1")
    target = two.target("a")
    two.places["a"].how = "held"
    _, first = await two.begin()
    _, second = await two.begin()
    await two.until(lambda: target.using == {"sql@1": 2})
    target.awaited["sql@1"] = [7]
    sql(two, "sql@2")
    _, third = await two.begin()
    await two.until(lambda: target.using == {"sql@1": 2, "sql@2": 1})
    first.close()
    await two.until(lambda: target.using.get("sql@1") == 1)
    assert two.link.has_left == []
    second.close()
    await two.until(lambda: two.link.has_left == [7])
    third.close()
    await two.until(lambda: target.using == {})
    assert (two.link.has_left, two.counted()) == ([7], {})
    assert target.used == {"sql@1", "sql@2"}


async def test_a_name_that_a_client_made_up_counts_too(two: Routed) -> None:
    two.tell(routes=[RouteValue(name="a", targets=("instance:a",), nested=True)])
    two.places["a"].how = "held"
    _, writer = await two.begin(body_of("a/sql@1"))
    await two.until(lambda: two.target("a").using == {"sql@1": 1})
    writer.close()
    await two.until(lambda: two.target("a").using == {})


def table(**routes: Mapping[str, Any]) -> RouteTable:
    made = RouteTable()
    values = [RouteValue(**{"name": name, "targets": ("t",)} | dict(more)) for name, more in routes.items()]
    made.apply(Tables(version=1, targets=[TargetValue(id="t", url="http://x:1")], routes=values))
    return made


def test_names() -> None:
    found = table(
        **{
            "acme/sql": {}, "qwen": {"nested": True}, "qwen/sql": {"models": ("sql@1",), "adapters": ("sql",)},
            "small": {"nested": True, "names": ("org/small",)}, "node": {"nested": True, "bare": False},
        }
    )  # fmt: skip

    def of(name: str) -> tuple[str, str] | None:
        there = found.find(name)
        return None if there is None else (there[0].name, there[1])

    assert of("acme/sql") == ("acme/sql", "")
    assert of("qwen/sql") == ("qwen/sql", ""), "an adapter that is declared there"
    assert of("qwen/other") == ("qwen", "other"), "the engine says whether it has that"
    assert of("small/org/small") == ("small", "org/small")
    assert of("small/sql") is None, "its engine would answer with the base, whatever it is asked for"
    assert of("node") is None
    assert of("node/qwen/sql") == ("node", "qwen/sql")


async def test_what_is_listed(two: Routed) -> None:
    two.tell(
        routes=[
            RouteValue(name="sql", targets=("instance:a",), models=("sql@1",), adapters=("sql",)),
            RouteValue(name="a/sql", targets=("instance:a",), models=("sql@1",), adapters=("sql",), listed=False),
        ]
    )
    _, _, text = await two.ask(path="/v1/models", method="GET")
    assert [one["id"] for one in msgspec.json.decode(text)["data"]] == ["sql"]
    assert await two.answers(1, body=body_of("a/sql")) == ["a"]
