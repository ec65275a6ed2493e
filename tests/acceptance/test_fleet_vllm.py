"""Declared adapters on a real vLLM: the life of an adapter, what is refused, and a server that restarts.

One server lives through the module. Every test has a database, names and files of its own, and leaves nothing on the
server, so they run in any order, also against a server that is up already: `scripts/test --vllm-url URL`.
"""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from vllm_lab import KEY_VARIABLE, TARGET, Lab
from vllm_server import ALIAS, LOAD, Server, StartedServer, installed_vllm, server_that_is_up

from garrison.base.errors import ConflictError
from garrison.fleet.agent.loop import Agent
from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.operations.apply import Applied
from garrison.fleet.report.inspect import find_drifts, status_of
from garrison.fleet.values import events
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Cause, Presence
from garrison.fleet.values.plan import ActionKind, Change, Way
from garrison.net.endpoint import Secret
from garrison.store.records import ActionState, Operation

pytestmark = [pytest.mark.engine("vllm"), pytest.mark.timeout(400)]

LONG = [100 + at * 7 % 300 for at in range(400)]
"""Longer than a block of the prefix cache, so that old blocks would be answered from."""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Server]:
    """The server, as the last test left it."""
    home = tmp_path_factory.mktemp("vllm")
    if (up := server_that_is_up(home)) is not None:
        up.warm_up()
        yield up
        return
    started = StartedServer(installed_vllm(), tiny_model, home)
    try:
        started.start()
        started.wait()
        started.warm_up()
        yield started
    finally:
        started.stop()


@pytest.fixture
def server(vllm: Server) -> Server:
    """The server, with the routes that load and unload."""
    if isinstance(vllm, StartedServer) and not (vllm.routes and vllm.healthy()):
        vllm.stop()
        vllm.start()
        vllm.wait()
    return vllm


@pytest.fixture
def own(server: Server) -> StartedServer:
    """One that may be stopped."""
    if not isinstance(server, StartedServer):
        pytest.skip(f"stops and starts the server; the one at {server.url} is not ours to stop")
    return server


