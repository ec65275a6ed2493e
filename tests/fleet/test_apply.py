"""Stories of apply, over the in-memory twins."""

from contextlib import AbstractAsyncContextManager

import pytest
from fleet_world import World, adapter

from garrison.base.errors import ConflictError, InvalidError
from garrison.base.exit_codes import ExitCode
from garrison.fleet.execute.lease import this_process
from garrison.fleet.values import events
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, ModelSpec
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.plan import ActionKind
from garrison.fleet.values.target import TargetSpec
from garrison.net.errors import TransportCause
from garrison.net.transport import Connection, TransportError
from garrison.store.records import ActionState, CommandState, Holder, Lease, Operation
from garrison.testing.targets import MemoryFault, MemoryTarget, json_answer

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


async def test_create_then_nothing_to_do(world: World) -> None:
    first = await world.apply(world.declaration(adapter()))
    assert first.exit_code == ExitCode.OK
    assert world.edge.served == {"sql": "/models/sql"}
    recorded = world.recorded("sql")
    assert recorded is not None
    assert (recorded.operation, recorded.parent, recorded.version) == (Operation.CREATED, "acme/tiny", 1)
    asked = len(world.targets.requests)
    again = await world.apply(world.declaration(adapter()))
    assert again.plan.empty
    assert again.command is None
    assert {(one.method, one.path) for one in world.targets.requests[asked:]} == {("GET", "/v1/models")}


async def test_what_left_the_manifest_is_unloaded_and_what_others_loaded_stays(world: World) -> None:
    world.edge.served["theirs"] = "/tmp/theirs"
    await world.apply(world.declaration(adapter("sql"), adapter("chat")))
    await world.apply(world.declaration(adapter("chat")))
    assert world.edge.served == {"theirs": "/tmp/theirs", "chat": "/models/chat"}


async def test_patch_adds_and_changes_and_leaves_the_rest(world: World) -> None:
    await world.apply(world.declaration(adapter("sql"), adapter("chat")))
    done = await world.apply(world.declaration(adapter("sql", lora_path="/models/v2"), adapter("code")), mode="patch")
    assert done.exit_code == ExitCode.OK
    assert world.edge.served == {"sql": "/models/v2", "chat": "/models/chat", "code": "/models/code"}
    whole = await world.plan(
        world.declaration(adapter("sql", lora_path="/models/v2"), adapter("chat"), adapter("code"))
    )
    assert whole.empty


async def test_new_content_is_served_from_its_own_path(world: World) -> None:
    world.artifacts.default_store = "/store"
    world.artifacts.digests["/models/sql"] = "d1"
    await world.apply(world.declaration(adapter()))
    assert world.edge.served == {"sql": "/store/d1"}
    world.artifacts.digests["/models/sql"] = "d2"
    done = await world.apply(world.declaration(adapter()))
    assert world.edge.served == {"sql": "/store/d2"}
    assert done.outcomes[0].gap_ms is not None
    recorded = world.recorded("sql")
    assert recorded is not None
    assert (recorded.operation, recorded.spec["digest"]) == (Operation.UPDATED, "d2")


async def test_files_that_would_not_do_are_never_sent(world: World) -> None:
    from garrison.fleet.values.failure import Failure, FailureCode

    failure = Failure(code=FailureCode.INVALID_REQUEST, message="rank 64 is above 16", hint="Raise it.")
    world.artifacts.refused["/models/sql"] = failure
    done = await world.apply(world.declaration(adapter(), adapter("chat")))
    assert done.exit_code == ExitCode.APPLY_FAILED
    assert world.edge.served == {"chat": "/models/chat"}
    assert not [one for one in world.targets.asked("POST", "/v1/load_lora_adapter") if one.json["lora_name"] == "sql"]


