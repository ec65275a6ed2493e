"""The knobs: the decision about a request, and each fault as a client meets it."""

import asyncio
import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.sim.faults import DISGUISES, Faults, Rule, decide, faults_from_json, faults_to_json
from garrison.testing.adapter_reader import MemoryAdapters

from .client import Client, call, load, request_bytes, until
from .conftest import Sleeps, Start

PLAIN = {"model": "acme/tiny", "prompt": "hi there", "max_tokens": 3}

# --- the decision


def verdicts(faults: Faults, requests: list[tuple[str, str]]) -> list[str]:
    used: tuple[int, ...] = ()
    found = []
    for method, path in requests:
        verdict, used = decide(faults, used, method, path, 0.5)
        found.append(verdict.action)
    return found


LIST = ("GET", "/v1/models")
LOAD = ("POST", "/v1/load_lora_adapter")
TABLE: list[tuple[str, Faults, list[tuple[str, str]], list[str]]] = [
    ("nothing", Faults(), [LIST, LOAD], ["pass", "pass"]),
    ("once", Faults(script=(Rule(path="/v1/models", action="reset", times=1),)), [LIST, LIST], ["reset", "pass"]),
    (
        "for ever",
        Faults(script=(Rule(path="/v1/models", action="hang"),)),
        [LIST, LIST, LOAD],
        ["hang", "hang", "pass"],
    ),
    ("after two", Faults(script=(Rule(path="/v1/models", action="cut", skip=2),)), [LIST] * 3, ["pass", "pass", "cut"]),
    ("prefix", Faults(script=(Rule(path="/v1/*", action="reset"),)), [LIST, ("GET", "/health")], ["reset", "pass"]),
    ("method", Faults(script=(Rule(path="/*", method="POST", action="reset"),)), [LIST, LOAD], ["pass", "reset"]),
    (
        "one after the other",
        Faults(script=(Rule(path="/*", action="reset", times=1), Rule(path="/*", action="hang", times=1))),
        [LIST] * 3,
        ["reset", "hang", "pass"],
    ),
    ("rate below", Faults(failure_rate=0.5), [LIST], ["pass"]),
    ("rate above", Faults(failure_rate=0.6), [LIST, ("GET", "/health")], ["status", "pass"]),
    ("hang", Faults(hang=True), [LIST, ("GET", "/health")], ["hang", "pass"]),
]


@pytest.mark.parametrize(("faults", "requests", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_decide(faults: Faults, requests: list[tuple[str, str]], expected: list[str]) -> None:
    assert verdicts(faults, requests) == expected


seconds = st.floats(0, 1e6)
rules = st.builds(
    Rule,
    path=st.text(),
    method=st.none() | st.sampled_from(["GET", "POST"]),
    action=st.sampled_from(["pass", "hang", "reset", "cut"]),
    status=st.none() | st.integers(200, 599),
    headers=st.dictionaries(st.text(), st.text()).map(lambda found: tuple(found.items())),
    delay=seconds,
    skip=st.integers(0, 9),
    times=st.none() | st.integers(0, 9),
)
knobs = st.builds(
    Faults,
    ttft=seconds,
    tokens_per_second=st.none() | st.floats(0.001, 1e6),
    failure_rate=st.floats(0, 1),
    hang=st.booleans(),
    cut_after_tokens=st.none() | st.integers(0, 99),
    load_delay=seconds,
    disguise=st.sampled_from(DISGUISES),
    script=st.lists(rules, max_size=3).map(tuple),
)


@settings(deadline=None)
@given(knobs)
def test_json_round_trip(faults: Faults) -> None:
    assert faults_from_json(json.loads(json.dumps(faults_to_json(faults)))) == faults


names = st.sampled_from([*faults_to_json(Faults()), "path", "x"])
leaves = st.none() | st.booleans() | st.integers() | st.text(max_size=3)
documents = st.recursive(leaves, lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(names, leaf), max_leaves=6)


@settings(deadline=None)
@given(documents)
def test_any_json_is_taken_or_refused(body: Any) -> None:
    with contextlib.suppress(InvalidError):
        assert isinstance(faults_from_json(body), Faults)


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"tttf": 1},
        {"ttft": -1},
        {"ttft": True},
        {"ttft": "1"},
        {"failure_rate": 1.1},
        {"tokens_per_second": 0},
        {"disguise": "moustache"},
        {"script": {}},
        {"script": [{}]},
        {"script": [{"path": "/", "action": "explode"}]},
        {"script": [{"path": "/", "action": "status"}]},
        {"script": [{"path": "/", "status": 42}]},
        {"script": [{"path": "/", "timse": 1}]},
    ],
    ids=json.dumps,
)
def test_refused(body: Any) -> None:
    with pytest.raises(InvalidError):
        faults_from_json(body)


def test_the_nearest_knob_is_named() -> None:
    with pytest.raises(InvalidError) as caught:
        faults_from_json({"tokens_per_secnd": 1})
    assert caught.value.hint == "Did you mean tokens_per_second?"


# --- as a client meets them


