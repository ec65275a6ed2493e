"""Instances in plans and applies: over the in-memory twins."""

from dataclasses import replace
from typing import Any

import pytest
from fleet_world import World

from garrison.base.errors import ConflictError, InvalidError, UnreachableError
from garrison.base.exit_codes import ExitCode
from garrison.fleet.instance_dialer import InstanceDialer
from garrison.fleet.operations.apply import patched
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.instance import InstanceDeclaration
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.plan import ActionKind
from garrison.fleet.values.route import RouteDeclaration, RouteEnd
from garrison.fleet.values.target import InstancePlace, TargetSpec, instance_place, instance_url
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State
from garrison.testing.instance_actions import MemoryInstanceActions
from garrison.testing.targets import MemoryTarget


@pytest.fixture
def world() -> Any:
    made = World(targets=1)
    instances = MemoryInstanceActions()
    made.fleet.instances = instances
    made.fleet.dialer = InstanceDialer(made.targets, instances)
    made.targets.targets["qwen"] = MemoryTarget(base="acme/qwen")
    yield made
    made.fleet.close()


def instances_of(world: World) -> MemoryInstanceActions:
    found = world.fleet.instances
    assert isinstance(found, MemoryInstanceActions)
    return found


def declared(*names: str, adapters: bool = True, **fields: Any) -> Declaration:
    sql = AdapterDeclaration(target="qwen", label="sql", lora_name="sql", lora_path="/models/sql")
    attached = adapters and "qwen" in names
    return Declaration(
        stack="lab",
        instances={name: InstanceDeclaration(name=name, model=f"acme/{name}", **fields) for name in names},
        targets={"qwen": TargetSpec(name="qwen", base_url=instance_url("qwen"))} if attached else {},
        adapters=(sql,) if attached else (),
    )


async def test_an_apply_creates_instances_and_owes_their_adapters_until_they_run(world: World) -> None:
    done = await world.apply(declared("qwen", "tiny"))
    assert instances_of(world).calls == [("create", "qwen"), ("create", "tiny")]
    assert instances_of(world).spec("qwen").options["enable_lora"] is True
    assert done.plan.unknown == {"qwen": "target qwen is out of reach (not-running): instance qwen does not exist"}
    assert done.exit_code is ExitCode.UNREACHABLE
    assert world.targets.requests == []
    instances_of(world).run("qwen")
    again = await world.apply(declared("qwen", "tiny"))
    assert again.exit_code is ExitCode.OK
    assert world.targets["qwen"].served == {"sql": "/models/sql"}
    assert instances_of(world).calls[2:] == []


async def test_an_instance_that_stops_is_unknown_never_absent(world: World) -> None:
    instances_of(world).add(InstanceSpec(name="qwen", stack="lab"))
    await world.apply(declared("qwen"))
    instances_of(world).run("qwen")
    await world.apply(declared("qwen"))
    instances_of(world).add(instances_of(world).spec("qwen"), State.STOPPED)
    plan = await world.plan(declared("qwen"))
    assert "instance qwen is stopped" in plan.unknown["qwen"]
    assert [one.kind for one in plan.actions] == [ActionKind.KEEP]
    await world.agent_pass()
    record = next(one for one in world.store.targets() if one.name == "qwen")
    assert (record.state, record.cause, record.detail) == (
        "unreachable", str(Cause.NOT_RUNNING), "instance qwen is stopped",
    )  # fmt: skip
    assert [one.kind for one in world.store.events(limit=100) if one.target == "qwen" and "reach" in one.kind] == []


async def test_it_is_healed_when_it_runs_again(world: World) -> None:
    await world.apply(declared("qwen"))
    instances_of(world).run("qwen")
    await world.agent_pass()
    assert world.targets["qwen"].served == {"sql": "/models/sql"}


async def test_what_is_no_longer_declared_is_deleted_and_its_adapters_end_with_it(world: World) -> None:
    await world.apply(declared("qwen"))
    instances_of(world).run("qwen")
    await world.apply(declared("qwen"))
    assert world.recorded("sql", "qwen") is not None
    done = await world.apply(declared())
    assert instances_of(world).calls[-1] == ("delete", "qwen")
    assert [(one.kind, one.reason) for one in done.plan.actions] == [(ActionKind.RELEASE, "instance qwen is deleted")]
    assert done.exit_code is ExitCode.OK
    assert world.recorded("sql", "qwen") is None
    assert (await world.plan(declared())).empty