@pytest.fixture
def lab(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    if server.key:
        monkeypatch.setenv(KEY_VARIABLE, server.key)
    made = Lab(server, f"suite-{secrets.token_hex(3)}", tmp_path)
    yield made
    made.close()


def failure_of(applied: Applied) -> Failure:
    """Of the only action, whether it was refused or failed."""
    (outcome,) = applied.outcomes
    assert outcome.state is ActionState.FAILED
    assert outcome.failure is not None
    return outcome.failure


# --- the life of an adapter


async def test_create_and_read_back(lab: Lab) -> None:
    """Served from the adapter store, on the base; it answers otherwise than the base, and the probe has seen it."""
    name, path = lab.name("sql"), lab.adapter()
    applied = await lab.apply(lab.declare(lab.spec(path, base_model_name=lab.base)))
    assert applied.exit_code == 0
    (outcome,) = applied.outcomes
    assert (outcome.state, outcome.notes, outcome.gap_ms) == (ActionState.DONE, (), None)
    entry = lab.server.entries()[name]
    recorded = lab.recorded()
    assert recorded is not None
    assert (
        (entry["parent"], entry["root"]) == (lab.base, recorded.served_path) == (recorded.parent, recorded.served_path)
    )
    assert recorded.served_path == str(lab.files / "store" / recorded.spec["digest"])
    assert "probe" in [step for _, _, step in lab.view.steps]
    assert lab.server.answer(name) != lab.server.answer(lab.base)
    assert lab.server.chat(name) != lab.server.chat(lab.base)


async def test_nothing_on_apply_again(lab: Lab) -> None:
    declaration = lab.declare(lab.spec(lab.adapter()))
    await lab.apply(declaration)
    before, sent, loads = lab.served, len(lab.dialer.sent), loads_in_log(lab.server)
    again = await lab.apply(declaration)
    assert again.plan.empty
    assert (again.exit_code, again.command) == (0, None)
    assert {method for method, _, _ in lab.dialer.sent[sent:]} == {"GET"}
    assert (lab.served, loads_in_log(lab.server)) == (before, loads)


async def test_new_weights_at_the_same_path(lab: Lab) -> None:
    """With prefix caching on, a prompt of 400 tokens that was answered before is answered as by a fresh load."""
    name, path = lab.name("sql"), lab.adapter(seed=1)
    declaration = lab.declare(lab.spec(path))
    await lab.apply(declaration)
    old_path, old = lab.served[name], lab.server.answer(name, LONG)
    fresh = lab.adapter("fresh", seed=2)
    lab.adapter(seed=2)
    sent = len(lab.dialer.sent)
    applied = await lab.apply(declaration)
    (outcome,) = applied.outcomes
    assert (applied.exit_code, outcome.action.kind, outcome.action.way) == (0, ActionKind.UPDATE, Way.SWAP)
    assert [change.field for change in outcome.action.changes] == ["content"]
    assert lab.changes(sent) == [("unload", name), ("load", name)]
    assert outcome.gap_ms is not None
    assert outcome.gap_ms < 2000
    print(f"{name} was away for {outcome.gap_ms:.1f} ms")
    assert lab.served[name] not in (old_path, str(path))
    new = lab.server.answer(name, LONG)
    lab.server.load(lab.name("fresh"), fresh)
    assert new == lab.server.answer(lab.name("fresh"), LONG)
    assert new != old
    assert (await lab.plan(declaration)).empty


async def test_another_path(lab: Lab) -> None:
    """Updated in place, and the history has the gap."""
    name = lab.name("sql")
    await lab.apply(lab.declare(lab.spec(lab.adapter("one", seed=1))))
    before = lab.server.answer(name)
    applied = await lab.apply(lab.declare(lab.spec(lab.adapter("two", seed=2))))
    (outcome,) = applied.outcomes
    assert [change.field for change in outcome.action.changes] == ["lora_path", "content"]
    recorded = lab.recorded()
    assert recorded is not None
    assert (recorded.operation, recorded.version, recorded.served_path) == (Operation.UPDATED, 2, lab.served[name])
    assert lab.server.answer(name) != before
    assert applied.command is not None
    (action,) = lab.store.actions(applied.command)
    assert action.gap_ms == outcome.gap_ms is not None


async def test_another_name_is_a_replacement(lab: Lab) -> None:
    """The new name answers before the old one goes."""
    spec = lab.spec(lab.adapter())
    await lab.apply(lab.declare(spec))
    renamed = replace(spec, lora_name=lab.name("query"))
    planned = await lab.plan(lab.declare(renamed))
    (action,) = planned.actions
    assert (action.kind, action.way) == (ActionKind.REPLACE, Way.LOAD_THEN_UNLOAD)
    assert action.changes == (Change("lora_name", spec.lora_name, renamed.lora_name, immutable=True),)
    sent = len(lab.dialer.sent)
    applied = await lab.apply(lab.declare(renamed))
    assert applied.exit_code == 0
    assert lab.changes(sent) == [("load", renamed.lora_name), ("unload", spec.lora_name)]
    assert list(lab.served) == [renamed.lora_name]


async def test_unloaded_by_somebody(lab: Lab) -> None:
    """A tombstone under `report`; loaded again by an apply, without a flag."""
    declaration = lab.declare(lab.spec(lab.adapter()))
    await lab.apply(declaration)
    lab.server.unload(lab.name("sql"))
    agent = await lab.agent_pass()
    assert agent.state.repaired == 0
    lost = lab.recorded()
    assert lost is not None
    assert (lost.operation, lost.cause, lost.stack) == (Operation.LOST, "unloaded", lab.tag)
    assert [(one.name, one.cause) for one in lab.told(events.DRIFT)] == [(lab.name("sql"), "unloaded")]
    assert lab.served == {}
    applied = await lab.apply(declaration)
    assert (applied.exit_code, [one.action.kind for one in applied.outcomes]) == (0, [ActionKind.CREATE])
    assert list(lab.served) == [lab.name("sql")]


async def test_unloaded_by_somebody_and_restored(lab: Lab) -> None:
    await lab.apply(lab.declare(lab.spec(lab.adapter()), on_drift="restore"))
    lab.server.unload(lab.name("sql"))
    agent = await lab.agent_pass()
    assert agent.state.repaired == 1
    assert [one.name for one in lab.told(events.RESTORED)] == [lab.name("sql")]
    assert list(lab.served) == [lab.name("sql")]


async def test_loaded_by_somebody(lab: Lab) -> None:
    """Seen, told, and never touched, whatever happens to the stack."""
    await lab.apply(lab.declare(lab.spec(lab.adapter()), on_drift="restore"))
    guest, path = lab.name("guest"), lab.adapter("guest", seed=2)
    lab.server.load(guest, path)
    await lab.agent_pass()
    assert {"name": guest, "root": str(path), "parent": lab.base} in lab.remembered().served
    assert (guest, "appeared") in [(one.name, one.cause) for one in lab.told(events.CHANGED)]
    assert lab.recorded("guest") is None
    await lab.apply(lab.declare(on_drift="restore"))
    assert lab.served == {guest: str(path)}
    await lab.destroy()
    assert lab.served == {guest: str(path)}


async def test_overwritten_by_somebody(lab: Lab) -> None:
    """Another path under our name is a conflict; `--force` overwrites it."""
    name, declaration = lab.name("sql"), lab.declare(lab.spec(lab.adapter()))
    await lab.apply(declaration)
    ours, theirs = lab.served[name], lab.adapter("theirs", seed=3)
    lab.server.unload(name)
    lab.server.load(name, theirs)
    with pytest.raises(ConflictError) as caught:
        await lab.apply(declaration)
    assert caught.value.exit_code == 33
    assert lab.served == {name: str(theirs)}
    applied = await lab.apply(declaration, force=True)
    assert applied.exit_code == 0
    assert lab.served == {name: ours}


async def test_adopt(lab: Lab) -> None:
    """A name that somebody loaded from another path is rejected, and taken over where that is allowed."""
    name, theirs = lab.name("sql"), lab.adapter("theirs", seed=3)
    lab.server.load(name, theirs)
    declaration = lab.declare(lab.spec(lab.adapter()))
    with pytest.raises(ConflictError):
        await lab.apply(declaration)
    assert lab.served == {name: str(theirs)}
    assert lab.changes() == []
    applied = await lab.apply(declaration, adopt=True)
    assert applied.exit_code == 0
    recorded = lab.recorded()
    assert recorded is not None
    assert lab.served == {name: recorded.served_path} != {name: str(theirs)}


async def test_adopt_as_it_is(lab: Lab) -> None:
    """Served as declared already: nothing is sent, and it is the stack's from then on."""
    name, path = lab.name("sql"), lab.adapter()
    lab.server.load(name, path)
    applied = await lab.apply(lab.declare(lab.spec(path)))
    assert (applied.exit_code, [one.action.kind for one in applied.outcomes]) == (0, [ActionKind.ADOPT])
    assert lab.changes() == []
    await lab.destroy()
    assert lab.served == {}


async def test_destroy(lab: Lab) -> None:
    await lab.apply(lab.declare(lab.spec(lab.adapter()), lab.spec(lab.adapter("poet", seed=2), "poet")))
    assert len(lab.served) == 2
    applied = await lab.destroy()
    assert applied.exit_code == 0
    assert lab.served == {}
    assert lab.store.stack(lab.tag) is None
    assert lab.store.resources() == []


# --- what is refused


async def test_wrong_base(lab: Lab) -> None:
    applied = await lab.apply(lab.declare(lab.spec(lab.adapter(), base_model_name="acme/another")))
    assert applied.exit_code == 30
    assert failure_of(applied).code is FailureCode.INVALID_REQUEST
    assert "acme/another" in failure_of(applied).message
    assert lab.changes() == []
    assert lab.served == {}


async def test_another_name_of_the_base(lab: Lab) -> None:
    """Two `--served-model-name`: adapters hang on the first, and may be declared for either."""
    if ALIAS not in lab.server.entries():
        pytest.skip(f"{lab.server.url} has no base model with a second name, {ALIAS}")
    declaration = lab.declare(lab.spec(lab.adapter(), base_model_name=ALIAS), target=lab.target(base_model=ALIAS))
    assert (await lab.apply(declaration)).exit_code == 0
    entries = lab.server.entries()
    assert (entries[ALIAS]["parent"], entries[ALIAS]["root"]) == (None, entries[lab.base]["root"])
    assert entries[lab.name("sql")]["parent"] == lab.base != ALIAS
    assert (await lab.plan(declaration)).empty


async def test_name_of_the_base(lab: Lab) -> None:
    applied = await lab.apply(lab.declare(lab.spec(lab.adapter(), lora_name=lab.base)))
    assert applied.exit_code == 30
    assert failure_of(applied).code is FailureCode.INVALID_REQUEST
    assert "name of the base model" in failure_of(applied).message
    assert lab.changes() == []


async def test_bad_path(lab: Lab) -> None:
    """The server's 404: permanent, and asked once."""
    applied = await lab.apply(lab.declare(lab.spec(lab.files / "nowhere")))
    assert applied.exit_code == 30
    assert (failure_of(applied).code, failure_of(applied).recoverable) == (FailureCode.INVALID_REQUEST, False)
    assert lab.changes() == [("load", lab.name("sql"))]
    assert lab.served == {}


async def test_rank_above_what_is_declared(lab: Lab) -> None:
    spec = lab.spec(lab.adapter(rank=64))
    applied = await lab.apply(lab.declare(spec, target=lab.target(max_lora_rank=16)))
    assert applied.exit_code == 30
    assert "rank 64" in failure_of(applied).message
    assert lab.changes() == []
    assert lab.served == {}


async def test_rank_above_what_the_server_takes(lab: Lab) -> None:
    """Its 500 would be one for ever: permanent, and asked once."""
    applied = await lab.apply(lab.declare(lab.spec(lab.adapter(rank=64))))
    assert applied.exit_code == 30
    assert (failure_of(applied).code, failure_of(applied).recoverable) == (FailureCode.INVALID_REQUEST, False)
    assert "max_lora_rank" in failure_of(applied).message
    assert lab.changes() == [("load", lab.name("sql"))]
    assert lab.served == {}


@pytest.mark.parametrize("damage", ["wrong shape", "truncated"])
async def test_never_loaded(lab: Lab, damage: str) -> None:
    """vLLM answers 200 to shapes that do not fit, and serves garbage."""
    path = lab.adapter(width=32 if damage == "wrong shape" else 64)
    if damage == "truncated":
        weights = path / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    elif not Path(lab.server.entries()[lab.base]["root"]).is_dir():
        pytest.skip("the base model's files cannot be read here, so its shapes are not known")
    applied = await lab.apply(lab.declare(lab.spec(path)))
    assert applied.exit_code == 30
    assert failure_of(applied).code is FailureCode.INVALID_REQUEST
    assert lab.changes() == []
    assert lab.served == {}


async def test_broken_content_never_replaces_what_is_served(lab: Lab) -> None:
    """New weights at the same path that are invalid: the old ones stay, without a gap."""
    path = lab.adapter()
    declaration = lab.declare(lab.spec(path))
    await lab.apply(declaration)
    before, sent = lab.served, len(lab.dialer.sent)
    lab.adapter(width=32)
    weights = path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert (await lab.apply(declaration)).exit_code == 30
    assert lab.changes(sent) == []
    assert lab.served == before


async def test_the_probe_notes_an_adapter_that_does_nothing(lab: Lab) -> None:
    applied = await lab.apply(lab.declare(lab.spec(lab.adapter(strength=0.0), probe=True)))
    (outcome,) = applied.outcomes
    assert applied.exit_code == 0
    assert outcome.notes == ("answers like the base model: same token, same probability",)


# --- what Garrison relies on


async def test_what_a_server_tells_of_itself(lab: Lab) -> None:
    look = Look(target=lab.target(), base=lab.base, probe=True)
    seen = await Observer(lab.dialer).look(look)
    assert seen.known
    found = seen.capabilities
    assert found is not None
    assert (found.healthy, found.lora_routes) == (True, True)
    assert found.version is not None
    assert found.started_at is not None
    assert found.started_at < time.time()
    assert found.prefix_caching is not None
    assert lab.server.call("GET", LOAD).status_code == 405


async def test_api_key(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the key, or with another, nothing is known and nothing is believed gone."""
    if not lab.server.key:
        pytest.skip(f"{lab.server.url} takes requests without a key")
    spec = lab.spec(lab.adapter())
    with_key = lab.declare(spec)
    assert (await lab.apply(with_key)).exit_code == 0
    monkeypatch.setenv("FLEET_SUITE_WRONG_KEY", "not-the-key")
    for secret in (None, Secret("env", "FLEET_SUITE_WRONG_KEY")):
        applied = await lab.apply(lab.declare(spec, target=lab.target(api_key=secret)))
        assert applied.exit_code == 31
        assert "401" in applied.plan.unknown["edge"]
        assert lab.remembered().cause is None  # a refused key says nothing about the target
        assert [one.kind for one in applied.plan.actions] == [ActionKind.KEEP]
    recorded = lab.recorded()
    assert recorded is not None
    assert recorded.operation is Operation.CREATED
    await lab.apply(with_key)
    assert lab.remembered().state == "reachable"
    assert lab.changes() == [("load", lab.name("sql"))]
    written = b"".join(path.read_bytes() for path in lab.home.glob("garrison.db*"))
    assert KEY_VARIABLE.encode() in written
    assert lab.server.key.encode() not in written
    assert b"not-the-key" not in written


# --- the same by the command line


def test_the_life_of_an_adapter_by_commands(lab: Lab) -> None:
    name, path = lab.name("sql"), lab.adapter()
    manifest = write_manifest(lab, path)
    assert command(lab, 32, "plan", manifest, "--exit-code")["plan"]["counts"] == {"create": 1}
    assert command(lab, 0, "apply", manifest, "--yes")["outcomes"][0]["state"] == "done"
    assert list(lab.served) == [name]
    assert command(lab, 0, "plan", manifest, "--exit-code")["plan"]["counts"] == {"keep": 1}
    lab.server.unload(name)
    assert [one["kind"] for one in command(lab, 32, "drift", "--exit-code")["drift"]] == ["missing"]
    command(lab, 0, "apply", manifest, "--yes")
    lab.adapter(width=32)
    (refused,) = command(lab, 30, "apply", manifest, "--yes")["outcomes"]
    assert (refused["state"], refused["failure"]["code"]) == ("failed", "InvalidRequest")
    (adapter,) = command(lab, 0, "status")["stacks"][0]["adapters"]
    assert list(lab.served) == [adapter["name"]]
    assert command(lab, 0, "destroy", manifest, "--yes")["destroyed"]
    assert lab.served == {}


def test_what_somebody_loaded_is_discovered_adopted_and_extracted(lab: Lab) -> None:
    guest, path = lab.name("guest"), lab.adapter("guest", seed=2)
    lab.server.load(guest, path)
    manifest = write_manifest(lab, lab.adapter())
    command(lab, 0, "apply", manifest, "--yes")
    before = lab.served
    (seen,) = command(lab, 0, "discover")["targets"]
    assert lab.base in [one["name"] for one in seen["models"]]
    assert {"name": guest, "path": str(path), "base": lab.base} in seen["unmanaged"]
    assert lab.name("sql") not in [one["name"] for one in seen["unmanaged"]]
    command(lab, 0, "adopt", f"{TARGET}/{guest}", "--stack", lab.tag, "--yes")
    extracted = lab.home / "extracted.yaml"
    done = lab.garrison("extract", "--stack", lab.tag, "--output", str(extracted))
    assert done.returncode == 0, done.stderr
    assert command(lab, 0, "plan", str(extracted), "--exit-code")["plan"]["counts"] == {"keep": 2}
    assert lab.served == before
    assert command(lab, 0, "destroy", "--stack", lab.tag, "--yes")["destroyed"]
    assert lab.served == {}


def write_manifest(lab: Lab, path: Path) -> str:
    """One adapter, `sql`, on the server."""
    target = {"base_url": lab.server.url + "/v1", "base_model": lab.base, "adapter_store": str(lab.files / "store")}
    key = {"api_key": {"env": KEY_VARIABLE}} if lab.server.key else {}
    adapters = {lab.name("sql"): {"target": TARGET, "lora_path": str(path)}}
    manifest = {"stack": lab.tag, "targets": {TARGET: target | key}, "adapters": adapters}
    written = lab.home / "garrison.json"
    written.write_text(json.dumps(manifest))
    return str(written)


def command(lab: Lab, code: int, *arguments: str) -> Any:
    """`garrison … --json`, which must end with `code` and tell no secret: what it printed."""
    done = lab.garrison(*arguments, "--json")
    assert done.returncode == code, done.stdout + done.stderr
    assert not lab.server.key or lab.server.key not in done.stdout + done.stderr
    return json.loads(done.stdout)


# --- a server that stops and starts


async def test_a_restart_is_repaired_within_one_interval(own: StartedServer, lab: Lab) -> None:
    """A running agent finds the server gone, then new, and what it served is there again."""
    interval, name = 5.0, lab.name("sql")
    await lab.apply(lab.declare(lab.spec(lab.adapter()), on_drift="restore", interval=interval))
    before, answer = lab.served, own.answer(name)
    agent = Agent(lab.fleet, lab.view)
    await agent.startup()
    running = asyncio.create_task(agent.main_loop())
    try:
        await asyncio.to_thread(own.stop)
        own.start()
        healthy = await asyncio.to_thread(own.wait)
        while lab.served != before:
            assert time.monotonic() < healthy + 4 * interval, lab.view.notes
            await asyncio.sleep(0.05)
        seconds = time.monotonic() - healthy
    finally:
        agent.request_stop()
        await running
        await agent.shutdown()
    print(f"whole {seconds:.2f} s after it was healthy again, with an interval of {interval:g} s")
    assert seconds < interval + 1.0, "one interval, and the load itself"
    assert own.answer(name) == answer
    kinds = [one.kind for one in lab.told(events.UNREACHABLE, events.RECOVERED, events.RESTARTED, events.RESTORED)]
    assert kinds == [events.UNREACHABLE, events.RECOVERED, events.RESTARTED, events.RESTORED]
    assert [one.cause for one in lab.told(events.DRIFT)] == ["restarted"]


async def test_without_the_routes_nothing_is_known(own: StartedServer, lab: Lab) -> None:
    """A list without the adapter, from a server that could not load it: unknown, with the cause, and no tombstone."""
    declaration = lab.declare(lab.spec(lab.adapter()), on_drift="restore")
    await lab.apply(declaration)
    recorded = lab.recorded()
    await asyncio.to_thread(own.stop)
    own.start(routes=False)
    await asyncio.to_thread(own.wait)
    assert own.call("GET", LOAD).status_code == 404
    seen = await Observer(lab.dialer).look(Look(target=lab.target(), base=lab.base, probe=True))
    assert (seen.known, seen.lora_routes, seen.presence(lab.name("sql"))) == (True, False, Presence.UNKNOWN)
    agent = await lab.agent_pass()
    assert agent.state.out_of_reach == 1
    assert [one.cause for one in lab.told(events.UNREACHABLE)] == ["no-lora-routes"]
    found = await find_drifts(lab.fleet, lab.view, stack=None)
    assert (found.found, found.checked) == ((), 0)
    assert found.unknown[TARGET].startswith("no-lora-routes: ")
    (target,) = (await status_of(lab.fleet, lab.view, stack=None, cached=False)).targets
    assert (target.cause, target.well) == ("no-lora-routes", False)
    sent = len(lab.dialer.sent)
    applied = await lab.apply(declaration)
    (outcome,) = applied.outcomes
    assert applied.exit_code == 30
    assert outcome.state is ActionState.FAILED
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.NO_LORA_ROUTES
    assert lab.changes(sent) == []
    assert lab.recorded() == recorded
    assert lab.told(events.DRIFT) == []


def loads_in_log(server: Server) -> int | None:
    """How often anybody asked the server to load, by its own log; None where that cannot be read."""
    return server.said().count(f"POST {LOAD}") if isinstance(server, StartedServer) else None
