"""The truth table of absence: an adapter that was there is absent for one answer only, the well-formed list that still
holds the expected base. Every other answer, and none, is unknown, with its cause."""

from typing import Any

import pytest
from served import Certify, StartRaw, StartSim

from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.values.observation import Cause, Presence, Served, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Secret, Tls
from garrison.sim.faults import Faults, Rule

pytestmark = pytest.mark.system

BEFORE = {
    "acme/tiny": Served("acme/tiny", "acme/tiny"),
    "sql": Served("sql", "/models/sql", "acme/tiny"),
}


async def look(base_url: str, **options: Any) -> Sighting:
    """At a target that was last seen to serve `sql`."""
    spec = TargetSpec(name="edge", base_url=base_url, base_model="acme/tiny", **({"timeout": 0.3} | options))
    sightings = await Observer(HttpDialer()).observe([Look(target=spec, base="acme/tiny", served=BEFORE)])
    assert list(sightings) == ["edge"]
    return sightings["edge"]


def models(action: str = "status", **fields: Any) -> Faults:
    return Faults(script=(Rule(path="/v1/models", action=action, **fields),))


ANSWERS: dict[str, tuple[Faults, Cause, str]] = {
    "404": (models(status=404), Cause.NOT_VLLM, "404"),
    "400": (models(status=400), Cause.NOT_VLLM, "400"),
    "200-html": (Faults(disguise="captive-portal"), Cause.NOT_VLLM, "web page"),
    "redirect": (Faults(disguise="redirect"), Cause.NOT_VLLM, "http://portal.invalid"),
    "empty-object": (Faults(disguise="empty-object"), Cause.MALFORMED, "not a model list"),
    "empty-list": (Faults(disguise="empty-list"), Cause.MALFORMED, "empty"),
    "truncated-json": (Faults(disguise="truncated-json"), Cause.MALFORMED, "truncated, or not JSON"),
    "502-html": (Faults(disguise="html-error"), Cause.SERVER_ERROR, "502"),
    "foreign-models": (Faults(disguise="wrong-base"), Cause.WRONG_BASE, "not 'acme/tiny'"),
    "401": (models(status=401), Cause.UNAUTHORIZED, "401"),
    "403": (models(status=403), Cause.FORBIDDEN, "403"),
    "429": (models(status=429, headers=(("retry-after", "7"),)), Cause.SERVER_ERROR, "429"),
    "500": (models(status=500), Cause.SERVER_ERROR, "500"),
    "503": (models(status=503), Cause.SERVER_ERROR, "503"),
    "failing": (Faults(failure_rate=1.0), Cause.SERVER_ERROR, "500"),
    "reset": (models("reset"), Cause.RESET, "connection"),
    "cut-body": (models("cut"), Cause.RESET, "connection"),
    "hang": (Faults(hang=True), Cause.TIMEOUT, "no answer within 0.3 s"),
}


