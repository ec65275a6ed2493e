"""An agent says that it lives: in the store, for `status`, and on a port of its own."""

import asyncio
import json
from datetime import timedelta

import pytest
from fleet_world import World, adapter
from prometheus_client.parser import text_string_to_metric_families

from garrison.base.errors import GarrisonError, InvalidError, PortForeignError, UnreachableError
from garrison.fleet.agent.heartbeat import BEAT_SECONDS, Heartbeat
from garrison.fleet.agent.loop import Agent
from garrison.fleet.agent.metrics import AgentMetrics, health
from garrison.fleet.agent.port import AgentPort
from garrison.fleet.agent.state import AgentState
from garrison.fleet.report.agents import AgentStatus, agent_statuses
from garrison.store.records import AgentRecord, Holder


@pytest.fixture
def world():
    made = World()
    yield made
    made.fleet.close()


def heartbeat(world, state=None):
    return Heartbeat(world.fleet, state or AgentState(), None)


async def test_it_beats_now_and_then_and_is_off_the_record_at_its_end(world):
    state = AgentState()
    beating = heartbeat(world, state)
    await beating.beat()
    (first,) = world.store.agents()
    assert (first.holder.purpose, first.looked_at, first.alive_at) == ("agent", None, world.clock.now())
    world.clock.advance(1)
    await beating.beat()
    assert world.store.agents() == [first]  # not due
    state.looked_at = world.clock.now()
    await beating.beat()
    assert world.store.agents()[0].looked_at == state.looked_at  # the first look is news
    world.clock.advance(BEAT_SECONDS)
    await beating.beat()
    assert world.store.agents()[0].alive_at == world.clock.now()
    await beating.close()
    assert world.store.agents() == []


async def test_a_new_one_forgets_those_that_are_long_gone(world):
    now = world.clock.now()
    gone = Holder(host="elsewhere/boot", pid=1, started=1, user="ada", purpose="agent")
    for token, days in (("old", 8), ("silent", 1), ("later", -400)):
        at = now - timedelta(days=days)
        world.store.beat(AgentRecord(token=token, holder=gone, since=at, alive_at=at))
    beating = heartbeat(world)
    await beating.beat()
    assert [one.token for one in world.store.agents()][:1] == ["silent"]
    assert len(world.store.agents()) == 2


async def test_the_loop_beats_and_its_end_takes_it_off(world):
    await world.apply(world.declaration(adapter()))
    agent = Agent(world.fleet, world.view, stacks=["lab"])
    await agent.startup()
    loop = asyncio.create_task(agent.main_loop())
    async with asyncio.timeout(20):
        while not world.store.agents():
            await asyncio.sleep(0.01)
    (one,) = world.store.agents()
    assert one.stacks == ("lab",)
    agent.request_stop()
    await loop
    await agent.shutdown(1)
    assert world.store.agents() == []
    assert agent.state.stepped_at is not None


async def test_a_single_pass_is_no_agent_that_lives(world):
    await world.apply(world.declaration(adapter()))
    await world.agent_pass()
    assert world.store.agents() == []


async def test_a_stack_that_does_not_exist_is_refused(world):
    await world.apply(world.declaration(adapter()))
    for stacks in (["nope"], ["lab", "nope"]):
        with pytest.raises(InvalidError, match="no stack 'nope' on record") as caught:
            await Agent(world.fleet, world.view, stacks=stacks).startup()
        assert "On record: lab." in caught.value.hint
        assert "`garrison apply`" in caught.value.hint


async def test_a_store_that_fails_at_the_end_holds_nobody(world, monkeypatch):
    beating = heartbeat(world)
    await beating.beat()

    def fail(tokens):
        raise UnreachableError("gone")

    monkeypatch.setattr(world.store, "drop_agents", fail)
    await beating.close()
    monkeypatch.setattr(world.store, "beat", fail)
    world.clock.advance(BEAT_SECONDS)
    with pytest.raises(GarrisonError):
        await beating.beat()


@pytest.mark.parametrize(
    ("seconds", "dead", "state"),
    [
        (0, False, "working"),
        (-599, False, "working"),
        (-601, False, "stale"),
        (59, False, "working"),
        (61, False, "stale"),
        (5, True, "dead"),
    ],
)
def test_what_is_stale_and_what_is_dead(world, seconds, dead, state):
    now = world.clock.now()
    holder = Holder(host="node/boot", pid=8, started=1, user="ada", purpose="agent")
    record = AgentRecord(token="t", holder=holder, since=now, alive_at=now, looked_at=now, stacks=("lab",))
    (one,) = agent_statuses([record], now + timedelta(seconds=seconds), {"t"} if dead else set())
    assert (one.state, one.holder, one.pid) == (state, "ada@node", 8)
    assert AgentStatus.from_json(one.to_json()) == one
    assert agent_statuses([record], now, (), stack="lab")
    assert not agent_statuses([record], now, (), stack="other")


def test_health_is_of_the_loop_and_not_of_the_process(world):
    state, since = AgentState(), world.clock.now()
    assert health(state, 0.0, since)[0] is False
    state.stepped_at = 100.0
    assert health(state, 160.0, since)[0] is True
    well, body = health(state, 161.5, since)
    assert not well
    assert body["reason"] == "nothing was done for 62 s: the store may not answer"


def test_the_metrics_are_those_of_the_counters(world):
    state = AgentState(stacks=1, targets=7, out_of_reach=2, looks=40, repaired=3, failed=1, looked_at=world.clock.now())
    text = AgentMetrics(state, world.clock.now()).text().decode()
    found = {one.name: one.value for family in text_string_to_metric_families(text) for one in family.samples}
    expected = {
        "targets": 7, "targets_unknown": 2, "looks_total": 40, "actions_done_total": 3, "actions_failed_total": 1,
        "last_look_seconds": world.clock.now().timestamp(),
    }  # fmt: skip
    assert {name: found[f"garrison_agent_{name}"] for name in expected} == pytest.approx(expected)


async def ask(port, text):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text.encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else None), body


@pytest.mark.system
async def test_the_port_answers_health_and_metrics_and_nothing_else():
    well = True
    port = AgentPort(lambda: (well, {"ok": well}), lambda: b"garrison_agent_targets 1.0\n")
    await port.listen(0)
    number = port.number
    head = "HTTP/1.1\r\nHost: 127.0.0.1:1\r\n\r\n"
    try:
        assert await ask(number, f"GET /metrics {head}") == (200, b"garrison_agent_targets 1.0\n")
        assert await ask(number, f"HEAD /metrics {head}") == (200, b"")
        status, body = await ask(number, f"GET /health?x=1 {head}")
        assert (status, json.loads(body)) == (200, {"ok": True})
        well = False
        assert (await ask(number, f"GET /health {head}"))[0] == 503
        assert (await ask(number, f"POST /health {head}"))[0] == 405
        assert (await ask(number, f"GET / {head}"))[0] == 404
        assert (await ask(number, "GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n"))[0] == 403
        assert (await ask(number, "GET /health HTTP/1.1\r\n\r\n"))[0] == 400
        assert (await ask(number, "nonsense\r\n\r\n"))[0] == 400
        assert (await ask(number, "GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n"))[0] == 400
        assert (await ask(number, f"GET /health {head}".replace("\r\n", "\n")))[0] == 400
        assert (await ask(number, "GET /" + "a" * 20_000))[0] == 431
        other = AgentPort(lambda: (True, {}), lambda: b"")
        with pytest.raises(PortForeignError, match="is taken"):
            await other.listen(number)
    finally:
        await port.close()
