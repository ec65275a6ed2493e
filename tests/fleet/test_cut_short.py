"""What commands that were killed leave behind, and what others may still owe or own: stories over the twins."""

from collections.abc import Iterator

import pytest
from fleet_world import World, adapter

from garrison.base.exit_codes import ExitCode
from garrison.fleet.agent.loop import Agent
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.operations.apply import apply
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values import events
from garrison.fleet.values.declaration import Declaration
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import CommandState, Event, Operation
from garrison.testing.targets import MemoryFault

DOWN = TransportError(TransportCause.REFUSED, "connection refused")
LOST = TransportError(TransportCause.RESET, "the connection was reset", sent=True)


class KilledError(BaseException):
    """Stands for SIGKILL: no handler of Garrison sees it."""


@pytest.fixture
def world() -> Iterator[World]:
    made = World(targets=2)
    yield made
    made.fleet.close()


async def killed(world: World, declaration: Declaration, at: str = "loaded") -> None:
    def checkpoint(name: str) -> None:
        if name == at:
            raise KilledError

    execution = ExecuteOptions(probe=False, checkpoint=checkpoint)
    with pytest.raises(KilledError):
        await apply(
            world.fleet,
            declaration,
            world.view,
            options=PlanOptions(),
            execution=execution,
        )


def running(world: World) -> list[str]:
    return [one.id for one in world.store.commands() if one.state is CommandState.RUNNING]


async def test_a_destroy_finds_what_a_killed_apply_loaded_and_had_not_recorded(world: World) -> None:
    await killed(world, world.declaration(adapter()))
    assert world.edge.served == {"sql": "/models/sql"}
    await world.destroy()
    assert world.edge.served == {}
    assert world.store.stacks() == []
    assert world.store.targets() == []
    assert running(world) == []


async def test_a_manifest_without_the_target_finds_it_too(world: World) -> None:
    await killed(world, world.declaration(adapter()))
    await world.apply(Declaration(stack="lab"))
    assert world.edge.served == {}
    assert running(world) == []


async def test_what_was_begun_on_a_target_out_of_reach_is_owed_by_it(world: World) -> None:
    """The target and the destroyed stack stay known until it is back."""
    await killed(world, world.declaration(adapter()))
    world.edge.down = DOWN
    await world.destroy()
    await world.agent_pass()
    assert [one.name for one in world.store.targets()] == ["edge-1"]
    world.edge.down = None
    await world.agent_pass()
    assert world.edge.served == {}
    assert world.store.stacks() == []
    assert running(world) == []


async def test_what_was_begun_on_a_forgotten_target_has_failed(world: World) -> None:
    await killed(world, world.declaration(adapter()))
    now = world.clock.now()
    world.store.forget("edge-1", now, Event(at=now, kind=events.FORGOTTEN, target="edge-1"))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    await agent.shutdown()
    assert running(world) == []


async def test_a_running_agent_ends_a_command_that_was_killed_with_nothing_left_to_do(world: World) -> None:
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    await killed(world, world.declaration(adapter()), at="recorded")
    await agent.once()
    world.clock.advance(60)
    await agent.once()
    await agent.shutdown()
    assert running(world) == []
    assert not world.told(events.DRIFT)


async def test_a_delete_that_was_cut_short_blames_nobody(world: World) -> None:
    await world.apply(world.declaration(adapter("sql"), adapter("chat", "edge-2")))
    await killed(world, world.declaration(), at="unloaded")
    await world.agent_pass()
    assert world.store.resources() == []
    assert not world.told(events.DRIFT)


async def test_a_destroy_that_was_killed_before_the_stack_went_is_completed(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    drop, world.store.drop_stack = world.store.drop_stack, _raise  # type: ignore[method-assign] # killed right there
    with pytest.raises(KilledError):
        await world.destroy()
    world.store.drop_stack = drop  # type: ignore[method-assign] # as it was
    assert [one.ending for one in world.store.stacks()] == [True]
    await world.agent_pass()
    assert world.store.stacks() == []


async def test_and_by_another_destroy(world: World) -> None:
    drop, world.store.drop_stack = world.store.drop_stack, _raise  # type: ignore[method-assign] # killed right there
    with pytest.raises(KilledError):
        await world.destroy()
    world.store.drop_stack = drop  # type: ignore[method-assign] # as it was
    await world.destroy()
    assert world.store.stacks() == []


async def test_an_empty_manifest_revives_a_stack_that_is_ending(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.down = DOWN
    await world.destroy()
    world.edge.down = None
    await world.apply(Declaration(stack="lab"))
    assert [one.ending for one in world.store.stacks()] == [False]


async def test_what_one_stack_cannot_have_is_repaired_for_the_one_that_owns_it(world: World) -> None:
    """Both declared the name while the target was out of reach."""
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter(), stack="first", on_drift="restore"))
    await world.apply(world.declaration(adapter(), adapter("chat"), stack="second", on_drift="restore"))
    world.edge.down = None
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    world.edge.restart()
    world.clock.advance(60)
    await agent.once()
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}
    await agent.shutdown()


async def test_an_answer_that_was_lost_ends_its_command_when_the_target_is_back(world: World) -> None:
    world.edge.faults.append(MemoryFault("/v1/load_lora_adapter", LOST, after=True, times=1))
    world.edge.faults.append(MemoryFault("/v1/models", DOWN, skip=1, times=20))
    await world.apply(world.declaration(adapter()))
    assert running(world)
    world.edge.faults.clear()
    await world.agent_pass()
    assert running(world) == []
    recorded = world.recorded("sql")
    assert recorded is not None
    assert recorded.operation is Operation.CREATED


def _raise(*_: object, **__: object) -> None:
    raise KilledError


async def test_what_an_apply_asked_for_again_is_owed_though_drift_is_only_reported(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.restart()
    await killed(world, world.declaration(adapter()), at="intended")
    await world.agent_pass()
    assert world.edge.served == {"sql": "/models/sql"}


async def test_and_so_is_what_was_asked_for_while_the_target_was_away(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.restart()
    await world.agent_pass()
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter()))
    world.edge.down = None
    await world.agent_pass()
    assert world.edge.served == {"sql": "/models/sql"}


async def test_a_destroy_that_still_waits_for_a_target_does_not_say_ok(world: World) -> None:
    await killed(world, world.declaration(adapter()))
    world.edge.down = DOWN
    assert (await world.destroy()).exit_code is ExitCode.UNREACHABLE


async def test_what_is_owned_on_a_forgotten_target_is_found_by_its_declaration(world: World) -> None:
    """The target was forgotten while its command was cut short, and the next one was killed before it declared it."""
    await killed(world, world.declaration(adapter()))
    now = world.clock.now()
    world.store.forget("edge-1", now, Event(at=now, kind=events.FORGOTTEN, target="edge-1"))
    declare, world.store.declare = world.store.declare, _raise  # type: ignore[method-assign] # killed right there
    with pytest.raises(KilledError):
        await world.apply(world.declaration(adapter(), adapter("chat")))
    world.store.declare = declare  # type: ignore[method-assign] # as it was
    await world.agent_pass()
    await world.destroy()
    assert world.edge.served == {}
    assert world.store.stacks() == []
