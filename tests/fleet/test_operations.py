"""The management verbs on a fleet in this process: what the facade itself decides, and its values."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.base.errors import ConflictError, InvalidError
from garrison.base.exit_codes import ExitCode
from garrison.fleet.management.local import LocalOperations
from garrison.fleet.management.operations import Operations
from garrison.fleet.management.requests import AdoptRequest, ApplyRequest, DiscoverRequest, HistoryFilter
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values import events
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import Event, TargetRecord

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def world() -> Iterator[World]:
    made = World(targets=2)
    yield made
    made.fleet.close()


@pytest.fixture
def operations(world: World) -> Operations:
    return LocalOperations(world.fleet)


def drift(name: str, **values: Any) -> Event:
    return Event(at=NOW, kind=events.DRIFT, **({"stack": "lab", "target": "edge-1", "name": name} | values))


async def test_from_a_plan_to_a_destroyed_stack(world: World, operations: Operations) -> None:
    request = ApplyRequest(declaration=world.declaration(adapter()))
    plan = await operations.plan(request, world.view)
    applied = await operations.apply(request, world.view, fingerprint=plan.fingerprint)
    assert applied.exit_code is ExitCode.OK
    assert [one.state for one in (await operations.status(world.view)).stacks[0].adapters] == ["served"]
    assert (await operations.drift(world.view)).found == ()
    plan = await operations.plan(ApplyRequest.destroying("lab"), world.view, settle=True)
    done = await operations.destroy("lab", world.view, fingerprint=plan.fingerprint)
    assert (done.gone, done.to_json()["destroyed"]) == (True, True)
    assert world.edge.served == {}


async def test_a_plan_without_settle_leaves_no_trace(world: World, operations: Operations) -> None:
    await world.apply(world.declaration(adapter()))
    del world.edge.served["sql"]
    request = ApplyRequest(declaration=world.declaration(adapter()))
    before = world.store.revision(), len(world.store.events())
    await operations.plan(request, world.view)
    assert (world.store.revision(), len(world.store.events())) == before
    await operations.plan(request, world.view, settle=True)
    assert len(world.store.events()) > before[1]


@pytest.mark.parametrize("verb", ["plan", "destroy"])
async def test_a_stack_that_is_not_on_record_cannot_be_destroyed(
    world: World, operations: Operations, verb: str
) -> None:
    await world.apply(world.declaration(adapter()))
    work = (
        operations.plan(ApplyRequest.destroying("nope"), world.view)
        if verb == "plan"
        else operations.destroy("nope", world.view)
    )
    with pytest.raises(InvalidError, match="stack 'nope' is not on record") as raised:
        await work
    assert raised.value.hint is not None
    assert "lab" in raised.value.hint


async def test_what_is_owed_is_carried_out_later(world: World, operations: Operations) -> None:
    away = world.targets["edge-2"]
    away.down = TransportError(TransportCause.REFUSED, "connection refused")
    request = ApplyRequest(declaration=world.declaration(adapter(), adapter(target="edge-2")))
    applied = await operations.apply(request, world.view)
    assert applied.exit_code is ExitCode.UNREACHABLE
    waits = []

    def waiting(owed: int, seconds: float) -> None:
        waits.append((owed, seconds))
        away.down = None

    done = await operations.carry_owed("lab", applied, world.view, waiting=waiting)
    assert waits == [(1, 1.0)]
    assert done.exit_code is ExitCode.OK
    assert len(done.outcomes) == 2
    assert away.served == {"sql": "/models/sql"}


@pytest.mark.parametrize(
    ("request_", "adopted"),
    [
        (AdoptRequest(stack="new", names=("a",)), ["edge-1/a", "edge-2/a"]),
        (AdoptRequest(stack="new", names=("edge-2/a",)), ["edge-2/a"]),
        (AdoptRequest(stack="new", names=("x/y",)), ["edge-1/x/y"]),
        (AdoptRequest(stack="new", query="target:edge-1 path:/tmp/*"), ["edge-1/a", "edge-1/x/y"]),
    ],
)
async def test_what_is_adopted(
    world: World, operations: Operations, request_: AdoptRequest, adopted: list[str]
) -> None:
    await world.apply(world.declaration())
    world.edge.served.update({"a": "/tmp/a", "x/y": "/tmp/xy"})
    world.targets["edge-2"].served["a"] = "/tmp/a"
    found = await operations.propose_adoption(request_, world.view)
    assert sorted(f"{one.target}/{one.lora_name}" for one in found.addition.adapters) == adopted
    done = await operations.adopt(request_, world.view, fingerprint=found.fingerprint)
    assert len(done.to_json()["adopted"]) == len(adopted)


@pytest.mark.parametrize("given", [{}, {"names": ("a",), "query": "name:a"}])
async def test_names_or_a_query(world: World, operations: Operations, given: dict[str, Any]) -> None:
    with pytest.raises(InvalidError, match="either names of adapters or a query"):
        await operations.adopt(AdoptRequest(stack="lab", **given), world.view)


async def test_forget_needs_what_was_confirmed(world: World, operations: Operations) -> None:
    await world.apply(world.declaration(adapter()))
    loss = await operations.propose_forgetting("edge-1", world.view, force=True)
    with pytest.raises(ConflictError):
        await operations.forget("edge-1", world.view, fingerprint="another", force=True)
    await operations.forget("edge-1", world.view, fingerprint=loss.fingerprint, force=True)
    assert [one.name for one in world.store.targets()] == ["edge-2"]


async def test_discover_looks_at_what_is_asked_for(world: World, operations: Operations) -> None:
    await world.apply(world.declaration(adapter()))
    assert [one.target.name for one in await operations.discover(DiscoverRequest(), world.view)] == ["edge-1", "edge-2"]
    (one,) = await operations.discover(DiscoverRequest(wanted=("edge-2",)), world.view)
    assert one.known


async def test_the_inventory_and_what_is_extracted_from_it(world: World, operations: Operations) -> None:
    await world.apply(world.declaration(adapter(), adapter(target="edge-2")))
    found = await operations.inventory("adapters", "target:edge-2")
    assert [row["target"] for row in found.to_json()] == ["edge-2"]
    assert (found.on_record, found.targets, found.now) == (2, 2, world.clock.now())
    with pytest.raises(InvalidError, match="unknown kind of record 'pods'"):
        await operations.inventory("pods")
    extracted = await operations.extract("target:edge-2", stack="lab")
    assert [one.target for one in extracted.declaration.adapters] == ["edge-2"]


async def test_targets_of_a_stack_are_read_without_the_others(world: World, operations: Operations) -> None:
    asked: list[Any] = []
    targets = world.store.targets

    def counted(names: Any = None) -> list[TargetRecord]:
        asked.append(names)
        return targets(names)

    await world.apply(world.declaration(adapter()))
    await world.apply(replace(world.declaration(stack="small"), targets={}))
    world.store.targets = counted  # type: ignore[method-assign]  # the test's own
    assert [one.name for one in await operations.targets(stack="lab")] == ["edge-1", "edge-2"]
    assert [one.name for one in await operations.targets(["edge-2", "unknown"], stack="small")] == ["edge-2"]
    assert asked == [{"edge-1", "edge-2"}, {"edge-2", "unknown"}]


# --- history


async def test_history_is_oldest_first_and_ends_with_the_newest(world: World, operations: Operations) -> None:
    world.store.add_events([drift(str(number)) for number in range(5)])
    found = await operations.history(HistoryFilter(), limit=3)
    assert [one.name for one in found] == ["2", "3", "4"]


async def test_a_follower_gets_what_was_and_what_comes_from_whomever(world: World, operations: Operations) -> None:
    world.store.add_events([drift("a"), drift("b"), drift("else", target="edge-2")])
    following = operations.follow(HistoryFilter(target="edge-1"), after_id=1)
    async with asyncio.timeout(20):
        assert (await anext(following)).name == "b"
        await world.fleet.db(world.store.add_events, [drift("ours"), drift("ours", target="edge-2")])
        assert (await anext(following)).name == "ours"
        world.store.add_events([drift("another process")])
        assert (await anext(following)).name == "another process"
    await _close(following)


async def test_a_follower_that_is_slow_loses_nothing(world: World, operations: Operations) -> None:
    following = operations.follow(HistoryFilter(), after_id=0)
    world.store.add_events([drift("first")])
    async with asyncio.timeout(20):
        assert (await anext(following)).name == "first"
        world.store.add_events([drift(str(number)) for number in range(3000)])
        while await world.fleet.feed.pull():  # more than a subscriber may keep
            pass
        assert [(await anext(following)).name for _ in range(3000)] == [str(number) for number in range(3000)]
    await _close(following)


async def _close(following: AsyncIterator[Event]) -> None:
    assert hasattr(following, "aclose")
    await following.aclose()


# --- values


@pytest.mark.parametrize(
    "value",
    [
        ApplyRequest(
            declaration=World().declaration(adapter(digest="d")), mode="patch", options=PlanOptions(force=True)
        ),
        ApplyRequest.destroying("lab"),
        AdoptRequest(stack="lab", names=("edge-1/a", "b")),
        AdoptRequest(stack="lab", query="name:a"),
        DiscoverRequest(),
        DiscoverRequest(
            wanted=("http://x",),
            declared={"a": TargetSpec(name="a", base_url="http://a:1", api_key=Secret("env", "A_KEY"))},
            api_key=Secret("env", "KEY"),
        ),
        HistoryFilter(),
        HistoryFilter(stack="lab", target="a", name="b", kinds=("drift",), since=NOW),
    ],
)
def test_requests_can_be_sent(value: Any) -> None:
    assert type(value).from_json(json.loads(json.dumps(value.to_json()))) == value


async def test_results_can_be_sent(world: World, operations: Operations) -> None:
    request = ApplyRequest(declaration=world.declaration(adapter()))
    world.edge.served["free"] = "/tmp/free"
    results = [
        await operations.plan(request, world.view),
        await operations.apply(request, world.view),
        await operations.propose_adoption(AdoptRequest(stack="lab", names=("free",)), world.view),
        await operations.adopt(AdoptRequest(stack="lab", names=("free",)), world.view),
        await operations.status(world.view),
        *await operations.discover(DiscoverRequest(), world.view),
        await operations.inventory("stacks"),
        await operations.propose_forgetting("edge-1", world.view, force=True),
        await operations.forget("edge-1", world.view, force=True),
        await operations.destroy("lab", world.view),
    ]
    for one in results:
        assert json.loads(json.dumps(one.to_json()))
