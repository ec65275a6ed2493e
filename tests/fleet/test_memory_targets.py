"""The twin behaves as the simulator does, which behaves as vLLM does: one story, told to both."""

import json
from typing import Any

import pytest
from served import StartSim

from garrison.fleet.values.target import TargetSpec
from garrison.net.client import HttpDialer
from garrison.net.errors import TransportCause
from garrison.net.transport import Answer, Dialer, TransportError
from garrison.testing.targets import MemoryFault, MemoryTarget, MemoryTargets, json_answer

LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
SQL = {"lora_name": "sql", "lora_path": "/models/sql"}
PROMPT = {"prompt": "able acid acre", "max_tokens": 1, "seed": 0}

STORY: list[tuple[str, str, Any]] = [
    ("GET", "/health", None),
    ("GET", "/version", None),
    ("GET", LOAD, None),
    ("GET", UNLOAD, None),
    ("GET", "/nope", None),
    ("GET", "/v1/models", None),
    ("POST", LOAD, SQL),
    ("GET", "/v1/models", None),
    ("POST", LOAD, SQL),
    ("POST", LOAD, SQL | {"load_inplace": True}),
    ("POST", LOAD, {"lora_name": "none", "lora_path": "/none"}),
    ("POST", LOAD, {"lora_name": "acme/tiny", "lora_path": "/models/sql"}),
    ("POST", UNLOAD, {"lora_name": "none"}),
    ("POST", "/v1/completions", PROMPT | {"model": "sql"}),
    ("POST", "/v1/completions", PROMPT | {"model": "none"}),
    ("POST", UNLOAD, {"lora_name": "sql"}),
    ("GET", "/v1/models", None),
    ("POST", "/v1/completions", PROMPT | {"model": "sql"}),
]


async def tell(dialer: Dialer, target: TargetSpec) -> list[tuple[int, Any]]:
    async with dialer.open(target) as connection:
        answers = [await connection.request(method, path, json=body, timeout=5) for method, path, body in STORY]
    return [(answer.status, essence(answer)) for answer in answers]


def essence(answer: Answer) -> Any:
    """What Garrison looks at: list entries without what changes, the kind of an error, the text of a success."""
    try:
        body = json.loads(answer.body)
    except ValueError:
        return answer.body.decode()
    if "data" in body:
        return [{key: entry[key] for key in ("id", "owned_by", "root", "parent")} for entry in body["data"]]
    if "error" in body:
        return body["error"]["type"], body["error"]["code"], body["error"]["message"].partition(" failed:")[0][:60]
    return sorted(body) if "choices" not in body else "choices"


@pytest.mark.system
@pytest.mark.parametrize("runtime_lora", [True, False], ids=["with-routes", "without-routes"])
async def test_the_same_story(start_sim: StartSim, runtime_lora: bool) -> None:
    sim = await start_sim(runtime_lora=runtime_lora)
    memory = MemoryTargets({"edge": MemoryTarget(paths={"/models/sql"}, lora_routes=runtime_lora)})
    spec = TargetSpec(name="edge", base_url=sim.url)
    assert await tell(memory, spec) == await tell(HttpDialer(), spec)
    assert [request[1:] for request in memory.requests] == STORY


async def ask(targets: MemoryTargets, path: str = "/v1/models", method: str = "GET", body: Any = None) -> Answer:
    async with targets.open(TargetSpec(name="edge", base_url="http://unused")) as connection:
        return await connection.request(method, path, json=body, timeout=5)


def word(answer: Answer) -> str:
    return str(json.loads(answer.body)["choices"][0]["text"])


async def test_an_adapter_has_a_voice_of_its_own_and_an_idle_one_the_bases() -> None:
    targets = MemoryTargets({"edge": MemoryTarget(served={"a": "/a", "b": "/b", "idle": "/i"}, idle={"/i"})})
    said = {
        name: word(await ask(targets, "/v1/completions", "POST", PROMPT | {"model": name}))
        for name in ("acme/tiny", "a", "b", "idle")
    }
    assert len({said["acme/tiny"], said["a"], said["b"]}) == 3
    assert said["idle"] == said["acme/tiny"]


async def test_a_restart_leaves_the_adapters_of_the_command_line() -> None:
    targets = MemoryTargets({"edge": MemoryTarget(static={"kept": "/k"}, served={"sql": "/s"})})
    begun = targets["edge"].started_at
    targets["edge"].restart()
    assert targets["edge"].served == {"kept": "/k"}
    assert targets["edge"].started_at > begun


async def test_faults() -> None:
    targets = MemoryTargets({"edge": MemoryTarget()})
    lost = TransportError(TransportCause.RESET, "gone", sent=True)
    targets["edge"].faults = [
        MemoryFault("/v1/models", json_answer({}, 503), skip=1, times=1),
        MemoryFault("/v1/load*", lost, after=True, times=1, method="POST"),
    ]
    assert [(await ask(targets)).status for _ in range(3)] == [200, 503, 200]
    assert (await ask(targets, LOAD)).status == 405
    with pytest.raises(TransportError) as caught:
        await ask(targets, LOAD, "POST", SQL)
    assert (caught.value.cause, caught.value.sent) == (TransportCause.RESET, True)
    assert targets["edge"].served == {"sql": "/models/sql"}  # it acted, and nobody was told
    targets["edge"].down = TransportError(TransportCause.REFUSED, "connection refused")
    with pytest.raises(TransportError):
        await ask(targets)
    assert len(targets.asked("GET", "/v1/models", "edge")) == 4
    assert targets.asked("GET", "/v1/models", "other") == []


async def test_a_body_beyond_the_limit() -> None:
    targets = MemoryTargets({"edge": MemoryTarget()})
    with pytest.raises(TransportError) as caught:
        async with targets.open(TargetSpec(name="edge", base_url="http://unused")) as connection:
            await connection.request("GET", "/v1/models", timeout=5, limit=10)
    assert caught.value.cause is TransportCause.MALFORMED
