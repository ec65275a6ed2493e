"""Looking changes nothing: what a command sees is no news of a target that others share."""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from fleet_world import World, adapter

from garrison.fleet.operations.discover import discover
from garrison.fleet.report.inspect import find_drifts, status_of
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import TargetRecord
from garrison.testing.targets import MemoryTarget

DOWN = TransportError(TransportCause.REFUSED, "connection refused")
# A server that answers 401 comes to the same as a transport that reports it.
DENIED = TransportError(Cause.UNAUTHORIZED, "401: the API key was not accepted")

Look = Callable[[World], Awaitable[object]]


@pytest.fixture
def world() -> World:
    return World()


async def plan_it(world: World) -> object:
    return await world.plan(world.declaration(adapter()))


async def plan_another(world: World) -> object:
    """For a manifest that was never applied, which names the target with a key of its own."""
    spec = TargetSpec(name="edge-1", base_url="http://edge-1:8000", api_key=Secret("env", "MINE"))
    return await world.plan(Declaration(stack="new", targets={"edge-1": spec}, adapters=(adapter("chat"),)), force=True)


LOOKS: dict[str, Look] = {
    "plan": plan_it,
    "plan of a new manifest": plan_another,
    "status": lambda world: status_of(world.fleet, world.view, stack=None, cached=False),
    "status of a stack": lambda world: status_of(world.fleet, world.view, stack="lab", cached=False),
    "drift": lambda world: find_drifts(world.fleet, world.view, stack=None),
    "discover with a key of its own": lambda world: discover(
        world.fleet,
        {"edge-1": TargetSpec(name="edge-1", base_url="http://edge-1:8000", api_key=Secret("env", "MINE"))},
        world.view,
    ),
}


def everything(world: World) -> tuple[list[TargetRecord], int, int]:
    return world.store.targets(), len(world.store.events(limit=1000)), len(world.store.observations(limit=1000))


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize(
    "wrong",
    [
        DENIED,
        DOWN,
        TransportError(TransportCause.DNS, "no such host"),
        TransportError(TransportCause.TLS, "wrong CA"),
        None,
    ],
)
async def test_it_writes_nothing(world: World, look: str, wrong: TransportError | None) -> None:
    await world.apply(world.declaration(adapter()))
    world.clock.advance(60)
    before = everything(world)
    world.edge.down = wrong
    if wrong is None:  # what is seen is news: it was restarted, and somebody else loads adapters there
        world.edge.restart()
        world.edge.served["theirs"] = "/theirs"
    await LOOKS[look](world)
    assert everything(world) == before


@pytest.mark.parametrize("look", LOOKS)
async def test_a_target_that_is_away_is_not_said_to_be_back(world: World, look: str) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.down = DOWN
    await world.agent_pass()
    world.edge.down = None
    before = everything(world)
    await LOOKS[look](world)
    assert everything(world) == before


@pytest.mark.parametrize("cause", [Cause.UNAUTHORIZED, Cause.FORBIDDEN, Cause.TLS, Cause.LOCAL])
async def test_an_apply_with_wrong_credentials_is_no_news_of_a_target_that_is_well(world: World, cause: Cause) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.down = TransportError(cause, "not with these")
    applied = await world.apply(world.declaration(adapter(), adapter("chat")))
    assert applied.plan.unknown
    assert world.store.targets()[0].state == "reachable"
    assert not world.told(events.UNREACHABLE)
    await world.agent_pass()  # it has credentials of its own, so what it meets is news
    assert [one.cause for one in world.told(events.UNREACHABLE)] == [str(cause)]


@pytest.mark.parametrize("command", ["apply", "discover"])
@pytest.mark.parametrize("cause", [Cause.UNAUTHORIZED, Cause.FORBIDDEN, Cause.TLS, Cause.LOCAL])
async def test_wrong_credentials_are_no_news_of_a_target_that_is_away(world: World, command: str, cause: Cause) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.down = DOWN
    await world.agent_pass()
    before = everything(world)
    world.edge.down = TransportError(cause, "not with these")
    if command == "apply":
        await world.apply(world.declaration(adapter()))
    else:
        await discover(world.fleet, world.declaration().targets, world.view)
    (record,) = world.store.targets()
    assert (record.state, record.cause, record.detail) == ("unreachable", "refused", before[0][0].detail)
    assert len(world.told(events.UNREACHABLE)) == 1
    assert not [one for one in world.told(events.CHANGED) if one.cause == str(cause)]


@pytest.mark.parametrize("cause", [Cause.UNAUTHORIZED, Cause.FORBIDDEN, Cause.TLS, Cause.LOCAL])
async def test_discover_remembers_what_it_saw_but_not_that_its_key_is_wrong(world: World, cause: Cause) -> None:
    await world.apply(world.declaration(adapter()))
    targets = world.declaration().targets
    world.edge.served["theirs"] = "/theirs"
    await discover(world.fleet, targets, world.view)
    (before,) = world.store.targets()
    assert {one["name"] for one in before.served} == {"acme/tiny", "sql", "theirs"}
    world.edge.down = TransportError(cause, "not with these")
    await discover(world.fleet, targets, world.view)
    assert world.store.targets() == [before]
    assert not world.told(events.UNREACHABLE)


async def test_an_apply_tells_of_an_outage(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter()))
    assert [one.cause for one in world.told(events.UNREACHABLE)] == ["refused"]


async def test_what_was_seen_with_new_settings_is_kept_once_they_are_declared(world: World) -> None:
    before = world.declaration(adapter())
    await world.apply(before)
    world.edge.restart()
    spec = replace(before.targets["edge-1"], api_key=Secret("env", "NEW"))
    changed = replace(before, targets={"edge-1": spec})
    await world.plan(changed)
    assert not world.told(events.RESTARTED)
    await world.apply(changed)
    assert len(world.told(events.RESTARTED)) == 1
    assert {one.cause for one in world.told(events.DRIFT)} == {"restarted"}
    assert world.store.targets()[0].capabilities["started_at"] == world.edge.started_at


async def test_a_target_that_moved_out_of_reach_was_never_seen_there(world: World) -> None:
    before = world.declaration(adapter())
    await world.apply(before)
    world.targets.targets["edge-1"] = MemoryTarget(
        down=TransportError(TransportCause.LOCAL, "the variable K is not set")
    )
    spec = replace(before.targets["edge-1"], base_url="http://edge-9:8000")
    await world.apply(replace(before, targets={"edge-1": spec}))
    (record,) = world.store.targets()
    assert (record.state, record.last_seen, record.served) == ("new", None, ())
