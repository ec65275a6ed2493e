"""Stories of what is confirmed: nothing is held while a person thinks, and only what was shown is done."""

from dataclasses import replace
from typing import Any

import pytest
from fleet_world import World, adapter

from garrison.base.errors import ConflictError, InvalidError
from garrison.base.exit_codes import ExitCode
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.operations.adopt import Candidate, adopt, propose_adoption
from garrison.fleet.operations.apply import Applied, apply, destroy, propose
from garrison.fleet.operations.fingerprint import plan_changes
from garrison.fleet.operations.forget import forget, propose_forgetting
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.plan import ActionKind, Plan
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import ActionRecord, ActionState, CommandRecord, Key
from garrison.testing.targets import MemoryTarget

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


async def shown(world: World, declaration: Declaration, *, mode: Any = "reconcile") -> Plan:
    return await propose(world.fleet, declaration, world.view, mode=mode, options=PlanOptions())


async def answered(world: World, declaration: Declaration, plan: Plan, *, mode: Any = "reconcile") -> Applied:
    return await apply(
        world.fleet,
        declaration,
        world.view,
        mode=mode,
        options=PlanOptions(),
        fingerprint=plan.fingerprint,
        execution=ExecuteOptions(probe=False, sleep=world.sleep),
    )


def posted(world: World) -> list[str]:
    return [one.path for one in world.targets.requests if one.method == "POST"]


async def test_the_plan_that_was_shown_is_carried_out(world: World) -> None:
    declaration = world.declaration(adapter())
    plan = await shown(world, declaration)
    assert posted(world) == []
    assert world.store.stacks() == []
    world.clock.advance(3600)
    done = await answered(world, declaration, plan)
    assert done.exit_code == ExitCode.OK
    assert done.plan.fingerprint == plan.fingerprint
    assert world.edge.served == {"sql": "/models/sql"}


async def test_nothing_is_held_while_a_person_thinks(world: World) -> None:
    """Another stack applies to the same target, and the same stack can be applied by others."""
    declaration = world.declaration(adapter())
    plan = await shown(world, declaration)
    assert world.store.leases() == []
    await world.apply(world.declaration(adapter("chat"), stack="other"))
    assert world.store.leases() == []
    assert (await answered(world, declaration, plan)).exit_code == ExitCode.OK
    assert world.edge.served == {"chat": "/models/chat", "sql": "/models/sql"}


async def test_of_two_writers_the_second_must_look_again(world: World) -> None:
    mine, theirs = world.declaration(adapter("mine")), world.declaration(adapter("theirs"))
    plan, other = await shown(world, mine), await shown(world, theirs)
    assert (await answered(world, theirs, other)).exit_code == ExitCode.OK
    before = posted(world)
    with pytest.raises(ConflictError, match="the plan for stack lab has changed since it was shown") as raised:
        await answered(world, mine, plan)
    assert raised.value.exit_code == ExitCode.CONFLICT
    assert posted(world) == before, "nothing was sent"
    assert world.edge.served == {"theirs": "/models/theirs"}
    assert world.store.leases() == []
    said = plan_changes(plan.to_json(), raised.value.details["plan"])
    assert said == "edge-1/theirs: nothing to do, now delete"
    again = await shown(world, mine)
    assert again.fingerprint == raised.value.details["fingerprint"]
    assert (await answered(world, mine, again)).exit_code == ExitCode.OK
    assert world.edge.served == {"mine": "/models/mine"}


async def test_two_that_confirmed_the_same_plan(world: World) -> None:
    declaration = world.declaration(adapter())
    first, second = await shown(world, declaration), await shown(world, declaration)
    assert first.fingerprint == second.fingerprint
    await answered(world, declaration, first)
    before = posted(world)
    with pytest.raises(ConflictError) as raised:
        await answered(world, declaration, second)
    assert posted(world) == before
    said = plan_changes(second.to_json(), raised.value.details["plan"])
    assert said == "edge-1/sql: create, now nothing to do"


async def test_without_a_question_whatever_is_planned_now_is_done(world: World) -> None:
    plan = await shown(world, world.declaration(adapter()))
    world.edge.served["sql"] = "/models/sql"
    done = await world.apply(world.declaration(adapter()))
    assert done.plan.fingerprint != plan.fingerprint
    assert [one.action.kind for one in done.outcomes] == [ActionKind.ADOPT]


