"""The facts about vLLM, asserted of the simulator and of a real vLLM alike: status codes and the shapes of bodies.

One server of each kind lives through the module; the rows that kill it come last. The real one is taken from the data
directory that `GARRISON_TEST_ENGINES` names.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY = "conformance"
START_SECONDS = 240.0
FLAGS = [
    *("--served-model-name", "base", "--host", "127.0.0.1", "--max-model-len", "512", "--block-size", "128"),
    *("--enable-lora", "--max-lora-rank", "16", "--dtype", "bfloat16", "--enforce-eager"),
]
SHORT = "able acid acre"

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[Any]:
        lines = [line[6:] for line in self.text.split("\n") if line.startswith("data: ")]
        assert lines.pop() == "[DONE]"
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Server:
    """A running server and the directory its adapters are written to."""

    kind: str
    port: int
    files: Path
    process: "subprocess.Popen[bytes]"

    def call(self, method: str, path: str, body: Any = None, *, key: str | None = KEY) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(method, path, body if isinstance(body, str) else body and json.dumps(body), headers)
            reply = connection.getresponse()
            return Reply(
                reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode()
            )
        finally:
            connection.close()

    def load(self, name: str, path: Path, **more: Any) -> Reply:
        return self.call("POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)} | more)

    def unload(self, name: str) -> Reply:
        return self.call("POST", "/v1/unload_lora_adapter", {"lora_name": name})

    def answer(self, model: str, prompt: str | list[int]) -> str:
        body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0}
        reply = self.call("POST", "/v1/completions", body)
        assert reply.status == 200, reply.text
        return str(reply.json["choices"][0]["text"])

    def adapter(self, name: str, **options: Any) -> Path:
        import tiny_model as maker

        return Path(maker.make_adapter(self.files / name, **options))


@pytest.fixture(scope="module", params=["sim", pytest.param("vllm", marks=pytest.mark.engine("vllm"))])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[Server]:
    kind = request.param
    files = tmp_path_factory.mktemp(f"conformance-{kind}")
    command = [sys.executable, "-m", "garrison.sim"] if kind == "sim" else [str(real_vllm()), "serve"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environ = os.environ | {
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_SERVER_DEV_MODE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_API_KEY": KEY,
        "HF_HUB_OFFLINE": "1",
    }
    log = (files / "log").open("wb")
    argv = [*command, str(tiny_model), *FLAGS, "--port", str(port)]
    process = subprocess.Popen(argv, stdout=log, stderr=log, env=environ, start_new_session=True)
    found = Server(kind, port, files, process)
    try:
        wait_for(lambda: process.poll() is not None or healthy(found), START_SECONDS)
        assert process.poll() is None, (files / "log").read_text(errors="replace")[-4000:]
        yield found
    finally:
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        log.close()


def real_vllm() -> Path:
    from garrison.engines.environments import in_use

    directory = os.environ.get("GARRISON_TEST_ENGINES")
    found = in_use(Path(directory), "vllm") if directory else None
    if found is None:
        reason = f"vllm is not installed under GARRISON_TEST_ENGINES ({directory or 'unset'})"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return found.executable


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def healthy(server: Server) -> bool:
    try:
        return server.call("GET", "/health").status == 200
    except OSError:
        return False


def refusing(server: Server) -> bool:
    try:
        server.call("GET", "/health")
    except ConnectionRefusedError:
        return True
    except OSError:
        return False
    return False


def keys(value: Any) -> Any:
    """The shape of a JSON value: names and kinds, without the values."""
    if isinstance(value, dict):
        return {name: keys(item) for name, item in value.items()}
    if isinstance(value, list):
        return [keys(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


LOAD, UNLOAD, TEXT, CHAT = "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/v1/completions", "/v1/chat/completions"
ROWS: list[tuple[str, str, str, Any, int, str]] = [
    ("unknown route", "GET", "/nope", None, 404, '{"detail":"Not Found"}'),
    ("wrong method", "DELETE", "/v1/models", None, 405, '{"detail":"Method Not Allowed"}'),
    ("head of health", "HEAD", "/health", None, 405, ""),
    ("health", "GET", "/health", None, 200, ""),
    ("ping", "POST", "/ping", None, 200, ""),
    ("load count", "GET", "/load", None, 200, '{"server_load":0}'),
    ("trailing slash", "GET", "/v1/models/", None, 307, ""),
    ("awake", "GET", "/is_sleeping", None, 200, '{"is_sleeping":false}'),
    ("load nothing", "POST", LOAD, {"lora_name": "a"}, 400, '"param":"body.lora_path","code":400'),
    ("load empty name", "POST", LOAD, {"lora_name": "", "lora_path": "x"}, 400, "'lora_name' and 'lora_path' must"),
    ("load not JSON", "POST", LOAD, "{bad", 400, '"param":"body.1","code":400'),
    ("load a list", "POST", LOAD, "[]", 400, "valid dictionary or object"),
    ("load missing path", "POST", LOAD, {"lora_name": "m", "lora_path": "/none"}, 404, '"type":"NotFoundError"'),
    ("load base name", "POST", LOAD, {"lora_name": "base", "lora_path": "/x"}, 400, "conflicts with a served base"),
    ("unload unknown", "POST", UNLOAD, {"lora_name": "z"}, 404, "'z' cannot be found.\",\"type\":\"NotFoundError\""),
    ("twin unload unknown", "DELETE", "/adapters/z", None, 404, "'z' cannot be found."),
    ("unknown model", "POST", TEXT, {"model": "x", "prompt": "a"}, 404, "Valid aliases: base.\",\"type\":\"NotFound"),
    ("no prompt", "POST", TEXT, {"model": "base"}, 400, "Either prompt or prompt_embeds must be provided"),
    ("no messages", "POST", CHAT, {"model": "base"}, 400, '"param":"body.messages","code":400'),
    ("empty messages", "POST", CHAT, {"messages": []}, 400, "Cannot apply chat template to an empty conversation."),
    ("max_tokens 0", "POST", TEXT, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens must be at least 1, got 0."),
    ("max_tokens text", "POST", TEXT, {"prompt": "a", "max_tokens": "x"}, 400, "unable to parse string as an integer"),
    ("max_tokens big", "POST", TEXT, {"prompt": "a", "max_tokens": 999}, 400, "greater than max_model_len=512."),
    ("prompt too long", "POST", TEXT, {"prompt": [3] * 600}, 400, "600 input tokens, which exceeds this limit"),
]  # fmt: skip


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_row(server: Server, row: tuple[str, str, str, Any, int, str]) -> None:
    _, method, path, body, status, text = row
    reply = server.call(method, path, body)
    assert reply.status == status
    assert text in reply.text


@pytest.mark.parametrize("path", ["/v1/models", "/v1/nope"])
def test_guarded_without_the_key(server: Server, path: str) -> None:
    reply = server.call("GET", path, key=None)
    assert (reply.status, reply.json) == (401, {"error": "Unauthorized"})
    assert server.call("GET", path, key="wrong").status == 401


@pytest.mark.parametrize("path", ["/health", "/metrics", "/version"])
def test_open_without_the_key(server: Server, path: str) -> None:
    assert server.call("GET", path, key=None).status == 200


def test_the_twin_needs_no_key(server: Server) -> None:
    path = server.adapter("twin")
    reply = server.call("POST", "/adapters", {"name": "twin", "src": str(path)}, key=None)
    assert (reply.status, reply.text) == (200, "Adapter twin registered")
    assert server.call("DELETE", "/adapters/twin", key=None).status == 200


def test_metrics(server: Server) -> None:
    page = server.call("GET", "/metrics").text
    samples = {line.split("{")[0].split()[0] for line in page.splitlines() if line and not line.startswith("#")}
    assert {"process_start_time_seconds", "vllm:num_requests_running", "vllm:num_requests_waiting"} <= samples
    assert {"vllm:kv_cache_usage_perc", "vllm:engine_sleep_state"} <= samples
    assert 'vllm:engine_sleep_state{engine="0",model_name="base",sleep_state="awake"} 1.0' in page


def test_life_of_an_adapter(server: Server) -> None:
    path = server.adapter("sql", seed=1)
    loaded = server.load("sql", path, base_model_name="nope")
    assert (loaded.status, loaded.text) == (200, "Success: LoRA adapter 'sql' added successfully.")
    assert "content-type" not in loaded.headers
    again = server.load("sql", path)
    assert again.status == 400
    assert "has already been loaded" in again.json["error"]["message"]
    assert server.load("sql", path, load_inplace=True).status == 200
    base, adapter = server.call("GET", "/v1/models").json["data"]
    assert (base["id"], base["parent"], base["max_model_len"]) == ("base", None, 512)
    assert (adapter["id"], adapter["parent"], adapter["root"]) == ("sql", "base", str(path))
    assert adapter["max_model_len"] is None
    assert keys(base["permission"][0])["is_blocking"] == "bool"
    assert server.answer("sql", SHORT) != server.answer("base", SHORT)
    gone = server.unload("sql")
    assert (gone.status, gone.text) == (200, "Success: LoRA adapter 'sql' removed successfully.")


@pytest.mark.parametrize(
    ("damage", "words"),
    [("truncated", "file not fully covered"), ("rank", "LoRA rank 64 is greater than max_lora_rank 16."),
     ("no weights", "doesn't contain tensors"), ("bad config", "Expecting property name")],
)  # fmt: skip
def test_adapters_that_cannot_be_loaded(server: Server, damage: str, words: str) -> None:
    path = server.adapter(f"damaged {damage}", rank=64 if damage == "rank" else 8)
    weights = path / "adapter_model.safetensors"
    match damage:
        case "truncated":
            weights.write_bytes(weights.read_bytes()[:-100])
        case "no weights":
            weights.unlink()
        case "bad config":
            (path / "adapter_config.json").write_text("{bad")
    reply = server.load("damaged", path)
    assert (reply.status, reply.json["error"]["type"]) == (500, "InternalServerError")
    assert reply.json["error"]["message"].startswith("Call to add_lora method failed: ")
    assert words in reply.json["error"]["message"]


def test_two_adapters_with_one_slot(server: Server) -> None:
    for seed in (1, 2):
        server.load(f"slot{seed}", server.adapter(f"slot{seed}", seed=seed))
    assert server.answer("slot1", SHORT) != server.answer("slot2", SHORT)
    for seed in (1, 2):
        server.unload(f"slot{seed}")


@pytest.mark.parametrize("way", ["in place", "unload and load"])
def test_new_weights_at_the_same_path(server: Server, way: str) -> None:
    prompt = [100 + at * 7 % 300 for at in range(400)]
    name = way.replace(" ", "-")
    path = server.adapter(name, seed=1)
    server.load(name, path)
    old = server.answer(name, prompt)
    server.adapter(name, seed=2)
    if way == "in place":
        server.load(name, path, load_inplace=True)
    else:
        server.unload(name)
        server.load(name, path)
    stale = server.answer(name, prompt)
    stale_short = server.answer(name, SHORT)
    server.unload(name)
    fresh = f"{name}-fresh"
    server.load(fresh, server.adapter(fresh, seed=2))
    new = server.answer(fresh, prompt)
    assert stale_short == server.answer(fresh, SHORT)
    server.unload(fresh)
    assert stale not in (old, new)
    assert old != new


@pytest.mark.parametrize("path", [TEXT, CHAT])
def test_shape_of_an_answer(server: Server, path: str) -> None:
    asked: dict[str, Any] = {"model": "base", "max_tokens": 3, "temperature": 0}
    asked |= {"messages": [{"role": "user", "content": SHORT}]} if path == CHAT else {"prompt": SHORT}
    body = server.call("POST", path, asked).json
    shape = keys(body)
    common = {"index": "number", "logprobs": "NoneType", "finish_reason": "str", "stop_reason": "NoneType"}
    assert common.items() <= shape["choices"][0].items()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == body["usage"]["prompt_tokens"] + 3
    top = {"id", "object", "created", "model", "choices", "service_tier", "system_fingerprint", "usage"}
    assert top | {"kv_transfer_params", "ec_transfer_params", "metrics"} <= set(body)
    if path == CHAT:
        inner = {"role", "content", "refusal", "annotations", "audio", "function_call", "reasoning"}
        assert set(body["choices"][0]["message"]) == inner


@pytest.mark.parametrize("path", [TEXT, CHAT])
def test_shape_of_a_stream(server: Server, path: str) -> None:
    asked: dict[str, Any] = {"model": "base", "max_tokens": 3, "temperature": 0, "stream": True}
    asked |= {"messages": [{"role": "user", "content": SHORT}]} if path == CHAT else {"prompt": SHORT}
    reply = server.call("POST", path, asked | {"stream_options": {"include_usage": True}})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    *events, usage = reply.events
    assert usage["choices"] == []
    assert set(usage["usage"]) == {"prompt_tokens", "total_tokens", "completion_tokens"}
    if path == CHAT:
        first = events.pop(0)
        assert set(first) == {"id", "object", "created", "model", "choices", "prompt_token_ids", "prompt_text"}
        assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    reasons = [event["choices"][0]["finish_reason"] for event in events]
    assert reasons == [None, None, "length"]
    plain = {"index", "text", "logprobs", "finish_reason", "stop_reason", "prompt_token_ids", "token_ids"}
    chat = {"index", "delta", "logprobs", "finish_reason", "token_ids"}
    assert set(events[0]["choices"][0]) == (chat if path == CHAT else plain)
    assert set(events[-1]["choices"][0]) == (chat | {"stop_reason"} if path == CHAT else plain)


def test_zz_in_place_and_the_directory_gone_kills(server: Server) -> None:
    path = server.adapter("doomed")
    server.load("doomed", path, load_inplace=True)
    server.answer("doomed", SHORT)
    shutil.rmtree(path)
    reply = server.call("POST", TEXT, {"model": "doomed", "prompt": SHORT, "max_tokens": 2})
    assert (reply.status, reply.json["error"]["type"]) == (500, "InternalServerError")
    assert reply.json["error"]["message"].startswith("EngineCore encountered an issue.")
    wait_for(lambda: refusing(server), 60)
    assert server.process.wait(60) == 0
