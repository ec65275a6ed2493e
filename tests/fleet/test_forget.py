"""Dropping a target, over the in-memory twins."""

from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.base.errors import ConflictError, InvalidError
from garrison.fleet.execute.lease import hold
from garrison.fleet.operations.forget import Forgotten, forget
from garrison.fleet.values.observation import Cause
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError


async def drop(world: World) -> Forgotten:
    return await forget(world.fleet, "edge-1", world.view, force=True)


async def test_what_every_stack_has_there_goes_and_the_server_is_not_touched(world: World) -> None:
    await world.apply(world.declaration(adapter("a"), stack="one"))
    await world.apply(world.declaration(adapter("b"), stack="two"))
    await drop(world)
    await world.agent_pass()
    assert world.edge.served == {"a": "/models/a", "b": "/models/b"}
    assert world.store.targets() == []
    assert world.store.resources() == []
    assert [one.declaration["adapters"] for one in world.store.stacks()] == [[], []]


@pytest.mark.parametrize("method", ["forget", "declare"])
async def test_a_kill_in_the_middle_unloads_nothing(world: World, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    await world.apply(world.declaration(adapter("a"), on_drift="restore"))

    def killed(*_: Any) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(world.store, method, killed)
        with pytest.raises(RuntimeError):
            await drop(world)
    await world.agent_pass()
    assert world.edge.served == {"a": "/models/a"}


@pytest.mark.parametrize("cause", [Cause.UNAUTHORIZED, Cause.FORBIDDEN, Cause.TLS, Cause.LOCAL])
@pytest.mark.parametrize("outage", [False, True])
async def test_wrong_credentials_do_not_make_a_target_unreachable(world: World, cause: Cause, outage: bool) -> None:
    await world.apply(world.declaration(adapter("a")))
    if outage:
        world.edge.down = TransportError(TransportCause.REFUSED, "connection refused")
        await world.agent_pass()
    world.edge.down = TransportError(cause, "not with these")

    async def without_force() -> Forgotten:
        return await forget(world.fleet, "edge-1", world.view)

    if outage and cause is Cause.LOCAL:  # nothing was sent, and it was out of reach before
        await without_force()
        return
    with pytest.raises(InvalidError, match=r"may be reachable with other credentials.*not with these"):
        await without_force()
    assert len(world.store.targets()) == len(world.store.resources()) == 1
    await world.agent_pass()  # its own credentials are refused, too: now it is out of reach
    await without_force()
    assert world.store.targets() == []


async def test_every_stack_is_held_first(world: World) -> None:
    await world.apply(world.declaration(adapter("a"), stack="one"))
    await world.apply(world.declaration(adapter("b"), stack="two"))
    async with hold(world.fleet, "two", "apply"):
        with pytest.raises(ConflictError, match="stack two has been held by"):
            await drop(world)
    assert len(world.store.resources()) == 2
    assert [one.version for one in world.store.stacks()] == [1, 1]
