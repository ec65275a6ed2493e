"""Actions against servers in memory and simulated ones: what is sent, what is left behind, what is on record."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from fleet_bench import BASE, COMMAND, NEW, OLD, STACK, Bench, applied, create, delete, rename, spec, update

from garrison.base.clock import SystemClock
from garrison.base.errors import DiskFullError, InternalError
from garrison.fleet.values import events
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Cause, Served
from garrison.fleet.values.plan import ActionKind, Way
from garrison.fleet.values.target import TargetSpec
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Secret
from garrison.net.errors import TransportCause
from garrison.net.transport import Answer, TransportError
from garrison.sim.faults import Faults, Rule
from garrison.store.records import ActionState, Operation
from garrison.testing.adapter_reader import MemoryAdapters
from garrison.testing.store import MemoryStore
from garrison.testing.targets import MemoryFault, MemoryTarget, json_answer, refusal

LOAD, UNLOAD, LIST = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/models"
REFUSED = TransportError(TransportCause.REFUSED, "connection refused")
HUNG = TransportError(TransportCause.TIMEOUT, "no answer within 120 s", sent=True)
CUT = TransportError(TransportCause.RESET, "the connection was reset", sent=True)
BROKEN = refusal(500, "InternalServerError", "EngineCore encountered an issue.")
RANK = refusal(500, "InternalServerError", "LoRA rank 64 is greater than max_lora_rank 16.")
BUSY = Answer(429, b"", {"retry-after": "3"})
DONE, FAILED, SKIPPED, STARTED = ActionState.DONE, ActionState.FAILED, ActionState.SKIPPED, ActionState.STARTED


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


# --- load


async def test_load(bench: Bench) -> None:
    outcome = await bench.one(create())
    assert (outcome.state, outcome.failure, outcome.notes) == (DONE, None, ())
    assert bench.edge.served == {"sql": NEW}
    assert bench.asked() == ["load", "list", "complete", "complete"]
    owned = bench.owned()["sql"]
    assert (owned.operation, owned.served_path, owned.parent) == (Operation.CREATED, NEW, BASE)
    assert (owned.stack, owned.command, owned.spec) == (STACK, COMMAND, spec().to_json())
    record = bench.record()
    assert (record.state, record.step, record.error) == (DONE, "probe", None)
    assert record.after is not None
    assert record.after["served_path"] == NEW
    (event,) = bench.store.events()
    assert (event.kind, event.name, event.command) == (events.ACTION_DONE, "sql", COMMAND)
    assert event.after == {"served_path": NEW, "parent": BASE, "digest": None}


LOAD_FAULTS: list[tuple[str, MemoryFault, ActionState, dict[str, str]]] = [
    ("500, then well", MemoryFault(LOAD, BROKEN, times=1), DONE, {"sql": NEW}),
    ("500, but done", MemoryFault(LOAD, BROKEN, after=True, times=1), DONE, {"sql": NEW}),
    ("500 for ever", MemoryFault(LOAD, BROKEN), FAILED, {}),
    ("429, then well", MemoryFault(LOAD, BUSY, times=1), DONE, {"sql": NEW}),
    ("cut, and done", MemoryFault(LOAD, CUT, after=True, times=1), DONE, {"sql": NEW}),
    ("cut, not done", MemoryFault(LOAD, CUT, times=1), DONE, {"sql": NEW}),
    ("hung, and done", MemoryFault(LOAD, HUNG, after=True, times=1), DONE, {"sql": NEW}),
    ("hung, not done", MemoryFault(LOAD, HUNG, times=1), DONE, {"sql": NEW}),
    ("hung for ever", MemoryFault(LOAD, HUNG), STARTED, {}),
    ("refused", MemoryFault(LOAD, REFUSED), SKIPPED, {}),
    ("rank too high", MemoryFault(LOAD, RANK), FAILED, {}),
    ("key", MemoryFault(LOAD, Answer(401, b"")), FAILED, {}),
    ("done, and then not seen", MemoryFault(LIST, REFUSED), STARTED, {"sql": NEW}),
    ("list cut once", MemoryFault(LIST, CUT, times=1), DONE, {"sql": NEW}),
    ("probe hung", MemoryFault("/v1/completions", HUNG), DONE, {"sql": NEW}),
    ("probe broken", MemoryFault("/v1/completions", BROKEN), FAILED, {}),
]


@pytest.mark.parametrize(
    ("fault", "state", "served"), [row[1:] for row in LOAD_FAULTS], ids=[row[0] for row in LOAD_FAULTS]
)
async def test_load_with_faults(bench: Bench, fault: MemoryFault, state: ActionState, served: dict[str, str]) -> None:
    bench.edge.faults.append(replace(fault))
    outcome = await bench.one(create())
    assert outcome.state is state
    assert bench.edge.served == served
    assert (outcome.failure is None) == (state is DONE)
    record = bench.record()
    assert record.state is state
    assert (record.error is None) == (state is DONE)
    assert (record.ended_at is None) == (state is STARTED)
    assert set(bench.owned()) == ({"sql"} if state is DONE else set())
    kinds = [event.kind for event in bench.store.events()]
    assert kinds == ([] if state is SKIPPED else [events.ACTION_DONE if state is DONE else events.ACTION_FAILED])


async def test_a_server_that_asks_for_time_gets_it(bench: Bench) -> None:
    bench.edge.faults.append(MemoryFault(LOAD, BUSY, times=2))
    assert (await bench.one(create())).state is DONE
    assert all(3 <= wait < 4.1 for wait in bench.waits)
    assert [step for _, _, step in bench.view.steps if step.startswith("wait ")]


async def test_attempts_are_counted(bench: Bench) -> None:
    bench.edge.faults.append(MemoryFault(LOAD, BROKEN))
    outcome = await bench.one(create())
    assert bench.asked() == ["load", "list"] * 4
    assert outcome.failure is not None
    assert "gave up: 4 attempts" in outcome.failure.message
    assert not bench.owned()


async def test_permanent_is_never_tried_again(bench: Bench) -> None:
    bench.edge.broken[NEW] = RANK
    outcome = await bench.one(create())
    assert bench.asked() == ["load"]
    assert outcome.failure is not None
    assert "--max-lora-rank" in str(outcome.failure.hint)


async def test_a_200_that_does_nothing(bench: Bench) -> None:
    bench.edge.hollow.add(NEW)
    outcome = await bench.one(create())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert "does not list it" in outcome.failure.message
    assert bench.asked() == ["load", "list", "unload", "list"]


async def test_the_wrong_base(bench: Bench) -> None:
    outcome = await bench.one(create(spec(base_model_name="acme/other")))
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert "attached to base model acme/tiny, not to acme/other" in outcome.failure.message
    assert bench.edge.served == {}
    assert outcome.notes == ("the adapter was unloaded again",)


async def test_a_list_with_another_path(bench: Bench) -> None:
    entries = [(BASE, BASE, None), ("sql", "/elsewhere", BASE)]
    data = [{"id": name, "root": root, "parent": parent, "owned_by": "vllm"} for name, root, parent in entries]
    bench.edge.faults.append(MemoryFault(LIST, json_answer({"object": "list", "data": data}), times=1))
    outcome = await bench.one(create())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert "lists it from /elsewhere" in outcome.failure.message
    assert bench.edge.served == {}


async def test_what_somebody_else_loaded_meanwhile_is_not_unloaded(bench: Bench) -> None:
    entries = [(BASE, BASE, None), ("sql", "/elsewhere", BASE)]
    data = [{"id": name, "root": root, "parent": parent, "owned_by": "vllm"} for name, root, parent in entries]
    bench.edge.faults.append(MemoryFault(LIST, json_answer({"object": "list", "data": data})))
    outcome = await bench.one(create())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert outcome.failure.code is FailureCode.RESOURCE_CONFLICT
    assert "unload" not in bench.asked()


async def test_another_name_of_the_same_base(bench: Bench) -> None:
    bench.edge.names = (BASE, "alias")
    assert (await bench.one(create(spec(base_model_name="alias")))).state is DONE


async def test_a_target_that_changed_its_base_is_not_believed(bench: Bench) -> None:
    bench.edge.base = "acme/other"
    outcome = await bench.one(create())
    assert outcome.state is STARTED
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.WRONG_BASE


async def test_the_same_is_loaded_already(bench: Bench) -> None:
    bench.edge.served["sql"] = NEW
    assert (await bench.one(create())).state is DONE
    assert bench.owned()["sql"].served_path == NEW


async def test_what_somebody_else_loaded_is_never_overwritten(bench: Bench) -> None:
    bench.edge.served["sql"] = "/theirs"
    outcome = await bench.one(create())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert outcome.failure.code is FailureCode.ALREADY_EXISTS
    assert bench.edge.served == {"sql": "/theirs"}
    assert "unload" not in bench.asked()
    assert not any((one.json or {}).get("load_inplace") for one in bench.targets.requests)


async def test_what_was_there_is_not_unloaded_when_it_does_not_answer(bench: Bench) -> None:
    """It is served from our path, and it was not this action that loaded it."""
    bench.edge.served["sql"] = NEW
    bench.edge.faults.append(MemoryFault("/v1/completions", BROKEN))
    assert (await bench.one(create())).state is FAILED
    assert bench.edge.served == {"sql": NEW}


async def test_routes_that_are_off(bench: Bench) -> None:
    bench.edge.lora_routes = False
    outcome = await bench.one(create())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in str(outcome.failure.hint)


async def test_what_cannot_be_unloaded_again_is_owned(bench: Bench) -> None:
    bench.edge.faults += [MemoryFault("/v1/completions", BROKEN), MemoryFault(UNLOAD, refusal(400, "x", "no"))]
    outcome = await bench.one(create())
    assert outcome.state is FAILED
    assert outcome.notes == ("the adapter could not be unloaded again: HTTP 400: no",)
    assert bench.edge.served == {"sql": NEW}
    assert bench.owned()["sql"].served_path == NEW


# --- files


async def test_files_that_do_not_fit_are_never_sent(bench: Bench) -> None:
    bench.artifacts.refused[NEW] = Failure(code=FailureCode.INVALID_REQUEST, message="q_proj is 32, the base has 64")
    outcome = await bench.one(create())
    assert (outcome.state, outcome.failure) == (FAILED, bench.artifacts.refused[NEW])
    assert bench.asked() == []


@pytest.fixture
def stored(bench: Bench) -> Bench:
    bench.artifacts.default_store = "/store"
    bench.artifacts.digests[NEW] = "abc"
    return bench


def staged(**changes: Any) -> Any:
    return create(spec(digest="abc"), stage=True, load_path="/store/abc", **changes)


async def test_staged(stored: Bench) -> None:
    assert (await stored.one(staged())).state is DONE
    assert stored.edge.served == {"sql": "/store/abc"}
    assert stored.owned()["sql"].served_path == "/store/abc"
    assert [step for _, _, step in stored.view.steps] == ["check", "stage", "load", "list", "probe"]


async def test_an_intact_copy_stands_for_a_source_that_changed(stored: Bench) -> None:
    stored.artifacts.staged["/store/abc"] = "abc"
    stored.artifacts.digests[NEW] = "another"
    assert (await stored.one(staged())).state is DONE
    assert stored.edge.served == {"sql": "/store/abc"}


async def test_a_spoiled_copy_gives_way_to_another(stored: Bench) -> None:
    stored.artifacts.spoiled.add("/store/abc")
    assert (await stored.one(staged())).state is DONE
    assert stored.edge.served == {"sql": "/store/abc-2"}
    after = stored.record().after
    assert after is not None
    assert after["served_path"] == stored.owned()["sql"].served_path == "/store/abc-2"


async def test_content_that_changed_since_the_plan(stored: Bench) -> None:
    stored.artifacts.digests[NEW] = "another"
    outcome = await stored.one(staged())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert "changed since the plan was made" in outcome.failure.message
    assert stored.asked() == []


async def test_no_room(stored: Bench) -> None:
    stored.artifacts.stage_errors["abc"] = DiskFullError("1 GB are missing", hint="Make room.")
    outcome = await stored.one(staged())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert (outcome.failure.code, outcome.failure.hint) == (FailureCode.SERVICE_LIMIT_EXCEEDED, "Make room.")


async def test_a_server_that_does_not_see_the_store(stored: Bench) -> None:
    stored.edge.paths = {NEW}
    outcome = await stored.one(staged())
    assert outcome.failure is not None
    assert "`adapter_store: none`" in str(outcome.failure.hint)


# --- swap


async def test_swap(bench: Bench) -> None:
    bench.serve(sql=OLD)
    outcome = await bench.one(update())
    assert outcome.state is DONE
    assert bench.edge.served == {"sql": NEW}
    assert bench.asked()[:4] == ["list", "unload", "load", "list"]
    assert bench.targets.opened == {"edge": 1}
    assert outcome.gap_ms is not None
    assert bench.record().gap_ms == outcome.gap_ms
    assert (bench.owned()["sql"].operation, bench.owned()["sql"].version) == (Operation.UPDATED, 2)


async def test_a_new_version_that_does_not_load_is_put_back(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.broken[NEW] = RANK
    outcome = await bench.one(update())
    assert outcome.state is FAILED
    assert bench.edge.served == {"sql": OLD}
    assert outcome.notes == (f"the old adapter is served again, from {OLD}",)
    assert (bench.owned()["sql"].version, bench.owned()["sql"].served_path) == (1, OLD)
    assert outcome.failure is not None
    assert outcome.failure.message.endswith(f"the version before it is still served, from {OLD}")


async def test_neither_new_nor_old(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.broken |= {NEW: RANK, OLD: refusal(404, "NotFoundError", "No adapter found for /models/old")}
    outcome = await bench.one(update())
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert "rank" in outcome.failure.message
    assert "could not be put back" in outcome.notes[0]
    assert "still served" not in outcome.failure.message
    tombstone = bench.owned()["sql"]
    assert (tombstone.operation, tombstone.served_path) == (Operation.LOST, OLD)


async def test_the_old_one_serves_while_the_new_one_is_tried_again(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.faults.append(MemoryFault(LOAD, BROKEN, times=1))
    outcome = await bench.one(update())
    assert outcome.state is DONE
    changes = [(one.path, one.json["lora_path"]) for one in bench.targets.asked("POST", LOAD)]
    assert changes == [(LOAD, NEW), (LOAD, OLD), (LOAD, NEW)]
    assert outcome.notes == (f"the old adapter is served again, from {OLD}",)


@pytest.mark.parametrize("fault", ["probe", "base"])
async def test_a_new_version_that_is_not_right_is_put_back(bench: Bench, fault: str) -> None:
    bench.serve(sql=OLD)
    if fault == "probe":
        bench.edge.faults.append(MemoryFault("/v1/completions", BROKEN))
    wanted = spec(base_model_name="acme/other") if fault == "base" else spec()
    outcome = await bench.one(update(wanted))
    assert outcome.state is FAILED
    assert bench.edge.served == {"sql": OLD}
    assert outcome.notes == ("the adapter was unloaded again", f"the old adapter is served again, from {OLD}")
    assert bench.owned()["sql"].version == 1


async def test_a_new_version_that_is_not_listed_is_put_back(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.hollow.add(NEW)
    assert (await bench.one(update())).state is FAILED
    assert bench.edge.served == {"sql": OLD}


async def test_a_target_that_dies_between_unload_and_load(bench: Bench) -> None:
    bench.serve(sql=OLD)

    def die(name: str) -> None:
        if name == "unloaded":
            bench.edge.down = REFUSED

    outcome = await bench.one(update(), checkpoint=die)
    assert outcome.state is STARTED
    record = bench.record()
    assert record.before is not None
    assert record.after is not None
    assert (record.before["served_path"], record.after["served_path"]) == (OLD, NEW)


async def test_an_unload_without_an_answer(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.faults.append(MemoryFault(UNLOAD, CUT, after=True, times=1))
    assert (await bench.one(update())).state is DONE
    assert bench.edge.served == {"sql": NEW}


async def test_the_name_is_gone_already(bench: Bench) -> None:
    outcome = await bench.one(update())
    assert (outcome.state, outcome.gap_ms) == (DONE, None)
    assert "unload" not in bench.asked()


async def test_the_new_one_is_there_already(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.served["sql"] = NEW
    assert (await bench.one(update())).state is DONE
    assert "unload" not in bench.asked()


@pytest.mark.parametrize(("there", "lost"), [({"sql": NEW}, False), ({}, True)], ids=["the new one", "nothing"])
async def test_only_what_is_proved_absent_is_lost(bench: Bench, there: dict[str, str], lost: bool) -> None:
    bench.serve(sql=OLD)
    bench.edge.served = dict(there)
    bench.edge.faults.append(MemoryFault("/v1/completions", BROKEN))
    assert (await bench.one(update())).state is FAILED
    assert bench.edge.served == there
    assert (bench.owned()["sql"].operation is Operation.LOST) == lost


async def test_the_same_path_is_unloaded_and_loaded(bench: Bench) -> None:
    bench.serve(sql=NEW)
    assert (await bench.one(update(old=NEW))).state is DONE
    assert bench.asked()[:3] == ["list", "unload", "load"]


@pytest.mark.parametrize("action", [update(), delete()], ids=["update", "delete"])
async def test_what_changed_since_the_plan_is_left_alone(bench: Bench, action: Any) -> None:
    bench.serve(sql=OLD)
    bench.edge.served["sql"] = "/theirs"
    outcome = await bench.one(action)
    assert outcome.state is FAILED
    assert outcome.failure is not None
    assert outcome.failure.code is FailureCode.RESOURCE_CONFLICT
    assert bench.edge.served == {"sql": "/theirs"}


async def test_what_is_overwritten_by_wish_is_put_back_when_that_fails(bench: Bench) -> None:
    bench.edge.served["sql"] = "/theirs"
    bench.edge.broken[NEW] = RANK
    outcome = await bench.one(update(recorded=None, observed=Served("sql", "/theirs", BASE)))
    assert outcome.state is FAILED
    assert bench.edge.served == {"sql": "/theirs"}
    assert not bench.owned()


# --- load, then unload


async def test_the_new_name_answers_before_the_old_one_goes(bench: Bench) -> None:
    bench.serve(sql=OLD)
    outcome = await bench.one(rename())
    assert outcome.state is DONE
    assert bench.edge.served == {"sql2": NEW}
    asked = bench.asked()
    assert asked.index("complete") < asked.index("unload")
    assert set(bench.owned()) == {"sql2"}


async def test_a_new_name_that_does_not_come_up_leaves_the_old_one(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.broken[NEW] = RANK
    assert (await bench.one(rename())).state is FAILED
    assert bench.edge.served == {"sql": OLD}
    assert set(bench.owned()) == {"sql"}


async def test_an_old_name_that_does_not_go_leaves_both_owned(bench: Bench) -> None:
    bench.serve(sql=OLD)
    bench.edge.faults.append(MemoryFault(UNLOAD, refusal(400, "x", "no")))
    assert (await bench.one(rename())).state is FAILED
    assert set(bench.owned()) == {"sql", "sql2"} == set(bench.edge.served)


# --- unload


UNLOADS: list[tuple[str, list[MemoryFault], ActionState, bool]] = [
    ("plain", [], DONE, True),
    ("404: not there", [MemoryFault(UNLOAD, refusal(404, "NotFoundError", "cannot be found"), after=True)], DONE, True),
    ("404, and still listed", [MemoryFault(UNLOAD, refusal(404, "NotFoundError", "cannot be found"))], FAILED, False),
    ("404: no such route", [MemoryFault(UNLOAD, json_answer({"detail": "Not Found"}, 404))], FAILED, False),
    ("200, and still listed", [MemoryFault(UNLOAD, Answer(200, b"Success"))], FAILED, False),
    ("cut, and done", [MemoryFault(UNLOAD, CUT, after=True)], DONE, True),
    ("cut once", [MemoryFault(UNLOAD, CUT, times=1)], DONE, True),
    ("done, and then not seen", [MemoryFault(LIST, REFUSED, skip=1)], STARTED, True),
    ("refused", [MemoryFault("/v1/*", REFUSED)], SKIPPED, False),
]


@pytest.mark.parametrize(("faults", "state", "gone"), [row[1:] for row in UNLOADS], ids=[row[0] for row in UNLOADS])
async def test_unload(bench: Bench, faults: list[MemoryFault], state: ActionState, gone: bool) -> None:
    bench.serve(sql=OLD, other=OLD)
    bench.edge.faults += [replace(fault) for fault in faults]
    outcome = await bench.one(delete())
    assert outcome.state is state
    assert ("sql" not in bench.edge.served) == gone
    assert "other" in bench.edge.served
    assert ("sql" not in bench.owned()) == (state is DONE)


async def test_gone_already(bench: Bench) -> None:
    bench.store.put([applied()])
    assert (await bench.one(delete())).state is DONE
    assert bench.asked() == ["list"]
    assert [one.operation for one in bench.store.versions(applied().key)] == [Operation.CREATED, Operation.DELETED]


# --- only recorded


async def test_adopt(bench: Bench) -> None:
    there = Served("sql", "/theirs", BASE)
    outcome = await bench.one(create(kind=ActionKind.ADOPT, way=Way.RECORD, observed=there, reason="as declared"))
    assert outcome.state is DONE
    owned = bench.owned()["sql"]
    assert (owned.operation, owned.served_path, owned.parent) == (Operation.ADOPTED, "/theirs", BASE)
    assert bench.targets.requests == []


async def test_release(bench: Bench) -> None:
    bench.serve(sql=OLD)
    outcome = await bench.one(delete(kind=ActionKind.RELEASE, way=Way.RECORD))
    assert outcome.state is DONE
    assert bench.owned() == {}
    assert bench.edge.served == {"sql": OLD}
    assert bench.store.versions(applied().key)[-1].operation is Operation.RELEASED


async def test_blocked(bench: Bench) -> None:
    away = Failure(code=FailureCode.NETWORK_FAILURE, message="away", recoverable=True, cause=Cause.REFUSED)
    never = Failure(code=FailureCode.INVALID_REQUEST, message="never")
    outcomes = await bench.run(
        create(spec("a"), kind=ActionKind.BLOCKED, way=None, failure=away),
        create(spec("b"), kind=ActionKind.BLOCKED, way=None, failure=never),
        create(spec("c"), kind=ActionKind.KEEP, way=None),
    )
    assert [one.state for one in outcomes] == [SKIPPED, FAILED]
    assert [one.state for one in bench.store.actions(COMMAND)] == [SKIPPED, FAILED, ActionState.PLANNED]
    assert bench.targets.requests == []


# --- several


async def test_a_target_that_is_lost_owes_the_rest(bench: Bench) -> None:
    bench.serve(c=OLD)
    bench.edge.faults.append(MemoryFault("/v1/*", REFUSED, skip=4))
    actions = [create(spec("a")), create(spec("b")), delete("c")]
    outcomes = await bench.run(*actions)
    assert [one.state for one in outcomes] == [DONE, SKIPPED, SKIPPED]
    assert [one.action for one in outcomes] == actions
    assert [one.failure.cause for one in outcomes if one.failure] == [Cause.REFUSED] * 2
    assert bench.asked() == ["load", "list", "complete", "complete"] + ["load"] * 4
    assert [one.state for one in bench.store.actions(COMMAND)] == [DONE, SKIPPED, SKIPPED]


async def test_one_target_does_not_stop_another(bench: Bench) -> None:
    bench.targets.targets |= {f"node-{at}": MemoryTarget(base=BASE) for at in range(40)}
    bench.targets["node-3"].down = REFUSED
    bench.targets["node-5"].broken[NEW] = RANK
    outcomes = await bench.run(*(create(spec(target=f"node-{at}")) for at in range(40)))
    states = {one.action.target: one.state for one in outcomes}
    assert states.pop("node-3") is SKIPPED
    assert states.pop("node-5") is FAILED
    assert set(states.values()) == {DONE}
    assert [one.action.target for one in outcomes] == [f"node-{at}" for at in range(40)]


async def test_after_a_permanent_failure_the_next_action_is_done(bench: Bench) -> None:
    bench.edge.broken["/bad"] = RANK
    outcomes = await bench.run(create(spec("a", "/bad")), create(spec("b")))
    assert [one.state for one in outcomes] == [FAILED, DONE]


async def test_no_more_than_so_many_at_a_time(bench: Bench) -> None:
    bench.targets.targets |= {f"node-{at}": MemoryTarget(base=BASE) for at in range(9)}
    open_now, most = 0, 0

    class Counting:
        def open(self, target: TargetSpec) -> Any:
            inner = bench.targets.open(target)

            class Around:
                async def __aenter__(self) -> Any:
                    nonlocal open_now, most
                    open_now += 1
                    most = max(most, open_now)
                    return await inner.__aenter__()

                async def __aexit__(self, *error: Any) -> Any:
                    nonlocal open_now
                    open_now -= 1
                    return await inner.__aexit__(*error)

            return Around()

    bench.fleet.dialer = Counting()
    await bench.run(*(create(spec(target=f"node-{at}")) for at in range(9)), parallel=3)
    assert (most, open_now) == (3, 0)


async def test_a_store_that_fails_cuts_no_update_short(bench: Bench) -> None:
    class Failing(MemoryStore):
        def save_actions(self, results: Any) -> None:
            if any(one.action.key.target == "edge" and one.action.state is DONE for one in results):
                raise InternalError("the disk is full")
            super().save_actions(results)

    bench.store = bench.fleet.store = Failing()
    bench.targets.targets["node"] = MemoryTarget(base=BASE, served={"sql": OLD})
    with pytest.raises(InternalError):
        await bench.run(create(), update(spec(target="node")), create(spec("more", target="node")))
    assert bench.edge.served == {"sql": NEW}
    assert bench.targets["node"].served == {"sql": NEW}
    states = [(one.key.target, one.key.name, one.state) for one in bench.store.actions(COMMAND)]
    assert states == [("edge", "sql", STARTED), ("node", "sql", DONE), ("node", "more", ActionState.PLANNED)]


async def test_a_stop_lets_the_action_end_and_leaves_the_rest(bench: Bench) -> None:
    loaded: list[str] = []
    outcomes = await bench.run(
        create(spec("a")), create(spec("b")), checkpoint=loaded.append, stopping=lambda: "loaded" in loaded
    )
    assert [one.state for one in outcomes] == [DONE, SKIPPED]


async def test_probing_can_be_turned_off_and_insisted_on(bench: Bench) -> None:
    bench.edge.faults.append(MemoryFault("/v1/completions", HUNG))
    off, must = create(spec("a", probe=False)), create(spec("b", probe=True))
    outcomes = await bench.run(off, must)
    assert [one.state for one in outcomes] == [DONE, FAILED]
    assert set(bench.edge.served) == {"a"}


async def test_an_adapter_that_changes_nothing_is_noted(bench: Bench) -> None:
    bench.edge.idle.add(NEW)
    outcome = await bench.one(create(spec("sql", NEW, probe=True)))
    assert outcome.state is DONE
    assert "answers like the base" in outcome.notes[0]


# --- over sockets


async def simulated(bench: Bench, start_sim: Any, **options: Any) -> Any:
    sim = await start_sim(**options)
    bench.specs["edge"] = TargetSpec(name="edge", base_url=sim.url, timeout=2.0, load_timeout=2.0)
    bench.fleet.dialer = HttpDialer()
    return sim


def sim_served(sim: Any) -> dict[str, str]:
    return {name: one.path for name, one in sim.state.engine.adapters.items()}


SIM_LOADS: list[tuple[str, Faults, ActionState]] = [
    ("well", Faults(), DONE),
    ("500, then well", Faults(script=(Rule(path=LOAD, action="status", status=500, times=1),)), DONE),
    (
        "429, then well",
        Faults(script=(Rule(path=LOAD, action="status", status=429, times=1, headers=(("retry-after", "1"),)),)),
        DONE,
    ),
    ("reset, then well", Faults(script=(Rule(path=LOAD, action="reset", times=1),)), DONE),
    ("the answer is cut", Faults(script=(Rule(path=LOAD, action="cut", times=1),)), DONE),
    ("captive portal", Faults(disguise="captive-portal"), STARTED),
    ("wrong base", Faults(disguise="wrong-base"), STARTED),
    ("the list is cut once", Faults(script=(Rule(path=LIST, action="cut", times=1),)), DONE),
]


@pytest.mark.parametrize(("faults", "state"), [row[1:] for row in SIM_LOADS], ids=[row[0] for row in SIM_LOADS])
async def test_a_simulated_load(bench: Bench, start_sim: Any, faults: Faults, state: ActionState) -> None:
    sim = await simulated(bench, start_sim, faults=faults)
    outcome = await bench.one(create())
    assert outcome.state is state
    if state is DONE:
        assert sim_served(sim) == {"sql": NEW}


async def test_a_load_that_hangs_is_given_up_in_time(bench: Bench, start_sim: Any) -> None:
    sim = await simulated(bench, start_sim, faults=Faults(script=(Rule(path=LOAD, action="hang"),)))
    bench.specs["edge"] = TargetSpec(name="edge", base_url=sim.url, load_timeout=0.1)
    outcome = await bench.one(create())
    assert outcome.state is STARTED
    assert outcome.failure is not None
    assert outcome.failure.code is FailureCode.SERVICE_TIMEOUT


async def test_a_simulated_update(bench: Bench, start_sim: Any) -> None:
    sim = await simulated(bench, start_sim)
    bench.fleet.clock = SystemClock()
    assert (await bench.one(create(spec(path=OLD)))).state is DONE
    accepted = sim.accepted_connections
    bench.store = bench.fleet.store = type(bench.store)()
    outcome = await bench.one(update())
    assert outcome.state is DONE
    assert sim_served(sim) == {"sql": NEW}
    assert sim.accepted_connections == accepted + 1
    assert outcome.gap_ms is not None
    assert 0 < outcome.gap_ms < 1000


async def test_a_simulated_update_of_too_high_a_rank(bench: Bench, start_sim: Any) -> None:
    adapters = MemoryAdapters()
    adapters.put(OLD, "old")
    adapters.put(NEW, "new", rank=64)
    sim = await simulated(bench, start_sim, adapters=adapters)
    assert sim.state.engine.load("sql", OLD, in_place=False) is None
    outcome = await bench.one(update())
    assert outcome.state is FAILED
    assert sim_served(sim) == {"sql": OLD}


async def test_a_simulated_server_that_dies_between_unload_and_load(bench: Bench, start_sim: Any) -> None:
    sim = await simulated(bench, start_sim)
    assert sim.state.engine.load("sql", OLD, in_place=False) is None
    ended: list[asyncio.Task[None]] = []

    def die(name: str) -> None:
        if name == "unloaded":
            sim._http.drop_connections()
            ended.append(asyncio.get_running_loop().create_task(sim.stop()))

    outcome = await bench.one(update(), checkpoint=die)
    assert outcome.state is STARTED
    await asyncio.gather(*ended)


async def test_a_simulated_server_without_routes(bench: Bench, start_sim: Any) -> None:
    await simulated(bench, start_sim, runtime_lora=False)
    outcomes = await bench.run(create(spec("a")), delete("b"))
    assert outcomes[0].state is FAILED
    assert outcomes[1].state is DONE  # the list shows that it is not there


async def test_a_key_that_cannot_be_read(bench: Bench, start_sim: Any) -> None:
    sim = await simulated(bench, start_sim)
    key = Secret("env", "GARRISON_TEST_NO_SUCH_KEY")
    bench.specs["edge"] = TargetSpec(name="edge", base_url=sim.url, api_key=key)
    outcome = await bench.one(create())
    assert outcome.state is SKIPPED
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.LOCAL
