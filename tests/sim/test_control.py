"""The control endpoint."""

import asyncio

import pytest

from garrison.sim.api.control import answer
from garrison.sim.faults import Faults
from garrison.sim.http.messages import Request, Response
from garrison.testing.adapter_reader import MemoryAdapters

from .client import Client, call, load, refused, request_bytes, until
from .conftest import Start


def shelf() -> MemoryAdapters:
    adapters = MemoryAdapters()
    adapters.put("/a", "d1")
    return adapters


async def test_state_and_counters(start: Start) -> None:
    sim = await start(adapters=shelf(), api_keys=("secret",))
    await load(sim, "sql", "/a")
    for path in ("/v1/models", "/health", "/nope"):
        await call(sim, "GET", path)
    reply = await call(sim, "GET", "/_sim")
    body = reply.json
    assert body["engine"]["adapters"] == []
    assert body["config"]["api_key"] is True
    assert b"secret" not in reply.body
    assert body["counters"]["requests"] == {"/v1/load_lora_adapter": 1, "/v1/models": 1, "/health": 1, "other": 1}


async def test_adapters_are_shown(start: Start) -> None:
    sim = await start(adapters=shelf())
    await load(sim, "sql", "/a")
    shown = (await call(sim, "GET", "/_sim")).json["engine"]["adapters"]
    assert shown == [{"name": "sql", "path": "/a", "number": 1, "in_place": False, "parent": None}]


async def test_knobs_are_merged_and_reset(start: Start) -> None:
    sim = await start(faults=Faults(ttft=0.25))
    reply = await call(sim, "POST", "/_sim/faults", {"disguise": "empty-list"})
    assert (reply.json["ttft"], reply.json["disguise"]) == (0.25, "empty-list")
    assert (await call(sim, "GET", "/v1/models")).json["data"] == []
    assert (await call(sim, "DELETE", "/_sim/faults")).json["disguise"] == "none"
    assert sim.faults == Faults(ttft=0.25)


async def test_a_new_script_starts_anew(start: Start) -> None:
    sim = await start()
    script = {"script": [{"path": "/v1/models", "status": 500, "times": 1}]}
    statuses = []
    for _ in range(2):
        await call(sim, "POST", "/_sim/faults", script)
        statuses += [(await call(sim, "GET", "/v1/models")).status for _ in range(2)]
    assert statuses == [500, 200, 500, 200]


@pytest.mark.parametrize("body", [b"{bad", b"[]", b'{"nope": 1}'])
async def test_bad_knobs(start: Start, body: bytes) -> None:
    reply = await call(await start(), "POST", "/_sim/faults", body)
    assert reply.status == 400
    assert reply.json["hint"]


async def test_unknown_route(start: Start) -> None:
    assert (await call(await start(), "GET", "/_sim/nope")).status == 404


async def test_restart_loses_the_registry(start: Start) -> None:
    sim = await start(adapters=shelf())
    await load(sim, "sql", "/a")
    held = await Client.open(sim)
    await held.call("GET", "/health")
    before = sim.state.engine.started_at
    assert (await call(sim, "POST", "/_sim/restart")).status == 200
    await until(lambda: sim.counters.restarts == 1)
    assert await held.reader.read() == b""
    await held.close()
    assert len((await call(sim, "GET", "/v1/models")).json["data"]) == 1
    assert sim.state.engine.started_at > before


async def test_restart_keeps_the_modules_of_the_command_line(start: Start) -> None:
    from garrison.sim.config import LoraModule

    adapters = shelf()
    sim = await start(adapters=adapters, lora_modules=(LoraModule("sql", "/a"),))
    sim.restart()
    assert [card["id"] for card in (await call(sim, "GET", "/v1/models")).json["data"]] == ["acme/tiny", "sql"]
    adapters.files.clear()
    with pytest.raises(ValueError, match="No adapter found"):
        sim.restart()
    await call(sim, "POST", "/_sim/restart")
    await refused(sim)


async def test_restart_with_a_downtime(start: Start) -> None:
    gate = asyncio.Event()

    async def held(_seconds: float) -> None:
        await gate.wait()

    sim = await start(sleep=held)
    await call(sim, "POST", "/_sim/restart", {"downtime": 30})
    await refused(sim)
    gate.set()

    async def answers() -> bool:
        try:
            return (await call(sim, "GET", "/health")).status == 200
        except OSError:
            return False

    async with asyncio.timeout(10):
        while not await answers():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("body", [b"[]", b'{"downtime": -1}', b'{"downtime": "x"}'])
async def test_bad_downtime(start: Start, body: bytes) -> None:
    assert (await call(await start(), "POST", "/_sim/restart", body)).status == 400


async def test_restart_resets_what_runs(start: Start) -> None:
    sim = await start(faults=Faults(hang=True))
    client = await Client.open(sim)
    await client.send(request_bytes("GET", "/v1/models"))
    await until(lambda: sim.counters.injected["hang"] == 1)
    sim.restart()
    assert await client.reader.read() == b""
    await client.close()


async def test_kill(start: Start) -> None:
    sim = await start()
    assert (await call(sim, "POST", "/_sim/kill")).json == {"dead": True}
    await refused(sim)
    await until(sim.exited.is_set)


@pytest.mark.parametrize(
    ("peer", "status"),
    [
        ("127.0.0.1", 200),
        ("127.9.9.9", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("10.0.0.2", 403),
        ("::ffff:10.0.0.2", 403),
        ("fe80::1%eth0", 403),
        ("", 403),
    ],
)
async def test_loopback_only(start: Start, peer: str, status: int) -> None:
    sim = await start()
    response = answer(sim.state, Request("GET", "/_sim", "", {}, b"", peer))
    assert isinstance(response, Response)
    assert response.status == status


async def test_can_be_turned_off(start: Start) -> None:
    assert (await call(await start(control=False), "GET", "/_sim")).status == 403
