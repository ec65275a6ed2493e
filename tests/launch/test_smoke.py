import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from canned import StartCanned
from served import Certify, StartRaw

from garrison.base.errors import InvalidError
from garrison.base.redaction import know_secret
from garrison.launch.smoke import SmokeReport, smoke
from garrison.sim.config import LoraModule, SimConfig
from garrison.sim.faults import Faults
from garrison.sim.simulator import Simulator

STEPS = ["health", "models", "completion", "chat", "streaming chat"]


@pytest.fixture
async def sim() -> AsyncIterator[Callable[..., Any]]:
    running: list[Simulator] = []

    async def start(**options: Any) -> str:
        simulator = Simulator(SimConfig(**({"port": 0, "model": "acme/tiny"} | options)))
        await simulator.start()
        running.append(simulator)
        return f"http://127.0.0.1:{simulator.port}"

    yield start
    for simulator in running:
        await simulator.stop()


def outcomes(report: SmokeReport) -> dict[str, str]:
    return {step.name: step.outcome for step in report.steps}


def detail(report: SmokeReport, name: str) -> str:
    return next(step.detail for step in report.steps if step.name == name)


@pytest.mark.system
class TestAgainstTheSimulator:
    async def test_all_well(self, sim: Any) -> None:
        seen: list[str] = []
        url = await sim()
        report = await smoke(url + "/v1", on_step=lambda step: seen.append(step.name))
        assert report.ok
        assert outcomes(report) == dict.fromkeys(STEPS, "ok") | {"adapters": "skipped"}
        assert seen == [*STEPS, "adapters"]
        assert (report.url, report.model) == (url, "acme/tiny")
        assert "chunks" in detail(report, "streaming chat")

    async def test_every_adapter_is_asked(self, sim: Any, adapter: Any) -> None:
        modules = tuple(LoraModule(name, str(adapter(name))) for name in ("sql", "law"))
        report = await smoke(await sim(enable_lora=True, max_loras=2, lora_modules=modules))
        assert report.ok
        assert [step.name for step in report.steps][len(STEPS) :] == ["adapter sql", "adapter law"]
        assert "adapters sql, law" in detail(report, "models")

    async def test_key_missing(self, sim: Any) -> None:
        report = await smoke(await sim(api_keys=("sk-1",)))
        assert not report.ok
        assert outcomes(report)["health"] == "ok"
        assert outcomes(report)["models"] == "failed"
        assert detail(report, "models") == "401: a key is required; name its variable with --key-env"

    async def test_key_refused(self, sim: Any) -> None:
        report = await smoke(await sim(api_keys=("sk-1",)), key="sk-2")
        assert detail(report, "models") == "401: the key was rejected"

    @pytest.mark.parametrize("key", ["sk-é", "„sk-1“", "sk-\udcff"], ids=["latin-1", "quotes", "not-utf-8"])
    async def test_a_key_that_is_not_ascii_is_refused_by_the_server(self, sim: Any, key: str) -> None:
        report = await smoke(await sim(api_keys=("sk-1",)), key=key)
        assert detail(report, "models") == "401: the key was rejected"

    async def test_key_given(self, sim: Any) -> None:
        report = await smoke(await sim(api_keys=("sk-1",)), key="sk-1")
        assert report.ok
        assert "sk-1" not in json.dumps(report.to_json())

    async def test_a_model_that_is_not_there(self, sim: Any) -> None:
        report = await smoke(await sim(), model="nope")
        assert not report.ok
        assert "'nope' is not listed; listed are: acme/tiny" in detail(report, "models")
        assert outcomes(report)["chat"] == "failed"

    async def test_a_stream_that_is_cut(self, sim: Any) -> None:
        report = await smoke(await sim(faults=Faults(cut_after_tokens=2)))
        assert outcomes(report)["streaming chat"] == "failed"

    async def test_nothing_listens(self, sim: Any) -> None:
        report = await smoke("http://127.0.0.1:9")
        assert not report.ok
        assert detail(report, "health") == "connection refused"
        assert detail(report, "completion") == "no model found"
        assert detail(report, "adapters") == "could not ask: there is no list of models"


MODELS = {"object": "list", "data": [{"id": "base", "parent": None}]}
COMPLETION = {"choices": [{"text": "Paris"}]}
CHAT = {"choices": [{"message": {"role": "assistant", "content": "Hello"}}]}


def events(*pieces: object) -> str:
    return "".join(f"data: {piece if isinstance(piece, str) else json.dumps(piece)}\n\n" for piece in pieces)


def chunk(text: str | None) -> dict[str, Any]:
    return {"choices": [{"delta": {"content": text}}]}


STREAM = events(chunk("Hel"), chunk("lo"), {"choices": [], "usage": {}}, "[DONE]")
WELL: Mapping[str, Any] = {
    "/health": "",
    "/v1/models": MODELS,
    "/v1/completions": COMPLETION,
    "/v1/chat/completions": CHAT,
    "stream": STREAM,
}