async def test_scripted_status(start: Start) -> None:
    script = [{"path": "/v1/models", "status": 429, "times": 1, "headers": {"retry-after": "3"}, "type": "Throttled"}]
    sim = await start(faults=faults_from_json({"script": script}))
    reply = await call(sim, "GET", "/v1/models")
    assert (reply.status, reply.headers["retry-after"], reply.json["error"]["type"]) == (429, "3", "Throttled")
    assert (await call(sim, "GET", "/v1/models")).status == 200
    assert sim.counters.injected == {"status": 1}


async def test_delay(start: Start, sleeps: Sleeps) -> None:
    sim = await start(sleep=sleeps, faults=Faults(script=(Rule(path="/v1/models", delay=7),)))
    assert (await call(sim, "GET", "/v1/models")).status == 200
    assert sleeps.seconds == [7]


async def test_failure_rate_is_reproducible(start: Start) -> None:
    async def run() -> list[int]:
        sim = await start(seed=3, faults=Faults(failure_rate=0.5))
        return [(await call(sim, "GET", "/v1/models")).status for _ in range(24)]

    first = await run()
    assert set(first) == {200, 500}
    assert await run() == first


async def test_hang_before_headers(start: Start) -> None:
    sim = await start(faults=Faults(hang=True))
    client = await Client.open(sim)
    await client.send(request_bytes("GET", "/v1/models"))
    await until(lambda: sim.counters.injected["hang"] == 1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await client.reader.read(1)
    assert (await call(sim, "GET", "/health")).status == 200
    await client.close()
    await until(lambda: sim.open_connections == 0)


async def test_reset(start: Start) -> None:
    sim = await start(faults=Faults(script=(Rule(path="/v1/models", action="reset"),)))
    with pytest.raises(ConnectionResetError):
        await call(sim, "GET", "/v1/models")


async def test_cut_of_a_whole_body(start: Start) -> None:
    sim = await start(faults=Faults(script=(Rule(path="/v1/models", action="cut"),)))
    client = await Client.open(sim)
    await client.send(request_bytes("GET", "/v1/models"))
    status, headers = await client.head()
    assert status == 200
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        await client.reader.readexactly(int(headers["content-length"]))
    await client.close()
    sim.faults = Faults()
    assert (await call(sim, "GET", "/v1/models")).json["data"]  # the next one is whole


async def test_death_in_the_middle_of_a_stream(start: Start) -> None:
    sim = await start(faults=Faults(cut_after_tokens=2, tokens_per_second=500))
    client = await Client.open(sim)
    await client.send(request_bytes("POST", "/v1/completions", PLAIN | {"stream": True}))
    assert (await client.head())[0] == 200
    seen: list[bytes] = []
    with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
        seen.extend([piece async for piece in client.chunks()])
    await client.close()
    assert sim.counters.finished["abort"] == 1


async def test_slow_load(start: Start, sleeps: Sleeps) -> None:
    adapters = MemoryAdapters()
    adapters.put("/a", "d1")
    sim = await start(adapters=adapters, sleep=sleeps, faults=Faults(load_delay=9))
    assert (await load(sim, "sql", "/a")).status == 200
    assert sleeps.seconds == [9]


DISGUISED: dict[str, tuple[int, str, bytes]] = {
    "captive-portal": (200, "text/html; charset=utf-8", b"<!DOCTYPE html>"),
    "redirect": (302, "", b""),
    "empty-object": (200, "application/json", b"{}"),
    "empty-list": (200, "application/json", b'{"object":"list","data":[]}'),
    "truncated-json": (200, "application/json", b'{"object":"list","data":[{"id":'),
    "html-error": (502, "text/html; charset=utf-8", b"<html>"),
    "wrong-base": (200, "application/json", b'{"object":"list","data":[{"id":"somebody/else"'),
}


@pytest.mark.parametrize("disguise", [name for name in DISGUISES if name != "none"])
async def test_disguises(start: Start, disguise: str) -> None:
    sim = await start(faults=Faults(disguise=disguise, redirect_to="http://elsewhere"))
    status, kind, body = DISGUISED[disguise]
    reply = await call(sim, "GET", "/v1/models")
    assert (reply.status, reply.headers.get("content-type", "")) == (status, kind)
    assert reply.body.startswith(body)
    everything = disguise in ("captive-portal", "redirect")
    assert (await call(sim, "GET", "/health")).headers.get("content-length") != "0" or disguise != "captive-portal"
    assert ((await call(sim, "GET", "/version")).body != b'{"version":"0.32.0"}') == everything
    if disguise == "redirect":
        assert reply.headers["location"] == "http://elsewhere/v1/models"
    assert (await call(sim, "GET", "/_sim")).status == 200


async def test_wrong_base_generates_under_its_own_name_only(start: Start) -> None:
    sim = await start(faults=Faults(disguise="wrong-base"))
    assert (await call(sim, "POST", "/v1/completions", PLAIN)).status == 404
    assert (await call(sim, "POST", "/v1/completions", PLAIN | {"model": "somebody/else"})).status == 200