async def test_an_adapter_that_somebody_unloaded_is_loaded_again_without_a_flag(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    del world.edge.served["sql"]
    done = await world.apply(world.declaration(adapter()))
    assert done.exit_code == ExitCode.OK
    assert world.edge.served == {"sql": "/models/sql"}
    operations = [one.operation for one in world.store.versions(world.store.resources()[0].key)]
    assert operations == [Operation.CREATED, Operation.LOST, Operation.CREATED]
    assert [one.cause for one in world.told(events.DRIFT)] == ["unloaded"]


async def test_an_outside_change_is_rejected_and_force_overwrites_it(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.served["sql"] = "/tmp/theirs"
    with pytest.raises(ConflictError, match="/tmp/theirs") as raised:
        await world.apply(world.declaration(adapter()))
    for way in ("extract", "--force", "leave"):
        assert way in (raised.value.hint or "")
    assert world.edge.served == {"sql": "/tmp/theirs"}
    await world.apply(world.declaration(adapter()), force=True)
    assert world.edge.served == {"sql": "/models/sql"}


async def test_a_foreign_adapter_is_taken_over_only_with_adopt(world: World) -> None:
    world.edge.served["sql"] = "/tmp/theirs"
    with pytest.raises(ConflictError, match="loaded by another party"):
        await world.apply(world.declaration(adapter()))
    done = await world.apply(world.declaration(adapter()), adopt=True)
    assert done.exit_code == ExitCode.OK
    assert world.edge.served == {"sql": "/models/sql"}


async def test_what_is_there_as_declared_is_only_recorded(world: World) -> None:
    world.edge.served["sql"] = "/models/sql"
    done = await world.apply(world.declaration(adapter()))
    assert not done.plan.changes_required
    assert not world.targets.asked("POST", "/v1/load_lora_adapter")
    recorded = world.recorded("sql")
    assert recorded is not None
    assert recorded.operation is Operation.ADOPTED
    assert (await world.apply(world.declaration(adapter()))).plan.empty


async def test_an_unreachable_target_blocks_no_other_and_its_actions_are_owed(world: World) -> None:
    both = World(targets=2)
    both.edge.down = DOWN
    declaration = both.declaration(adapter("sql"), adapter("sql", "edge-2"))
    done = await both.apply(declaration)
    assert done.exit_code == ExitCode.UNREACHABLE
    assert both.targets["edge-2"].served == {"sql": "/models/sql"}
    both.edge.down = None
    done = await both.apply(declaration)
    assert done.exit_code == ExitCode.OK
    assert both.edge.served == {"sql": "/models/sql"}
    both.fleet.close()


async def test_out_of_reach_is_never_deleted(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    for down in (DOWN, TransportError(TransportCause.TIMEOUT, "no answer")):
        world.edge.down = down
        done = await world.apply(world.declaration(adapter()))
        assert done.exit_code == ExitCode.UNREACHABLE
        recorded = world.recorded("sql")
        assert recorded is not None
        assert recorded.operation is Operation.CREATED
    assert not world.told(events.DRIFT)


async def test_destroy_unloads_managed_adapters_and_removes_the_stack(world: World) -> None:
    world.edge.served["theirs"] = "/tmp/theirs"
    await world.apply(world.declaration(adapter()))
    done = await world.destroy()
    assert done.exit_code == ExitCode.OK
    assert world.edge.served == {"theirs": "/tmp/theirs"}
    assert world.store.stacks() == []
    assert world.store.targets() == []
    assert world.told(events.DESTROYED)


async def test_a_destroy_that_cannot_reach_a_target_stays_owed(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.down = DOWN
    done = await world.destroy()
    assert done.exit_code == ExitCode.UNREACHABLE
    assert [one.ending for one in world.store.stacks()] == [True]
    assert [one.name for one in world.store.targets()] == ["edge-1"]
    world.edge.down = None
    await world.agent_pass()
    assert world.edge.served == {}
    assert world.store.stacks() == []


async def test_a_changed_address_is_a_change_in_place(world: World) -> None:
    from dataclasses import replace

    await world.apply(world.declaration(adapter()))
    declaration = world.declaration(adapter())
    moved = {"edge-1": replace(declaration.targets["edge-1"], base_url="http://elsewhere:9000")}
    done = await world.apply(replace(declaration, targets=moved))
    assert [(one.kind, one.name) for one in done.plan.targets] == [("update", "edge-1")]
    assert not done.plan.changes_required
    assert world.store.targets()[0].spec["base_url"] == "http://elsewhere:9000"


async def test_a_base_model_cannot_be_changed_by_declaring_it(world: World) -> None:
    from dataclasses import replace

    declaration = replace(world.declaration(), models=(ModelSpec(target="edge-1", label="m", id="acme/huge"),))
    with pytest.raises(InvalidError, match="acme/huge"):
        await world.apply(declaration)


async def test_one_writer_a_stack_and_a_dead_one_is_not_waited_for(world: World) -> None:
    from dataclasses import replace
    from datetime import timedelta

    now = world.clock.now()
    me = this_process("apply")
    other = Holder(host="elsewhere/boot", pid=1, started=1, user="ann", purpose="apply")
    lease = Lease(stack="lab", token="t", holder=other, acquired_at=now, expires_at=now + timedelta(seconds=30))
    assert world.store.acquire(lease, now) is None
    with pytest.raises(ConflictError, match="ann@elsewhere") as raised:
        await world.apply(world.declaration(adapter()))
    assert raised.value.details["since"] == now.isoformat()
    world.clock.advance(31)
    assert (await world.apply(world.declaration(adapter()))).exit_code == ExitCode.OK
    dead = replace(lease, token="u", holder=replace(me, started=1), expires_at=now + timedelta(days=9))
    assert world.store.acquire(dead, world.clock.now()) is None
    assert (await world.apply(world.declaration(adapter("chat")))).exit_code == ExitCode.OK


async def test_a_preview_leaves_no_trace(world: World) -> None:
    found = await world.plan(world.declaration(adapter()))
    assert found.actions[0].kind is ActionKind.CREATE
    assert world.edge.served == {}
    assert world.store.stacks() == []
    assert world.store.commands() == []


async def test_commands_are_on_record_with_their_end(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    (command,) = world.store.commands()
    assert (command.kind, command.state, command.summary) == (
        "apply",
        CommandState.SUCCEEDED,
        {"done": 1, "failed": 0, "owed": 0},
    )


async def test_run_time_lora_that_is_off_is_no_absence(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.lora_routes = False
    world.edge.restart()
    done = await world.apply(world.declaration(adapter()))
    assert done.exit_code == ExitCode.APPLY_FAILED
    failure = done.plan.blocked[0].failure
    assert failure is not None
    assert failure.cause is Cause.NO_LORA_ROUTES
    assert [one.state for one in done.outcomes] == [ActionState.FAILED], "it needs somebody to restart vLLM"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in (failure.hint or "")
    assert not world.told(events.DRIFT)
    recorded = world.recorded("sql")
    assert recorded is not None
    assert recorded.operation is Operation.CREATED


# --- addresses


def declared_at(stack: str, name: str, url: str, *adapters: AdapterDeclaration) -> Declaration:
    return Declaration(stack=stack, targets={name: TargetSpec(name=name, base_url=url)}, adapters=adapters)


@pytest.mark.parametrize("url", ["http://edge-1:8000", "http://edge-1:8000/"])
async def test_one_server_under_two_names_is_rejected_across_stacks(world: World, url: str) -> None:
    world.targets.targets["zz"] = world.edge
    await world.apply(world.declaration(adapter()))
    with pytest.raises(ConflictError, match="on record as target edge-1 of lab") as raised:
        await world.apply(declared_at("other", "zz", url.rstrip("/"), adapter(target="zz")))
    assert "Call it edge-1" in (raised.value.hint or "")
    assert world.edge.served == {"sql": "/models/sql"}


async def test_the_names_of_loopback_are_one_server(world: World) -> None:
    world.targets.targets |= {"a": world.edge, "b": world.edge}
    await world.apply(declared_at("one", "a", "http://localhost:8000", adapter(target="a")))
    with pytest.raises(ConflictError, match="target a of one"):
        await world.apply(declared_at("two", "b", "http://127.0.0.1:8000", adapter(target="b")))


async def test_a_target_that_gets_another_name_is_rejected_and_nothing_is_unloaded(world: World) -> None:
    world.targets.targets["renamed"] = world.edge
    await world.apply(declared_at("lab", "edge-1", "http://edge-1:8000", adapter()))
    with pytest.raises(ConflictError, match="is declared here as renamed"):
        await world.apply(declared_at("lab", "renamed", "http://edge-1:8000", adapter(target="renamed")))
    assert world.edge.served == {"sql": "/models/sql"}


async def test_another_stacks_target_is_not_moved(world: World) -> None:
    await world.apply(declared_at("one", "edge-1", "http://edge-1:8000", adapter()))
    elsewhere = declared_at("two", "edge-1", "http://elsewhere:8000", adapter("chat"))
    with pytest.raises(ConflictError, match="edge-1 is at http://edge-1:8000 for one"):
        await world.apply(elsewhere)
    assert world.store.targets()[0].spec["base_url"] == "http://edge-1:8000"
    await world.apply(elsewhere, force=True)
    assert world.store.targets()[0].spec["base_url"] == "http://elsewhere:8000"


async def test_what_was_applied_at_the_old_address_is_owed_at_the_new_one(world: World) -> None:
    await world.apply(declared_at("lab", "edge-1", "http://edge-1:8000", adapter()))
    old, world.targets.targets["edge-1"] = world.edge, MemoryTarget(down=DOWN)
    moved = declared_at("lab", "edge-1", "http://edge-9:8000", adapter())
    done = await world.apply(moved)
    assert done.exit_code == ExitCode.UNREACHABLE
    assert [(one.kind, one.owed) for one in done.plan.actions] == [(ActionKind.BLOCKED, True)]
    assert done.plan.warnings == ("edge-1 was at http://edge-1:8000: adapters on that server stay loaded, and are no "
                                  "longer managed",)  # fmt: skip
    assert world.store.targets()[0].last_seen is None
    world.edge.down = None
    await world.agent_pass()
    assert world.edge.served == {"sql": "/models/sql"}
    assert old.served == {"sql": "/models/sql"}
    assert not world.told(events.DRIFT)
    assert [one.cause for one in world.told(events.CHANGED)] == ["address"]


async def test_a_plan_for_another_address_leaves_what_is_remembered_alone(world: World) -> None:
    await world.apply(declared_at("lab", "edge-1", "http://edge-1:8000", adapter()))
    before = world.store.targets()
    world.targets.targets["edge-1"] = MemoryTarget(base="somebody/elses")
    await world.plan(declared_at("lab", "edge-1", "http://edge-9:8000", adapter()))
    assert world.store.targets() == before


async def test_what_is_wrong_on_our_side_is_no_news_of_the_target(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.down = TransportError(TransportCause.LOCAL, "the variable K7 is not set")
    await world.plan(world.declaration(adapter()))
    assert world.store.targets()[0].state == "reachable"
    assert not world.told(events.UNREACHABLE)


async def test_an_empty_stack_can_be_destroyed(world: World) -> None:
    await world.apply(world.declaration())
    assert world.store.stacks()
    await world.destroy()
    assert world.store.stacks() == []


async def test_all_gone_at_once_is_a_restart_where_the_server_does_not_say(world: World) -> None:
    world.edge.faults.append(MemoryFault("/metrics", json_answer({}, 404)))
    await world.apply(world.declaration(adapter("sql"), adapter("chat")))
    world.edge.restart()
    await world.apply(world.declaration(adapter("sql"), adapter("chat")))
    assert {one.cause for one in world.told(events.DRIFT)} == {"restarted"}


async def test_a_target_that_was_moved_for_all_is_where_it_was_moved_to(world: World) -> None:
    """The other stack was applied at the old address; its agent and its next look go to the new one."""
    await world.apply(declared_at("one", "edge-1", "http://edge-1:8000", adapter()))
    asked: list[str] = []
    real = world.targets.open

    def dial(target: TargetSpec) -> AbstractAsyncContextManager[Connection]:
        asked.append(target.base_url)
        return real(target)

    await world.apply(declared_at("two", "edge-1", "http://elsewhere:8000", adapter("chat")), force=True)
    world.targets.open = dial  # type: ignore[method-assign] # what is dialled is what is asked here
    world.edge.served.clear()
    await world.agent_pass()
    assert set(asked) == {"http://elsewhere:8000"}
    assert world.told(events.DRIFT)
    assert not world.told(events.UNREACHABLE)
