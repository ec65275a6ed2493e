"""What the command's tests do not reach: kills, and stacks that are going."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fleet_world import World, adapter

from garrison.base.errors import ConflictError, DiskFullError, InvalidError
from garrison.fleet.operations.adopt import Candidate, adopt
from garrison.store.records import CommandState, Operation


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    made.edge.served["mine"] = "/tmp/mine"
    yield made
    made.fleet.close()


async def test_a_kill_after_the_intention_is_made_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.apply(world.declaration(adapter()))

    def killed(*_args: object) -> None:
        raise DiskFullError("as good as a kill")

    with monkeypatch.context() as patched:
        patched.setattr(world.store, "save_actions", killed)
        with pytest.raises(DiskFullError):
            await adopt(world.fleet, "lab", lambda one: one.served.name == "mine", world.view)
    assert world.recorded("mine") is None
    await world.agent_pass()
    mine = world.recorded("mine")
    assert mine is not None
    assert mine.operation is Operation.ADOPTED
    assert world.edge.served == {"mine": "/tmp/mine", "sql": "/models/sql"}
    assert CommandState.RUNNING not in [one.state for one in world.store.commands()]


async def test_what_is_adopted_is_unloaded_by_destroy(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    await adopt(world.fleet, "lab", lambda one: one.served.name == "mine", world.view)
    await world.destroy()
    assert world.edge.served == {}
    assert world.store.stacks() == []


async def test_a_target_that_another_stack_moves_meanwhile_stays_moved(world: World) -> None:
    await world.apply(world.declaration(adapter()))

    def choose(one: Candidate) -> bool:
        """Runs between the look and the record."""
        (record,) = world.store.targets()
        world.store.respecify([replace(record, spec=dict(record.spec) | {"base_url": "http://elsewhere:8000"})])
        return one.served.name == "mine"

    with pytest.raises(ConflictError, match="another command has changed target edge-1"):
        await adopt(world.fleet, "other", choose, world.view)
    assert [one.spec["base_url"] for one in world.store.targets()] == ["http://elsewhere:8000"]
    assert [one.name for one in world.store.stacks()] == ["lab"]


@pytest.mark.parametrize("name", ["a\nb", "x" * 300, "a b", "\u200b\x07"], ids=["line-feed", "long", "space", "bell"])
async def test_what_no_manifest_can_declare_is_not_adopted(world: World, name: str) -> None:
    world.edge.served[name] = "/tmp/odd"
    done = await world.apply(world.declaration(adapter()))
    assert done.exit_code == 0, "the target is managed as before"
    with pytest.raises(InvalidError, match="no manifest can declare") as caught:
        await adopt(world.fleet, "lab", lambda one: one.served.name == name, world.view)
    assert caught.value.message.isprintable()
    adopted = await adopt(world.fleet, "lab", lambda one: one.served.name != "sql", world.view)
    assert [one.lora_name for one in adopted.addition.adapters] == ["mine"]
    assert any("not adopted" in note for note in world.view.notes)


async def test_a_stack_that_no_manifest_can_name(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    with pytest.raises(InvalidError, match="name of a stack"):
        await adopt(world.fleet, "la\nb", lambda one: one.served.name == "mine", world.view)
