"""Stories of the agent, over the in-memory twins."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from fleet_world import BASE, World, adapter

from garrison.base.errors import DiskFullError, GarrisonError, LockedError
from garrison.base.exit_codes import ExitCode
from garrison.fleet import events
from garrison.fleet.agent import Agent
from garrison.fleet.declaration import ModelSpec
from garrison.fleet.memory_targets import MemoryFault, json_answer
from garrison.fleet.observation import Cause
from garrison.fleet.transport import TransportError
from garrison.store.records import CommandState, Operation

DOWN = TransportError(Cause.REFUSED, "connection refused")


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.fleet.close()


async def test_nothing_to_do_is_one_list_a_target_and_no_more(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    asked = len(world.targets.requests)
    agent = await world.agent_pass()
    assert [(one.method, one.path) for one in world.targets.requests[asked:]] == [("GET", "/v1/models")]
    assert agent.state.mended == 0
    assert len(world.store.commands()) == 1


@pytest.mark.parametrize("on_drift", ["report", "restore"])
async def test_a_restarted_vllm(world: World, on_drift: str) -> None:
    await world.apply(world.declaration(adapter("sql"), adapter("chat"), on_drift=on_drift))
    world.edge.restart()
    await world.agent_pass()
    assert [one.cause for one in world.told(events.DRIFT)] == ["restarted", "restarted"]
    assert len(world.told(events.RESTARTED)) == 1
    restored = {one.name for one in world.told(events.RESTORED)}
    if on_drift == "restore":
        assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}
        assert restored == {"sql", "chat"}
    else:
        assert world.edge.served == {}
        assert restored == set()
        recorded = world.recorded("sql")
        assert recorded is not None
        assert recorded.operation is Operation.LOST
    before = len(world.store.events(limit=1000))
    await world.agent_pass()
    assert len(world.store.events(limit=1000)) == before, "told once"


@pytest.mark.parametrize("on_drift", ["report", "restore"])
async def test_another_path_under_our_name(world: World, on_drift: str) -> None:
    await world.apply(world.declaration(adapter(), on_drift=on_drift))
    world.edge.served["sql"] = "/tmp/theirs"
    await world.agent_pass()
    told = world.told(events.DRIFT)
    assert [one.cause for one in told] == ["path"]
    wanted = "/models/sql" if on_drift == "restore" else "/tmp/theirs"
    assert world.edge.served == {"sql": wanted}


async def test_drift_that_lasts_is_told_once_by_one_agent(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.served["sql"] = "/tmp/theirs"
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for _ in range(3):
        await agent.once()
    await agent.shutdown()
    assert len(world.told(events.DRIFT)) == 1


async def test_out_of_reach_is_told_once_and_deletes_nothing(world: World) -> None:
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.edge.down = DOWN
    for _ in range(3):
        await world.agent_pass()
    assert [one.cause for one in world.told(events.UNREACHABLE)] == ["refused"]
    assert not world.told(events.DRIFT)
    world.edge.down = None
    await world.agent_pass()
    assert len(world.told(events.RECOVERED)) == 1
    assert not world.told(events.DRIFT)


async def test_what_is_owed_is_done_when_the_target_returns(world: World) -> None:
    await world.apply(world.declaration(adapter("sql"), adapter("old")))
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter("sql", lora_path="/models/v2"), adapter("new")))
    await world.agent_pass()
    world.edge.down = None
    await world.agent_pass()
    assert world.edge.served == {"sql": "/models/v2", "new": "/models/new"}


@pytest.mark.parametrize("returned", ["re-imaged", "with-old", "with-extra"])
async def test_a_target_that_returns(world: World, returned: str) -> None:
    await world.apply(world.declaration(adapter("sql"), adapter("old"), on_drift="restore"))
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter("sql", lora_path="/models/v2"), on_drift="restore"))
    world.edge.down = None
    if returned == "re-imaged":
        world.edge.restart()
    elif returned == "with-extra":
        world.edge.served["theirs"] = "/tmp/theirs"
    await world.agent_pass()
    extra = {"theirs": "/tmp/theirs"} if returned == "with-extra" else {}
    assert world.edge.served == {"sql": "/models/v2"} | extra


async def test_what_fails_for_good_is_not_tried_for_ever(world: World) -> None:
    world.edge.broken["/models/sql"] = json_answer({"error": {"message": "LoRA rank 64 is too high", "code": 500}}, 500)
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    loads = len(world.targets.asked("POST", "/v1/load_lora_adapter"))
    for _ in range(4):
        await agent.once()
    assert len(world.targets.asked("POST", "/v1/load_lora_adapter")) <= loads + 1
    world.edge.broken.clear()
    world.edge.restart()
    world.edge.served["other"] = "/x"
    await agent.once()
    await agent.shutdown()


async def test_a_killed_command_is_completed(world: World) -> None:
    """The apply dies between the load and its record; the agent finishes the bookkeeping and the rest."""
    from garrison.fleet.apply import apply
    from garrison.fleet.scene import PlanOptions
    from garrison.fleet.steps import ExecuteOptions

    class Killed(BaseException):
        pass

    def checkpoint(name: str) -> None:
        if name == "loaded":
            raise Killed

    with pytest.raises(Killed):
        await apply(
            world.fleet,
            world.declaration(adapter("sql"), adapter("chat")),
            world.view,
            options=PlanOptions(),
            confirm=lambda _plan: True,
            execution=ExecuteOptions(probe=False, checkpoint=checkpoint),
        )
    assert len(world.edge.served) == 1
    await world.agent_pass()
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}
    assert {one.operation for one in world.store.resources()} == {Operation.CREATED}
    assert CommandState.RUNNING not in {one.state for one in world.store.commands()}
    assert not world.told(events.DRIFT)


async def test_a_failing_list_in_between_is_unknown(world: World) -> None:
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    loads = len(world.targets.asked("POST", "/v1/load_lora_adapter"))
    for answer in (json_answer({}), json_answer({"object": "list", "data": []}), json_answer({"detail": "x"}, 404)):
        world.edge.faults.append(MemoryFault("/v1/models", answer, times=1))
        await world.agent_pass()
    assert len(world.targets.asked("POST", "/v1/load_lora_adapter")) == loads
    assert not world.told(events.DRIFT)


async def test_what_others_do_beside_us_is_history(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    world.edge.served["theirs"] = "/tmp/theirs"
    await world.agent_pass()
    del world.edge.served["theirs"]
    await world.agent_pass()
    assert [(one.name, one.cause) for one in world.told(events.CHANGED)] == [("theirs", "appeared"), ("theirs", "gone")]


async def test_new_weights_at_an_applied_path_are_told_and_not_rolled_out(world: World) -> None:
    world.artifacts.default_store = "/store"
    world.artifacts.digests["/models/sql"] = "d1"
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.artifacts.digests["/models/sql"] = "d2"
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for _ in range(3):
        await agent.once()
        world.clock.advance(60)
    await agent.shutdown()
    assert [(one.name, one.cause) for one in world.told(events.CHANGED)] == [("sql", "content")]
    assert world.edge.served == {"sql": "/store/d1"}
    world.edge.restart()
    await world.agent_pass()
    assert world.edge.served == {"sql": "/store/d1"}, "what was applied is what is restored"


async def test_what_is_too_old_goes(world: World) -> None:
    from datetime import timedelta

    await world.apply(world.declaration(adapter()))
    world.clock.advance(10 * 24 * 3600)
    agent = Agent(world.fleet, world.view, retention=timedelta(days=5))
    await agent.startup()
    await agent.once()
    await agent.shutdown()
    assert not world.told(events.APPLIED)
    assert world.recorded("sql") is not None


async def test_the_loop_stops_when_asked(world: World) -> None:
    import asyncio

    await world.apply(world.declaration(adapter()))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    loop = asyncio.create_task(agent.main_loop())
    async with asyncio.timeout(5):
        while agent.state.looks == 0:
            await asyncio.sleep(0.01)
        agent.request_stop()
        await loop
        await agent.shutdown()
    assert agent.state.stopping


async def test_a_store_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from garrison.base.errors import UnreachableError
    from garrison.fleet import agent as agent_module

    await world.apply(world.declaration(adapter()))
    monkeypatch.setattr(agent_module, "_LONGEST_WAIT", 0.01)
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    real, failures = world.store.revision, [UnreachableError("the database is away", hint="Start it.")] * 2

    def revision() -> int:
        if failures:
            raise failures.pop()
        return real()

    monkeypatch.setattr(world.store, "revision", revision)
    loop = asyncio.create_task(agent.main_loop())
    async with asyncio.timeout(5):
        while agent.state.looks == 0:
            await asyncio.sleep(0.01)
        agent.request_stop()
        await loop
        await agent.shutdown()
    assert agent.state.store_failures == 2
    assert any("the database is away" in note for note in world.view.notes)


async def test_hooks_are_told_of_what_any_command_wrote(world: World) -> None:
    from dataclasses import replace

    from garrison.fleet.declaration import Hook
    from garrison.fleet.hooks import Hooks

    told: list[tuple[str, str | None]] = []

    class Deliver:
        async def deliver(self, hook: Hook, body: dict[str, object]) -> None:
            told.append((str(body["kind"]), body["name"]))  # type: ignore[arg-type] # a name is text or null

    hook = Hook(on=("drift", "restored", "unreachable", "recovered"), command=("notify",))
    await world.apply(replace(world.declaration(adapter(), on_drift="restore"), hooks=(hook,)))
    hooks = Hooks(Deliver(), clock=world.clock, note=world.view.note, sleep=world.sleep)  # type: ignore[arg-type] # above
    agent = Agent(world.fleet, world.view, hooks=hooks)
    await agent.startup()
    world.edge.restart()
    await agent.once()
    world.edge.down = DOWN
    await agent.once()
    world.edge.down = None
    await agent.once()
    await agent.shutdown()
    assert told == [("drift", "sql"), ("restored", "sql"), ("unreachable", None), ("recovered", None)]


async def test_a_server_that_refused_adapters_and_was_started_anew_between_two_looks(world: World) -> None:
    world.edge.lora_routes = False
    assert (await world.apply(world.declaration(adapter()))).exit_code == ExitCode.APPLY_FAILED
    world.edge.restart()
    world.edge.lora_routes = True
    await world.agent_pass()
    assert world.edge.served == {"sql": "/models/sql"}


@pytest.mark.parametrize("error", [LockedError("held"), DiskFullError("1 GB is missing")], ids=["locked", "full"])
async def test_files_that_could_not_be_staged_for_a_while(world: World, error: GarrisonError) -> None:
    world.artifacts.default_store, world.artifacts.digests["/models/sql"] = "/store", "abc"
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter()))
    world.edge.down = None
    world.artifacts.stage_errors["abc"] = error
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    assert world.edge.served == {}
    world.artifacts.stage_errors.clear()
    await agent.once()
    await agent.shutdown()
    assert world.edge.served == {"sql": "/store/abc"}


async def test_a_name_that_somebody_took_meanwhile_and_let_go(world: World) -> None:
    """They load it after the look and before our load."""
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter()))
    world.edge.down = None
    answer = json_answer({"error": {"message": "'sql' has already been loaded", "type": "x"}}, 400)
    world.edge.faults.append(MemoryFault("/v1/load_lora_adapter", answer, times=1, method="POST"))
    theirs = [(BASE, BASE, None), ("sql", "/tmp/theirs", BASE)]
    data = [{"id": name, "root": root, "parent": parent} for name, root, parent in theirs]
    # The agent's look and its second one are before the load.
    world.edge.faults.append(MemoryFault("/v1/models", json_answer({"data": data}), skip=2, times=2))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await agent.once()
    assert [one.after["code"] for one in world.told(events.ACTION_FAILED) if one.after] == ["AlreadyExists"]
    for _ in range(2):
        await agent.once()
    await agent.shutdown()
    assert world.edge.served == {"sql": "/models/sql"}


async def test_a_target_with_another_base_than_declared_keeps_no_other_waiting() -> None:
    world = World(2)
    model = ModelSpec(target="edge-1", label="base", id=BASE, root=BASE)
    declared = world.declaration(adapter(), adapter(target="edge-2"), on_drift="restore")
    await world.apply(replace(declared, models=(model,)))
    for one in world.targets.targets.values():
        one.restart()
    world.edge.root = "/models/another"
    await world.agent_pass()
    world.fleet.close()
    assert world.targets["edge-2"].served == {"sql": "/models/sql"}
    assert world.edge.served == {}