async def _loaded_by_others(world: World) -> None:
    world.edge.served["sql"] = "/models/sql"


async def _unloaded_by_others(world: World) -> None:
    del world.edge.served["chat"]


async def _out_of_reach(world: World) -> None:
    world.edge.down = DOWN


async def _new_content(world: World) -> None:
    world.artifacts.digests["/models/sql"] = "f" * 64


async def _policy_applied_by_others(world: World) -> None:
    await world.apply(replace(world.declaration(adapter("chat")), policy=Policy(on_drift="restore")))


@pytest.mark.parametrize(
    "change", [_loaded_by_others, _unloaded_by_others, _out_of_reach, _new_content, _policy_applied_by_others]
)
async def test_a_plan_that_changed_is_rejected_and_nothing_is_sent(world: World, change: Any) -> None:
    await world.apply(world.declaration(adapter("chat")))
    declaration = world.declaration(adapter("chat"), adapter("sql"))
    plan = await shown(world, declaration)
    await change(world)
    before, commands = posted(world), len(world.store.commands())
    with pytest.raises(ConflictError, match="changed since it was shown"):
        await answered(world, declaration, plan)
    assert posted(world) == before
    assert len(world.store.commands()) == commands
    assert world.store.leases() == []


async def test_what_does_not_matter_to_the_plan_does_not_change_it() -> None:
    world = World(targets=2)
    await world.apply(world.declaration(adapter("chat")))
    declaration = world.declaration(adapter("chat"), adapter("sql"))
    plan = await shown(world, declaration)
    world.clock.advance(7200)
    world.edge.served["stranger"] = "/tmp/stranger"
    world.targets["edge-2"].down = DOWN
    world.targets.targets["elsewhere"] = MemoryTarget(base="acme/tiny")
    await world.apply(world.declaration(adapter("elsewhere", target="elsewhere"), stack="other"))
    again = await shown(world, declaration)
    assert again.fingerprint == plan.fingerprint
    assert (await answered(world, declaration, plan)).plan.fingerprint == plan.fingerprint
    assert world.edge.served.keys() == {"chat", "sql", "stranger"}
    world.fleet.close()


async def test_a_command_that_was_killed_is_settled_before_the_plan_is_shown(world: World) -> None:
    """Otherwise the apply, which settles it, would find another plan than the one that was confirmed."""
    await world.apply(world.declaration(adapter("chat")))
    now = world.clock.now()
    killed = CommandRecord(id="c-killed", kind="apply", stack="lab", started_at=now, by="ann@host 1")
    spec = adapter().to_json()
    begun = ActionRecord(
        command=killed.id, seq=0, key=Key("edge-1", "VLLM::Inference::LoRAAdapter", "sql"), label="sql", kind="create",
        reason="", state=ActionState.STARTED, after={"spec": spec, "served_path": "/models/sql", "parent": None},
    )  # fmt: skip
    world.store.begin(killed, [begun])
    world.edge.served["sql"] = "/models/sql"
    declaration = world.declaration(adapter("chat"), adapter("sql"), adapter("code"))
    plan = await shown(world, declaration)
    assert world.store.unfinished("lab") == []
    assert (await answered(world, declaration, plan)).exit_code == ExitCode.OK
    assert world.edge.served.keys() == {"chat", "sql", "code"}


async def test_a_conflict_of_adapters_is_shown_and_then_rejected(world: World) -> None:
    world.edge.served["sql"] = "/tmp/theirs"
    declaration = world.declaration(adapter())
    plan = await shown(world, declaration)
    assert len(plan.conflicts) == 1
    with pytest.raises(ConflictError, match="rejected"):
        await answered(world, declaration, plan)
    assert world.edge.served == {"sql": "/tmp/theirs"}


async def test_destroy_unloads_what_was_shown_or_nothing(world: World) -> None:
    await world.apply(world.declaration(adapter("chat"), adapter("sql")))
    plan = await shown(world, Declaration(stack="lab"), mode="destroy")
    assert world.store.leases() == []
    await world.apply(world.declaration(adapter("chat"), adapter("sql"), adapter("code")))
    with pytest.raises(ConflictError, match="changed since it was shown"):
        await destroy(world.fleet, "lab", world.view, options=PlanOptions(), fingerprint=plan.fingerprint)
    assert world.edge.served.keys() == {"chat", "sql", "code"}
    plan = await shown(world, Declaration(stack="lab"), mode="destroy")
    await destroy(world.fleet, "lab", world.view, options=PlanOptions(), fingerprint=plan.fingerprint)
    assert world.edge.served == {}
    assert world.store.stacks() == []