async def test_a_destroy_deletes_the_instances_of_the_stack_alone(world: World) -> None:
    instances_of(world).add(InstanceSpec(name="api"))
    instances_of(world).add(InstanceSpec(name="other", stack="other"))
    await world.apply(declared("qwen", "tiny"))
    await world.destroy()
    assert {name for _, name in instances_of(world).existing} == {"api", "other"}
    assert world.store.stacks() == []


async def test_a_destroy_that_fails_can_be_repeated(world: World) -> None:
    await world.apply(declared("tiny"))
    instances_of(world).broken["tiny"] = InvalidError("it does not stop", hint="Kill it.")
    done = await world.destroy()
    assert done.exit_code is ExitCode.APPLY_FAILED
    assert [(one.error, one.hint) for one in done.instances] == [("it does not stop", "Kill it.")]
    instances_of(world).broken.clear()
    assert (await world.destroy()).exit_code is ExitCode.OK
    assert world.store.stacks() == []


async def test_one_that_fails_does_not_keep_the_others(world: World) -> None:
    instances_of(world).broken["a"] = InvalidError("no room")
    done = await world.apply(declared("a", "b"))
    assert done.exit_code is ExitCode.APPLY_FAILED
    assert instances_of(world).calls == [("create", "a"), ("create", "b")]
    assert [one.to_json()["ok"] for one in done.instances] == [False, True]


async def test_deletes_come_before_updates_and_creates(world: World) -> None:
    await world.apply(declared("b", "z"))
    instances_of(world).calls.clear()
    await world.apply(declared("a", "b", priority=2))
    assert instances_of(world).calls == [("delete", "z"), ("update", "b"), ("create", "a")]


async def test_a_name_that_is_taken_is_a_conflict_unless_it_is_adopted(world: World) -> None:
    instances_of(world).add(InstanceSpec(name="tiny", options={"model": "acme/tiny"}))
    with pytest.raises(ConflictError, match="instance tiny exists, and no stack declared it") as raised:
        await world.apply(declared("tiny", "other"))
    assert "--adopt" in (raised.value.hint or "")
    assert instances_of(world).calls == []
    await world.apply(declared("tiny", "other"), adopt=True)
    assert instances_of(world).spec("tiny").stack == "lab"


async def test_without_a_server_nothing_is_applied(world: World) -> None:
    instances_of(world).reachable = False
    assert len((await world.plan(declared("tiny"))).instance_work) == 1
    with pytest.raises(UnreachableError, match="no server") as raised:
        await world.apply(declared("tiny"))
    assert "garrison up" in (raised.value.hint or "")
    assert world.store.stacks() == []


async def test_where_nobody_runs_instances_a_manifest_with_some_is_refused(world: World) -> None:
    world.fleet.instances = None
    with pytest.raises(UnreachableError, match="nothing here runs any"):
        await world.plan(declared("tiny"))
    assert (await world.plan(declared())).empty


async def test_the_fingerprint_covers_instances_and_not_their_state(world: World) -> None:
    first = await world.plan(declared("tiny"))
    other = await world.plan(declared("tiny", priority=1))
    assert first.fingerprint != other.fingerprint
    await world.apply(declared("tiny"))
    before = await world.plan(declared("tiny", priority=1))
    instances_of(world).run("tiny")
    assert (await world.plan(declared("tiny", priority=1))).fingerprint == before.fingerprint


async def test_an_apply_of_the_same_does_nothing(world: World) -> None:
    await world.apply(declared("tiny"))
    done = await world.apply(declared("tiny"))
    assert (done.command, done.instances) == (None, ())


def test_a_patch_adds_instances_and_routes() -> None:
    one = replace(declared("a"), routes={"r": RouteDeclaration(name="r", to=(RouteEnd(place="a"),))})
    both = patched(declared("b"), one)
    assert set(both.instances) == {"a", "b"}
    assert set(both.routes) == {"r"}


@pytest.mark.parametrize("place", [InstancePlace("a"), InstancePlace("a.B-1", "node 1/x"), InstancePlace("a", "n")])
def test_the_address_of_an_instance_is_read_back(place: InstancePlace) -> None:
    assert instance_place(instance_url(place.name, place.node)) == place
    assert instance_place("http://a:8000") is None