Ask = Callable[..., Any]


@pytest.fixture
def ask(canned: StartCanned) -> Ask:
    """`await ask({…}, model="m")`: the report on a server that is well, but for these answers."""

    async def call(answers: Mapping[str, Any], **options: Any) -> SmokeReport:
        def decide(path: str, body: Any) -> Any:
            streams = path == "/v1/chat/completions" and body.get("stream")
            return {**WELL, **answers}["stream" if streams else path]

        return await smoke((await canned(decide)).url, **{"timeout": 0.3} | options)

    return call


async def test_a_server_that_is_well(ask: Ask) -> None:
    report = await ask({})
    assert report.ok
    assert detail(report, "streaming chat").startswith("“Hello” in 2 chunks")


HTML = "<html><body>Please log in</body></html>"

# answers, the step that fails, what it says
BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "health 503": ({"/health": 503}, "health", "503"),
    "health timeout": ({"/health": ...}, "health", "no answer in time"),
    "health reset": ({"/health": None}, "health", "the connection was closed before the answer"),
    "health redirect": ({"/health": 307}, "health", "307"),
    "models: empty list": ({"/v1/models": {"data": []}}, "models", "the list of models is empty"),
    "models: captive portal": ({"/v1/models": HTML}, "models", "the answer is not JSON: '<html>"),
    "models: empty object": ({"/v1/models": {}}, "models", "not a list"),
    "models: list": ({"/v1/models": []}, "models", "not a JSON object"),
    "models: data is text": ({"/v1/models": {"data": "x"}}, "models", "not a list"),
    "models: entries are no objects": ({"/v1/models": {"data": [1, None]}}, "models", "names no model"),
    "models: entries without id": ({"/v1/models": {"data": [{}]}}, "models", "names no model"),
    "models: 401": ({"/v1/models": 401}, "models", "401: a key is required"),
    "models: 403": ({"/v1/models": 403}, "models", "403: a key is required"),
    "models: 404": ({"/v1/models": (404, {"detail": "Not Found"})}, "models", "404"),
    "completion: no choices": ({"/v1/completions": {"choices": []}}, "completion", "no choices"),
    "completion: choices are null": ({"/v1/completions": {"choices": None}}, "completion", "no choices"),
    "completion: choice is text": ({"/v1/completions": {"choices": ["x"]}}, "completion", "no choices"),
    "completion: empty text": ({"/v1/completions": {"choices": [{"text": ""}]}}, "completion", "has no text"),
    "completion: HTML": ({"/v1/completions": HTML}, "completion", "not JSON"),
    "completion: 500 nested": ({"/v1/completions": (500, {"error": {"message": "boom"}})}, "completion", "500: boom"),
    "completion: 500 flat": ({"/v1/completions": (500, {"message": "boom"})}, "completion", "500: boom"),
    "completion: 500 text": ({"/v1/completions": (500, {"error": "boom"})}, "completion", "500: boom"),
    "completion: 500 list": ({"/v1/completions": (500, ["boom"])}, "completion", "500: "),
    "chat: no message": ({"/v1/chat/completions": {"choices": [{}]}}, "chat", "no message"),
    "chat: content is null": (
        {"/v1/chat/completions": {"choices": [{"message": {"content": None}}]}}, "chat", "has no text",
    ),
    "stream: without [DONE]": ({"stream": events(chunk("x"))}, "streaming chat", "without [DONE]"),
    "stream: nothing": ({"stream": ""}, "streaming chat", "without [DONE]"),
    "stream: no text": ({"stream": events(chunk(None), "[DONE]")}, "streaming chat", "had no text"),
    "stream: error inside": (
        {"stream": events(chunk("x"), {"error": {"message": "it died"}}, "[DONE]")}, "streaming chat", "it died",
    ),
    "stream: not JSON": ({"stream": events("{oops", "[DONE]")}, "streaming chat", "not JSON"),
    "stream: list": ({"stream": events([1], "[DONE]")}, "streaming chat", "not a JSON object"),
    "stream: choice is null": ({"stream": events({"choices": [None]}, "[DONE]")}, "streaming chat", "a chunk"),
    "stream: choices is an object": ({"stream": events({"choices": {"a": 1}})}, "streaming chat", "a chunk"),
    "stream: delta is text": ({"stream": events({"choices": [{"delta": "x"}]})}, "streaming chat", "a chunk"),
    "stream: content is a list": ({"stream": events(chunk(["x"]), "[DONE]")}, "streaming chat", "a chunk"),
    "stream: 401": ({"stream": 401}, "streaming chat", "401: a key is required"),
    "stream: 500": ({"stream": (500, {"error": {"message": "boom"}})}, "streaming chat", "500: boom"),
    "stream: HTML": ({"stream": HTML}, "streaming chat", "without [DONE]"),
    "stream: cut": ({"stream": None}, "streaming chat", "closed before the answer"),
}  # fmt: skip


