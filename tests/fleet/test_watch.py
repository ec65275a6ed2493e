from collections.abc import Iterator
from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.fleet.execute.lease import hold
from garrison.fleet.operations.watch import WatchResult, watch
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import ActionState
from garrison.testing.targets import refusal

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def world() -> Iterator[World]:
    made = World(targets=2)
    yield made
    made.fleet.close()


async def owed(world: World) -> None:
    """`sql` is owed by `edge-1`."""
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter("sql"), adapter("sql", "edge-2")))


async def stay(world: World, script: Any, **options: Any) -> tuple[WatchResult, list[float]]:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        world.clock.advance(seconds)
        waits.append(seconds)
        assert len(waits) < 20
        script(len(waits))

    watched = await watch(world.fleet, "lab", world.view, targets={"edge-1"}, owed=1, sleep=sleep, **options)
    return watched, waits


async def test_until_the_target_is_back(world: World) -> None:
    await owed(world)
    watched, waits = await stay(world, lambda number: setattr(world.edge, "down", None if number > 4 else DOWN))
    assert [(one.action.name, one.state) for one in watched.outcomes] == [("sql", ActionState.DONE)]
    assert watched.owed == 0
    assert world.edge.served == {"sql": "/models/sql"}
    assert waits == sorted(waits), "the waits grow"
    assert len(waits) == 5


async def test_the_waits_are_bounded(world: World) -> None:
    await owed(world)
    _, waits = await stay(world, lambda number: setattr(world.edge, "down", None if number > 9 else DOWN), longest=4.0)
    assert max(waits) <= 4.0 * 1.2


async def test_what_fails_for_good_is_not_tried_for_ever(world: World) -> None:
    await owed(world)
    world.edge.broken["/models/sql"] = refusal(404, "NotFoundError", "No adapter found for /models/sql")
    watched, waits = await stay(world, lambda _: setattr(world.edge, "down", None))
    assert [one.state for one in watched.outcomes] == [ActionState.FAILED]
    assert len(waits) == 1


async def test_what_failed_for_good_is_left_alone_while_another_target_is_waited_for(world: World) -> None:
    edges = [world.targets["edge-1"], world.targets["edge-2"]]
    for edge in edges:
        edge.down = DOWN
    await world.apply(world.declaration(adapter("sql"), adapter("sql", "edge-2")))
    edges[0].down = None
    edges[0].broken["/models/sql"] = refusal(404, "NotFoundError", "No adapter found for /models/sql")
    rounds = []

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        edges[1].down = DOWN if len(rounds) < 4 else None

    watched = await watch(world.fleet, "lab", world.view, targets={"edge-1", "edge-2"}, owed=2, sleep=sleep)
    assert len(world.targets.asked("POST", "/v1/load_lora_adapter", "edge-1")) == 1
    assert sorted((one.action.target, str(one.state)) for one in watched.outcomes) == [
        ("edge-1", "failed"), ("edge-2", "done"),
    ]  # fmt: skip


async def test_only_those_targets_are_asked(world: World) -> None:
    await owed(world)
    asked = len(world.targets.asked("GET", "/v1/models", "edge-2"))
    await stay(world, lambda _: setattr(world.edge, "down", None))
    assert len(world.targets.asked("GET", "/v1/models", "edge-2")) == asked


async def test_another_holder_is_waited_for(world: World) -> None:
    await owed(world)
    world.edge.down = None
    holder = hold(world.fleet, "lab", "a test")
    await holder.__aenter__()
    rounds = []

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            await holder.__aexit__(None, None, None)

    watched = await watch(world.fleet, "lab", world.view, targets={"edge-1"}, owed=1, sleep=sleep)
    assert len(rounds) == 3
    assert len(watched.outcomes) == 1


async def test_it_ends_when_asked_while_another_command_holds_the_stack(world: World) -> None:
    await owed(world)
    async with hold(world.fleet, "lab", "a test"):
        watched, waits = await stay(world, lambda _: None, stopping=lambda: True)
    assert (watched, len(waits)) == (WatchResult(owed=1), 1)


async def test_ends_when_the_stack_is_gone_and_when_asked(world: World) -> None:
    await owed(world)
    watched, _ = await stay(world, lambda _: None, stopping=lambda: True)
    assert watched.owed == 1
    world.edge.down = None
    await world.destroy()
    assert await stay(world, lambda _: None) == (WatchResult(), [pytest.approx(1.0, rel=0.3)])