@pytest.mark.parametrize(("faults", "cause", "detail"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_of_a_simulator_in_disguise(start_sim: StartSim, faults: Faults, cause: Cause, detail: str) -> None:
    sim = await start_sim()  # the adapter is indeed not there
    sim.faults = faults
    sighting = await look(sim.url)
    assert (sighting.presence("sql"), sighting.cause) == (Presence.UNKNOWN, cause)
    assert detail in sighting.detail
    assert not sighting.served
    sim.faults = Faults()
    assert (await look(sim.url)).presence("sql") is Presence.ABSENT


def http(body: bytes, kind: bytes = b"application/json", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n%b" % (status, kind, len(body), body)


LLAMA_CPP = b'{"object":"list","data":[{"id":"acme/tiny","object":"model","owned_by":"llamacpp","meta":{}}]}'
SGLANG = b'{"object":"list","data":[{"id":"acme/tiny","owned_by":"sglang","root":"acme/tiny","parent":null}]}'
AS_ADAPTER = b'{"object":"list","data":[{"id":"acme/tiny","owned_by":"vllm","root":"/a","parent":"other"}]}'

BYTES: dict[str, tuple[Any, Cause]] = {
    "not-http": (b"SSH-2.0-OpenSSH_9.2p1\r\n", Cause.MALFORMED),
    "closed-at-once": (None, Cause.RESET),
    "half-a-head": (b"HTTP/1.1 200 OK\r\ncontent-le", Cause.RESET),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", Cause.MALFORMED),
    "no-body": (http(b""), Cause.MALFORMED),
    "null": (http(b"null"), Cause.MALFORMED),
    "an-error-at-200": (http(b'{"error":{"message":"no","code":500}}'), Cause.MALFORMED),
    "upgrade": (b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Cause.MALFORMED),
    "llama-cpp": (http(LLAMA_CPP), Cause.NOT_VLLM),
    "sglang": (http(SGLANG), Cause.NOT_VLLM),
    "the-base-as-an-adapter": (http(AS_ADAPTER), Cause.WRONG_BASE),
    "html-without-a-type": (http(b"<html></html>", b"text/plain"), Cause.NOT_VLLM),
    "shorter-than-said": (http(b"{}").replace(b"length: 2", b"length: 9"), Cause.RESET),
    "endless": (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n", Cause.MALFORMED),
    "silent": (..., Cause.TIMEOUT),
}


@pytest.mark.parametrize(("answer", "cause"), BYTES.values(), ids=BYTES.keys())
async def test_of_something_else_on_the_port(start_raw: StartRaw, answer: Any, cause: Cause) -> None:
    server = await start_raw(answer)
    sighting = await look(server.url)
    assert (sighting.presence("sql"), sighting.cause) == (Presence.UNKNOWN, cause)
    assert sighting.detail


async def test_of_nothing_on_the_port(refusing_port: int) -> None:
    sighting = await look(f"http://127.0.0.1:{refusing_port}")
    assert (sighting.presence("sql"), sighting.cause) == (Presence.UNKNOWN, Cause.REFUSED)


async def test_of_a_name_that_does_not_resolve() -> None:
    sighting = await look("http://nowhere.invalid:8000", timeout=10.0)
    assert (sighting.presence("sql"), sighting.cause) == (Presence.UNKNOWN, Cause.DNS)


async def test_of_an_address_that_swallows_everything(black_hole: int) -> None:
    sighting = await look(f"http://127.0.0.1:{black_hole}")
    assert (sighting.presence("sql"), sighting.cause) == (Presence.UNKNOWN, Cause.TIMEOUT)
    assert "no connection" in sighting.detail


TlsRow = tuple[dict[str, Any], str, Cause | None]
TLS: dict[str, TlsRow] = {
    "trusted": ({"ca": "good"}, "good", None),
    "insecure": ({"insecure": True}, "good", None),
    "self-signed": ({}, "good", Cause.TLS),
    "other-ca": ({"ca": "other"}, "good", Cause.TLS),
    "other-name": ({"ca": "elsewhere"}, "elsewhere", Cause.TLS),
    "no-such-ca": ({"ca": "/nonexistent/ca.pem"}, "good", Cause.LOCAL),
}


@pytest.mark.parametrize(("trust", "served", "cause"), TLS.values(), ids=TLS.keys())
async def test_of_tls(
    start_sim: StartSim, certify: Certify, trust: dict[str, Any], served: str, cause: Cause | None
) -> None:
    made = {name: certify(name) for name in ("good", "other")} | {"elsewhere": certify("elsewhere", "DNS:else.test")}
    sim = await start_sim(ssl_certfile=made[served].cert, ssl_keyfile=made[served].key)
    if "ca" in trust:
        trust = {"ca": made[trust["ca"]].cert if trust["ca"] in made else trust["ca"]}
    sighting = await look(sim.url, tls=Tls(**trust), timeout=5.0)
    assert sighting.cause is cause
    assert sighting.presence("sql") is (Presence.UNKNOWN if cause else Presence.ABSENT)


async def test_of_plain_http_where_tls_is_declared_and_the_other_way_round(
    start_sim: StartSim, certify: Certify
) -> None:
    plain = await start_sim()
    sighting = await look(plain.url.replace("http:", "https:"))
    assert sighting.cause is Cause.TLS
    assert "declare it as http" in sighting.detail
    good = certify("good")
    secure = await start_sim(ssl_certfile=good.cert, ssl_keyfile=good.key)
    sighting = await look(secure.url.replace("https:", "http:"))
    assert sighting.cause in (Cause.TLS, Cause.RESET)
    assert sighting.presence("sql") is Presence.UNKNOWN


async def test_of_a_wrong_key_and_the_right_one(start_sim: StartSim, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = await start_sim(api_keys=("right",))
    monkeypatch.setenv("EDGE_KEY", "wrong")
    assert (await look(sim.url, api_key=Secret("env", "EDGE_KEY"))).cause is Cause.UNAUTHORIZED
    monkeypatch.setenv("EDGE_KEY", "right")
    assert (await look(sim.url, api_key=Secret("env", "EDGE_KEY"))).presence("sql") is Presence.ABSENT
    monkeypatch.delenv("EDGE_KEY")
    sighting = await look(sim.url, api_key=Secret("env", "EDGE_KEY"))
    assert (sighting.cause, sighting.detail) == (Cause.LOCAL, "api_key: the variable EDGE_KEY is not set")


async def test_of_a_server_that_restarts(start_sim: StartSim) -> None:
    """Its adapters are gone, and that is a fact: the one row besides the plain list that proves absence."""
    sim = await start_sim()
    sim.state.engine.load("sql", "/models/sql", in_place=False)
    assert (await look(sim.url)).presence("sql") is Presence.PRESENT
    await sim.stop()
    assert (await look(sim.url)).presence("sql") is Presence.UNKNOWN
    sim.restart()
    await sim.start()
    sighting = await look(sim.url)
    assert sighting.presence("sql") is Presence.ABSENT
    assert sighting.capabilities is not None
    assert sighting.capabilities.started_at == sim.state.engine.started_at


async def test_of_a_server_that_came_back_without_its_lora_routes(start_sim: StartSim) -> None:
    """The list is believed, and nothing can be loaded there: what is not in it was not lost, it cannot be served."""
    sim = await start_sim(runtime_lora=False)
    sighting = await look(sim.url)
    assert (sighting.known, sighting.lora_routes) == (True, False)
    assert sighting.presence("sql") is Presence.UNKNOWN