async def test_a_patch_does_not_mind_what_others_patch(world: World) -> None:
    await world.apply(world.declaration(adapter("chat")))
    plan = await shown(world, world.declaration(adapter("sql")), mode="patch")
    await world.apply(world.declaration(adapter("code")), mode="patch")
    done = await answered(world, world.declaration(adapter("sql")), plan, mode="patch")
    assert done.exit_code == ExitCode.OK
    assert world.edge.served.keys() == {"chat", "code", "sql"}


# --- adopt


def _any(one: Candidate) -> bool:
    return one.owner is None


async def test_adopt_records_what_was_shown_or_nothing(world: World) -> None:
    await world.apply(world.declaration())
    world.edge.served["mine"] = "/tmp/mine"
    found = await propose_adoption(world.fleet, "lab", _any, world.view)
    assert world.store.leases() == []
    assert [one.lora_name for one in found.addition.adapters] == ["mine"]
    world.edge.served["more"] = "/tmp/more"
    with pytest.raises(ConflictError, match="have changed since they were shown") as raised:
        await adopt(world.fleet, "lab", _any, world.view, fingerprint=found.fingerprint)
    assert world.store.resources() == []
    assert raised.value.details["fingerprint"] != found.fingerprint
    world.clock.advance(60)
    del world.edge.served["more"]
    done = await adopt(world.fleet, "lab", _any, world.view, fingerprint=found.fingerprint)
    assert done.command is not None
    assert [one.key.name for one in world.store.resources()] == ["mine"]


# --- forget


async def test_forget_drops_what_was_shown_or_nothing(world: World) -> None:
    await world.apply(world.declaration(adapter("a"), stack="one"))
    loss = await propose_forgetting(world.fleet, "edge-1", world.view, force=True)
    assert world.store.leases() == []
    await world.apply(world.declaration(adapter("b"), stack="two"))
    with pytest.raises(ConflictError, match="what is on record about target edge-1 has changed"):
        await forget(world.fleet, "edge-1", world.view, fingerprint=loss.fingerprint, force=True)
    assert len(world.store.resources()) == 2
    assert world.store.leases() == []
    world.clock.advance(60)
    world.edge.down = DOWN
    loss = await propose_forgetting(world.fleet, "edge-1", world.view)
    world.clock.advance(60)
    await forget(world.fleet, "edge-1", world.view, fingerprint=loss.fingerprint)
    assert world.store.targets() == []


async def test_a_target_that_came_back_while_a_person_thinks_is_not_forgotten(world: World) -> None:
    await world.apply(world.declaration(adapter("a")))
    world.edge.down = DOWN
    loss = await propose_forgetting(world.fleet, "edge-1", world.view)
    world.edge.down = None
    with pytest.raises(InvalidError, match="is reachable"):
        await forget(world.fleet, "edge-1", world.view, fingerprint=loss.fingerprint)
    assert len(world.store.resources()) == 1


async def test_a_stack_that_declares_the_target_in_the_last_moment_is_not_overwritten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the leases: without a fingerprint, too."""
    await world.apply(world.declaration(adapter("a"), stack="one"))
    acquire = world.store.acquire

    def late(*args: Any, **more: Any) -> Any:
        monkeypatch.setattr(world.store, "acquire", acquire)
        two = world.declaration(
            AdapterDeclaration(target="edge-1", label="b", lora_name="b", lora_path="/b"), stack="two"
        )
        command = CommandRecord(id="c2", kind="apply", stack="two", started_at=world.clock.now(), by="ann@host 1")
        record = replace(world.store.stacks()[0], name="two", declaration=two.to_json())
        world.store.declare(record, [], command, [])
        return acquire(*args, **more)

    monkeypatch.setattr(world.store, "acquire", late)
    with pytest.raises(ConflictError, match="has changed since it was shown"):
        await forget(world.fleet, "edge-1", world.view, force=True)
    assert len(world.store.targets()) == 1