@pytest.mark.parametrize(("answers", "step", "said"), BROKEN.values(), ids=BROKEN)
async def test_broken(ask: Ask, answers: dict[str, Any], step: str, said: str) -> None:
    report = await ask(answers)
    assert not report.ok
    assert outcomes(report)[step] == "failed"
    assert said in detail(report, step)
    assert len(detail(report, step)) < 400
    assert len(report.steps) >= len(STEPS)


async def test_steps_that_need_a_model_are_left_out(ask: Ask) -> None:
    report = await ask({"/v1/models": HTML})
    assert outcomes(report) == {
        "health": "ok", "models": "failed", "completion": "skipped", "chat": "skipped", "streaming chat": "skipped",
        "adapters": "skipped",
    }  # fmt: skip


async def test_a_named_model_is_asked_although_the_list_is_broken(ask: Ask) -> None:
    report = await ask({"/v1/models": HTML}, model="base")
    assert outcomes(report)["chat"] == "ok"
    assert not report.ok


@pytest.mark.parametrize("broken", [HTML, "", 500, {"data": []}, {"data": [{}]}], ids=str)
async def test_what_is_known_to_be_served_is_asked_although_the_list_is_broken(ask: Ask, broken: Any) -> None:
    report = await ask({"/v1/models": broken}, served="default_model")
    assert outcomes(report) == dict.fromkeys(STEPS, "ok") | {"models": "failed", "adapters": "skipped"}
    assert report.model == "default_model"


@pytest.mark.parametrize(
    ("served", "asked"), [("second", "second"), ("gone", "base"), ("default_model", "default_model"), (None, "base")]
)
async def test_what_is_known_to_be_served_is_asked_before_the_first_listed(
    ask: Ask, served: str | None, asked: str
) -> None:
    report = await ask({"/v1/models": {"data": [{"id": "base"}, {"id": "second"}]}}, served=served)
    assert (report.ok, report.model) == (True, asked)


async def test_no_health_is_no_failure(ask: Ask) -> None:
    report = await ask({"/health": 404})
    assert outcomes(report)["health"] == "skipped"
    assert report.ok


async def test_the_default_model_of_mlx_is_not_looked_for_in_the_list(ask: Ask) -> None:
    report = await ask({"/v1/models": {"data": [{"id": "somebody/elses"}]}}, model="default_model")
    assert outcomes(report)["models"] == "skipped"
    assert report.ok
    assert report.model == "default_model"


async def test_json(ask: Ask) -> None:
    body = json.loads(json.dumps((await ask({"/health": 503})).to_json()))
    assert (body["ok"], body["url"].rpartition(":")[0], body["model"]) == (False, "http://127.0.0.1", "base")
    assert body["steps"][0].keys() == {"name", "outcome", "seconds", "detail"}


async def test_the_key_goes_to_no_other_origin(canned: StartCanned) -> None:
    elsewhere = await canned(lambda *_: 200)
    moved = b"HTTP/1.1 302 Found\r\nlocation: " + elsewhere.url.encode() + b"/\r\ncontent-length: 0\r\n\r\n"
    server = await canned(lambda *_: moved)
    report = await smoke(server.url, key="sk-1")
    assert detail(report, "health").startswith("302")
    assert all("authorization: Bearer sk-1" in head for head in server.heads)
    assert elsewhere.heads == []


async def test_a_key_wins_over_a_password_in_the_address(canned: StartCanned) -> None:
    server = await canned(lambda *_: 200)
    await smoke(server.url.replace("//", "//user:pass@"), key="sk-1")
    assert "authorization: Bearer sk-1" in server.heads[0]


async def test_plain_http_on_a_port_that_speaks_tls(start_raw: StartRaw, certify: Certify) -> None:
    ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    server = await start_raw(ok, tls=certify("node").server())
    report = await smoke(server.url)
    assert detail(report, "health") == f"the server speaks TLS; try https://127.0.0.1:{server.port}"


async def test_a_certificate_that_is_not_trusted(start_raw: StartRaw, certify: Certify) -> None:
    server = await start_raw(tls=certify("node").server())
    report = await smoke(server.url.replace("http", "https"))
    said = "the certificate is not trusted: self-signed certificate; --insecure accepts any certificate"
    assert detail(report, "health") == said


async def test_no_address() -> None:
    with pytest.raises(InvalidError):
        await smoke("ftp://x")


@pytest.mark.parametrize("pad", [45, 75, 190, 290])
@pytest.mark.parametrize("packed", [True, False])
async def test_no_half_of_the_key_is_shown(ask: Ask, pad: int, packed: bool) -> None:
    key = "Zq8-vR2-tY7-wN4-kL9-Zq8"
    said = "x" * pad + key
    know_secret(key)
    answer: Any = (400, {"error": {"message": said}}) if packed else said
    told = dict.fromkeys(("/v1/models", "/v1/completions", "/v1/chat/completions"), answer)
    report = await ask({**told, "stream": events({"error": said})}, key=key, model="m")
    assert "Zq8" not in json.dumps(report.to_json())
