"""Stories of the agent, over the in-memory twins."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from fleet_world import BASE, World, adapter

from garrison.base.errors import DiskFullError, GarrisonError, LockedError
from garrison.base.exit_codes import ExitCode
from garrison.base.logs import facts_of
from garrison.fleet.agent.loop import Agent
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.values import events
from garrison.fleet.values.declaration import ModelSpec
from garrison.fleet.values.observation import Cause
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import CommandState, Operation
from garrison.testing.artifacts import MemoryArtifacts
from garrison.testing.targets import MemoryFault, MemoryTarget, json_answer

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


async def test_nothing_to_do_is_one_list_a_target_and_no_more(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    asked = len(world.targets.requests)
    agent = await world.agent_pass()
    assert [(one.method, one.path) for one in world.targets.requests[asked:]] == [("GET", "/v1/models")]
    assert agent.state.repaired == 0
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
    from garrison.fleet.operations.apply import apply
    from garrison.fleet.plan.context import PlanOptions

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
    from garrison.fleet.agent import loop as agent_module

    await world.apply(world.declaration(adapter()))
    monkeypatch.setattr(agent_module, "_FIRST_STORE_WAIT", 0.01)
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

    from garrison.fleet.hooks.queues import Hooks
    from garrison.fleet.values.declaration import Hook

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


@contextlib.asynccontextmanager
async def running(world: World, **options: Any) -> AsyncIterator[Agent]:
    """An agent whose main loop runs; the clock stands still."""
    agent = Agent(world.fleet, world.view, **options)
    await agent.startup()
    loop = asyncio.create_task(agent.main_loop())
    try:
        yield agent
    finally:
        agent.request_stop()
        await loop
        await agent.shutdown()


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not met():
            await asyncio.sleep(0.01)


async def passes(world: World, agent: Agent, count: int, seconds: float = 30.0) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await agent.once()


async def test_who_keeps_loading_theirs_over_ours_is_not_fought_at_full_speed(world: World) -> None:
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    swaps = []

    async def somebody() -> None:
        while True:
            if world.edge.served.get("sql") == "/models/sql" and not agent._repairs._queue.busy:
                world.edge.served["sql"] = "/tmp/theirs"
            await asyncio.sleep(0)

    agent = Agent(world.fleet, world.view)
    await agent.startup()
    other = asyncio.create_task(somebody())
    for _ in range(120):  # an hour
        world.clock.advance(30)
        await agent.once()
        swaps.append(len(world.store.commands(limit=1000)))
    other.cancel()
    assert swaps[0] <= 1 + 2, "the second is right after the first"
    assert swaps[-1] <= 1 + 9, "then an interval, doubled each time"
    assert [one.name for one in world.told(events.DRIFT) if one.cause == "fights"] == ["sql"]
    assert world.edge.served == {"sql": "/tmp/theirs"}
    with contextlib.suppress(asyncio.CancelledError):
        await other
    await passes(world, agent, 2, 3600)
    assert world.edge.served == {"sql": "/models/sql"}, "who gives up is not left with theirs"
    await agent.shutdown()


async def test_another_path_long_after_is_repaired_and_told_as_the_first(world: World) -> None:
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for _ in range(2):
        world.edge.served["sql"] = "/tmp/theirs"
        await passes(world, agent, 4)
        assert world.edge.served == {"sql": "/models/sql"}
    await agent.shutdown()
    assert [one.cause for one in world.told(events.DRIFT)] == ["path", "path"]


async def test_a_server_that_restarts_again_and_again_is_no_fight(world: World) -> None:
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for _ in range(4):
        world.edge.restart()
        await passes(world, agent, 1)
        assert world.edge.served == {"sql": "/models/sql"}
    await agent.shutdown()
    assert {one.cause for one in world.told(events.DRIFT)} == {"restarted"}


async def test_what_another_process_could_not_reach_is_told_to_be_back(world: World) -> None:
    """A `status` from a shell without the key writes that the target refuses it."""
    await world.apply(world.declaration(adapter()))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await passes(world, agent, 2)
    (record,) = world.store.targets()
    world.store.sight([replace(record, state="unreachable", cause=str(Cause.UNAUTHORIZED))])
    await passes(world, agent, 2)
    await agent.shutdown()
    (record,) = world.store.targets()
    assert record.state == "reachable"
    assert len(world.told(events.RECOVERED)) == 1
    assert agent.state.out_of_reach == 0


async def test_a_failing_store_is_told_once_and_left_alone_longer_and_longer(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from garrison.base.errors import UnreachableError

    caplog.set_level("INFO", "garrison")
    await world.apply(world.declaration(adapter()))
    waits: list[float] = []
    real = world.store.sight

    def sight(*_args: object) -> None:
        raise UnreachableError("the database is away", hint="Start it.")

    async def waited(_agent: Agent, seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 8:
            monkeypatch.setattr(world.store, "sight", real)
        await asyncio.sleep(0)

    monkeypatch.setattr(world.store, "sight", sight)
    monkeypatch.setattr(Agent, "_stopped_within", waited)
    world.edge.down = DOWN
    async with running(world):
        await until(lambda: "the store works again" in world.view.notes)
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    logged = [facts_of(one) for one in caplog.records if "waiting before the next try" in one.getMessage()]
    assert [one["seconds"] for one in logged] == waits
    assert [one for one in world.view.notes if "the database is away" in one] == [
        "the store failed, trying again: the database is away"
    ]
    assert len(world.told(events.UNREACHABLE)) == 1, "what was seen is not lost"


@pytest.mark.parametrize("clears", ["time", "out-of-reach"])
async def test_what_failed_for_good_is_tried_again_some_day(world: World, clears: str) -> None:
    """A mount that comes late: the server could not find the path, and finds it now."""
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.edge.down, world.edge.paths = None, set()
    agent = Agent(world.fleet, world.view)
    await agent.startup()

    def loads() -> int:
        return len(world.targets.asked("POST", "/v1/load_lora_adapter"))

    await passes(world, agent, 9)
    assert loads() == 1
    await passes(world, agent, 3)
    assert loads() == 2, "after ten intervals"
    await passes(world, agent, 15)
    assert loads() == 2, "then twice as long"
    world.edge.paths = None
    if clears == "out-of-reach":
        world.edge.down = DOWN
        await passes(world, agent, 1)
        world.edge.down = None
        await passes(world, agent, 1)
    else:
        await passes(world, agent, 6)
    await agent.shutdown()
    assert world.edge.served == {"sql": "/models/sql"}


async def test_a_disk_that_hangs_stops_no_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.artifacts.digests["/models/sql"] = "d1"
    await world.apply(world.declaration(adapter()))
    hung, calls = threading.Event(), []

    def digest(_artifacts: MemoryArtifacts, path: str) -> str | None:
        calls.append(path)
        hung.wait(10)
        return "d1"

    monkeypatch.setattr(MemoryArtifacts, "digest", digest)
    async with running(world) as agent:
        for looks in (1, 2, 3):
            await until(lambda looks=looks: agent.state.looks >= looks)  # type: ignore[misc] # a default in a lambda
            world.clock.advance(60)
    hung.set()
    assert len(calls) == 1, "never two at once"


async def test_what_came_back_under_report_is_told_when_it_goes_again(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for _ in range(2):
        del world.edge.served["sql"]
        await passes(world, agent, 2)
        recorded = world.recorded("sql")
        assert recorded is not None
        assert recorded.operation is Operation.LOST
        world.edge.served["sql"] = "/models/sql"
        await passes(world, agent, 2)
        recorded = world.recorded("sql")
        assert recorded is not None
        assert recorded.operation.serves
    await agent.shutdown()
    assert [one.cause for one in world.told(events.DRIFT)] == ["unloaded", "unloaded"]
    assert not world.targets.asked("POST", "/v1/load_lora_adapter")[1:]


async def test_the_same_foreign_path_is_told_again_when_it_was_gone_between(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for _ in range(2):
        world.edge.served["sql"] = "/tmp/theirs"
        await passes(world, agent, 2)
        world.edge.served["sql"] = "/models/sql"
        await passes(world, agent, 2)
    await agent.shutdown()
    assert [one.cause for one in world.told(events.DRIFT)] == ["path", "path"]


@pytest.mark.parametrize("where", ["look", "judge", "repair", "lease", "files"])
async def test_a_bug_is_said_and_counted_and_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    from garrison.fleet.agent import repairs as agent_module

    world.artifacts.digests["/models/sql"] = "d1"
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.edge.restart()
    calls = []

    def bug(*_args: object, **_options: object) -> Any:
        calls.append(1)
        raise KeyError("sk-secret")

    places: dict[str, tuple[object, str]] = {
        "look": (world.targets, "open"),
        "judge": (agent_module, "agent_work"),
        "repair": (MemoryArtifacts, "check"),
        "lease": (world.store, "acquire"),
        "files": (MemoryArtifacts, "digest"),
    }
    monkeypatch.setattr(*places[where], bug)
    async with running(world) as agent:
        await until(lambda: agent.state.bugs > 0)
        await asyncio.sleep(0.3)
        assert len(calls) == agent.state.bugs == agent.state.failed == 1
        world.clock.advance(60)
        await until(lambda: agent.state.bugs > 1)
    notes = [one for one in world.view.notes if "a bug in Garrison" in one]
    assert len(notes) == agent.state.bugs
    assert "KeyError in test_agent.py" in notes[0]
    assert "sk-secret" not in notes[0]


async def test_a_stack_that_is_applied_while_the_store_is_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.apply(world.declaration(adapter("a"), stack="a"))
    real = world.store.resources
    (ours,) = real()

    def resources(**options: Any) -> Any:
        theirs = replace(ours, key=replace(ours.key, name="b"), stack="b")
        return [*real(**options), theirs]

    monkeypatch.setattr(world.store, "resources", resources)
    agent = await world.agent_pass()
    assert agent.state.looks == 1
    assert agent.state.bugs == 0


async def test_what_other_stacks_own_is_managed_and_not_touched(world: World) -> None:
    await world.apply(world.declaration(adapter("a"), stack="a", on_drift="restore"))
    await world.apply(world.declaration(adapter("b"), stack="b", on_drift="restore"))
    agent = Agent(world.fleet, world.view, stacks=["a"])
    await agent.startup()
    await agent.once()
    world.edge.served.clear()
    await passes(world, agent, 2)
    await agent.shutdown()
    assert world.edge.served == {"a": "/models/a"}
    assert not world.told(events.CHANGED)


async def test_how_many_are_out_of_reach_is_kept_current(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for down in (None, DOWN, None):
        world.edge.down = down
        await passes(world, agent, 2)
        assert agent.state.out_of_reach == (down is not None)
    await agent.shutdown()


async def test_a_store_that_hangs_does_not_hold_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from garrison.fleet.agent import loop as agent_module

    await world.apply(world.declaration(adapter()))
    monkeypatch.setattr(agent_module, "_LAST_WRITE_SECONDS", 0.2)
    hung, asked = threading.Event(), threading.Event()

    def hang(*_args: object, **_options: object) -> Any:
        asked.set()
        hung.wait(20)

    agent = Agent(world.fleet, world.view)
    await agent.startup()
    for call in ("sight", "touch", "begun", "events"):
        monkeypatch.setattr(world.store, call, hang)
    loop = asyncio.create_task(agent.main_loop())
    await until(asked.is_set)
    async with asyncio.timeout(5):
        agent.request_stop()
        await loop
        await agent.shutdown()
    assert world.view.notes == [
        "the store did not answer within 0.2 s",
        "the last observations could not be written: the store did not answer within 0.2 s",
    ]
    left = world.fleet.close(0.0)
    assert "garrison-store-reader: hang, for 0 s" in left
    hung.set()


async def test_a_repair_that_hangs_does_not_hold_the_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.artifacts.digests["/models/sql"] = "d1"
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.edge.restart()
    hung, asked = threading.Event(), threading.Event()

    def check(_artifacts: MemoryArtifacts, *_args: object) -> None:
        asked.set()
        hung.wait(20)

    monkeypatch.setattr(MemoryArtifacts, "check", check)
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    loop = asyncio.create_task(agent.main_loop())
    await until(asked.is_set)
    async with asyncio.timeout(5):
        agent.request_stop()
        await loop
        await agent.shutdown(0.1)
    assert world.store.leases() == [], "the stack is free for the next agent"
    assert world.fleet.close(0.0) == ["garrison-disk: check /models/sql, for 0 s"]
    hung.set()


async def test_a_long_history_is_reported_to_its_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from garrison.store import history_feed
    from garrison.store.records import Event

    await world.apply(world.declaration(adapter()))
    monkeypatch.setattr(history_feed, "_PAGE", 3)
    reported: list[int] = []
    agent = Agent(world.fleet, world.view, on_event=lambda event: reported.append(event.id))
    await agent.startup()
    world.store.add_events([Event(at=world.clock.now(), kind=events.DRIFT, stack="lab") for _ in range(10)])
    newest = world.store.events(limit=1)[0].id
    await agent.once()
    assert reported == list(range(newest - 9, newest + 1))
    world.store.add_events([Event(at=world.clock.now(), kind=events.DRIFT, stack="lab") for _ in range(7)])
    await agent.shutdown()
    assert reported[-1] == newest + 7


async def test_a_target_that_is_declared_while_the_agent_runs_is_looked_at(world: World) -> None:
    await world.apply(world.declaration(adapter()))
    async with running(world) as agent:
        await until(lambda: agent.state.looks == 1)
        world.targets.targets["edge-2"] = MemoryTarget(base=BASE)
        await world.apply(world.declaration(adapter(), adapter("chat", "edge-2")))
        await until(lambda: agent.state.targets == 2 and agent.state.looks == 2)


BUSY = json_answer({"error": {"message": "the engine is busy", "code": 500}}, 500)
HUNG = TransportError(TransportCause.TIMEOUT, "no answer within 120 s", sent=True)
LOAD = "/v1/load_lora_adapter"


@pytest.mark.parametrize("answer", [BUSY, HUNG], ids=["500", "load-timeout"])
async def test_a_failure_that_may_pass_is_one_event_and_backs_off(
    world: World, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_seconds: float) -> None: ...

    monkeypatch.setattr("garrison.fleet.operations.repair.ExecuteOptions", partial(ExecuteOptions, sleep=at_once))
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.edge.down = None
    world.edge.faults.append(MemoryFault(LOAD, answer, method="POST"))
    agent = Agent(world.fleet, world.view)
    await agent.startup()
    await passes(world, agent, 2)
    loads = len(world.targets.asked("POST", LOAD))
    await passes(world, agent, 20)
    rounds = (len(world.targets.asked("POST", LOAD)) - loads) / (loads / 2)
    assert 1 <= rounds <= 5, "20 intervals, of which each would be a try"
    (failed,) = world.told(events.ACTION_FAILED)
    assert failed.after is not None
    if answer is HUNG:
        assert "load_timeout" in failed.after["hint"]
    assert world.told(events.INTERRUPTED) == []
    assert agent.state.failed >= 2
    world.edge.faults.clear()
    await passes(world, agent, 40)
    await agent.shutdown()
    assert world.edge.served == {"sql": "/models/sql"}


async def test_another_failure_is_another_event(world: World) -> None:
    world.edge.down = DOWN
    await world.apply(world.declaration(adapter(), on_drift="restore"))
    world.edge.down = None
    for message in ("LoRA rank 64 is too high", "LoRA rank 128 is too high"):
        world.edge.broken["/models/sql"] = json_answer({"error": {"message": message, "code": 500}}, 500)
        for _ in range(2):
            await world.agent_pass()
    told = [one.after["message"] for one in world.told(events.ACTION_FAILED) if one.after]
    assert told == ["LoRA rank 64 is too high", "LoRA rank 128 is too high"]
