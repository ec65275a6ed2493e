"""A real server, and Ollama's own client library."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import ollama
import pytest
from server_lab import ServerLab, free_port, wait_for
from tests_environment import environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
ENGINE = Path(__file__).parent.parent / "support" / "scripted_engine.py"
MANAGER = "manager-key-that-is-long-enough-0123456789"
USER = [{"role": "user", "content": "hi"}]


class OllamaServer:
    """A server with Ollama's API, and the instances `qwen`, a simulator, and `scripted`."""

    def __init__(self, root: Path, model: Path, **settings: str) -> None:
        (root / "home").mkdir()
        self.port = free_port()
        self.lab = ServerLab(root, environment(root / "home"), gateway_ollama_port=str(self.port), **settings)
        self.model = model

    def start(self, **headers: str) -> None:
        self.lab.start()
        self.lab.http.headers.update(headers)
        self.lab.create("qwen", self.model, backend_options={"max_model_len": 2048})
        argv = [sys.executable, str(ENGINE), "{port}"]
        custom = {"backend_type": "custom", "custom": {"argv": argv}}
        self.lab.api("POST", "/instances/scripted", custom)

    def client(self, **headers: str) -> ollama.Client:
        return ollama.Client(f"http://127.0.0.1:{self.port}", headers=headers, trust_env=False, timeout=60)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[OllamaServer]:
    made = OllamaServer(tmp_path_factory.mktemp("ollama"), tiny_model)
    try:
        made.start()
        yield made
    finally:
        made.lab.close()


@pytest.fixture
def client(server: OllamaServer) -> Iterator[ollama.Client]:
    with server.client() as made:
        yield made


def scripted(client: ollama.Client, words: str, **more: Any) -> Any:
    return client.chat("scripted", messages=[{"role": "user", "content": words}], **more)


def test_chat(client: ollama.Client) -> None:
    answer = client.chat("qwen", messages=USER, options={"num_predict": 6, "temperature": 0})
    assert len(answer.message.content.split()) == 6
    assert (answer.model, answer.done, answer.done_reason) == ("qwen", True, "length")
    assert answer.eval_count == 6
    assert answer.prompt_eval_count
    assert answer.total_duration > 0
    again = client.chat("qwen:latest", messages=USER, options={"num_predict": 6, "temperature": 0})
    assert again.message.content == answer.message.content
    assert again.model == "qwen:latest"


def test_a_streamed_chat(client: ollama.Client) -> None:
    whole = client.chat("qwen", messages=USER, options={"num_predict": 6})
    *parts, last = client.chat("qwen", messages=USER, options={"num_predict": 6}, stream=True)
    assert len(parts) == 6
    assert "".join(one.message.content for one in parts) == whole.message.content
    assert not any(one.done for one in parts)
    assert (last.done, last.done_reason, last.message.content) == (True, "length", "")
    assert (last.eval_count, last.prompt_eval_count) == (6, whole.prompt_eval_count)
    assert last.total_duration >= last.load_duration + last.prompt_eval_duration


def test_generate(client: ollama.Client) -> None:
    answer = client.generate("qwen", "hi", system="be brief", options={"num_predict": 4, "stop": ["zzz"]})
    assert len(answer.response.split()) == 4
    *parts, last = client.generate("qwen", "hi", system="be brief", options={"num_predict": 4}, stream=True)
    assert "".join(one.response for one in parts) == answer.response
    assert last.done_reason == "length"


def test_a_raw_prompt_is_not_cut_after_sixteen_tokens(client: ollama.Client) -> None:
    assert client.generate("qwen", "once upon a time", raw=True).eval_count > 16


def test_embed(client: ollama.Client) -> None:
    found = client.embed("qwen", input=["one", "two"])
    assert len(found.embeddings) == 2
    assert all(abs(sum(value * value for value in one) - 1) < 1e-6 for one in found.embeddings)
    assert found.prompt_eval_count
    assert client.embed("qwen", input="one").embeddings == found.embeddings[:1]
    assert len(client.embed("qwen", input="one", dimensions=8).embeddings[0]) == 8
    assert client.embeddings("qwen", "one").embedding == pytest.approx(found.embeddings[0])


def test_list_show_and_ps(client: ollama.Client) -> None:
    client.generate("qwen")
    listed = {one.model: one for one in client.list().models}
    assert set(listed) == {"qwen:latest", "scripted:latest"}
    assert listed["qwen:latest"].modified_at is not None

    def context() -> int | None:
        return next((one.context_length for one in client.ps().models if one.model == "qwen:latest"), None)

    wait_for(lambda: context() == 2048, 10, "the context is known")
    (row,) = (one for one in client.ps().models if one.model == "qwen:latest")
    assert row.name == "qwen:latest"
    assert row.expires_at is not None
    assert row.digest == listed["qwen:latest"].digest
    for name in ("qwen", "qwen:latest"):
        found = client.show(name)
        assert found.modelinfo["sim.context_length"] == 2048
        assert found.parameters.split() == ["num_ctx", "2048"]
        assert "tools" in found.capabilities


def test_an_empty_request_loads_and_keep_alive_zero_unloads(server: OllamaServer, client: ollama.Client) -> None:
    assert client.generate("qwen").done_reason == "load"
    assert server.lab.instance("qwen")["state"] == "running"
    assert client.generate("qwen", keep_alive=0).done_reason == "unload"
    assert server.lab.instance("qwen")["state"] == "stopped"
    assert "qwen:latest" not in [one.model for one in client.ps().models]
    assert client.chat("qwen", messages=USER, keep_alive=0, options={"num_predict": 1}).done
    wait_for(lambda: server.lab.instance("qwen")["state"] == "stopped", 20, "unloaded after the answer")


def test_a_context_above_the_one_that_is_served(client: ollama.Client) -> None:
    client.chat("qwen", messages=USER, options={"num_ctx": 2048, "num_predict": 1})
    for call in (
        lambda: client.chat("qwen", messages=USER, options={"num_ctx": 2049}),
        lambda: next(iter(client.generate("qwen", "hi", options={"num_ctx": 2049}, stream=True))),
        lambda: client.embed("qwen", input="hi", options={"num_ctx": 2049}),
        lambda: client.generate("qwen", options={"num_ctx": 2049}),
    ):
        with pytest.raises(ollama.ResponseError, match="served with a context of 2048 tokens") as caught:
            call()
        assert caught.value.status_code == 400


def test_pull(client: ollama.Client) -> None:
    assert client.pull("qwen").status == "success"
    assert [one.status for one in client.pull("qwen:latest", stream=True)][-1] == "success"
    for stream in (False, True):
        with pytest.raises(ollama.ResponseError, match="'llama3' is not served here") as caught:
            list(client.pull("llama3", stream=stream))
        assert caught.value.status_code == 404


def test_errors(client: ollama.Client) -> None:
    for call in (
        lambda: client.chat("nobody", messages=USER),
        lambda: next(iter(client.chat("nobody", messages=USER, stream=True))),
        lambda: client.generate("nobody:latest", "hi"),
        lambda: client.show("nobody"),
        lambda: client.embed("nobody", input="a"),
    ):
        with pytest.raises(ollama.ResponseError, match="there is no model 'nobody'") as caught:
            call()
        assert caught.value.status_code == 404
    for call in (
        lambda: client.delete("qwen"),
        lambda: client.copy("qwen", "qwen2"),
        lambda: client.create("x", from_="qwen"),
        lambda: client.push("qwen"),
    ):
        with pytest.raises(ollama.ResponseError, match="is not supported") as caught:
            call()
        assert caught.value.status_code == 501
    with pytest.raises(ollama.ResponseError, match="'temperature' must be a number"):
        client.chat("qwen", messages=USER, options={"temperature": "hot"})


# --- what an engine says, by one that says what it is asked for


def test_what_reaches_an_engine(client: ollama.Client) -> None:
    png = b"\x89PNG\r\n\x1a\n" + bytes(32)
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "look", "images": [png]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "add", "content": "2"},
        {"role": "user", "content": "echo"},
    ]
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    answer = client.chat("scripted", messages=messages, format=schema, think=False,
                         options={"top_k": 3, "repeat_penalty": 1.2, "seed": 7})  # fmt: skip
    told = json.loads(answer.message.content)
    assert told["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    call = told["messages"][1]["tool_calls"][0]
    assert json.loads(call["function"]["arguments"]) == {"a": 1}
    assert told["messages"][2]["tool_call_id"] == call["id"]
    assert told["response_format"]["json_schema"]["schema"] == schema
    assert told["chat_template_kwargs"]["enable_thinking"] is False
    assert (told["top_k"], told["repetition_penalty"], told["seed"]) == (3, 1.2, 7)


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@pytest.mark.parametrize("stream", [False, True])
def test_tools_both_ways(client: ollama.Client, stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "tools"}]
    answer = client.chat("scripted", messages=messages, tools=[add], stream=stream)
    parts = list(answer) if stream else [answer]
    (called,) = [one for one in parts if one.message.tool_calls]
    (call,) = called.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("add", {"a": 1, "b": 2})
    assert parts[-1].done_reason == "stop"
    result = add(**call.function.arguments)
    messages += [called.message, {"role": "tool", "tool_name": "add", "content": str(result)}]
    assert client.chat("scripted", messages=messages, tools=[add]).message.content == "The result is 3."


@pytest.mark.parametrize("stream", [False, True])
def test_thinking(client: ollama.Client, stream: bool) -> None:
    answer = scripted(client, "think", think=True, stream=stream)
    parts = list(answer) if stream else [answer]
    assert "".join(one.message.thinking or "" for one in parts) == "hm"
    assert "".join(one.message.content or "" for one in parts) == "4"


@pytest.mark.parametrize(("words", "error"), [("error", "out of memory"), ("die", "ended before it was complete")])
def test_errors_in_the_middle_of_a_stream(client: ollama.Client, words: str, error: str) -> None:
    parts = scripted(client, words, stream=True)
    assert next(parts).message.content == "a"
    with pytest.raises(ollama.ResponseError, match=error):
        next(parts)


def test_an_engine_that_refuses(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="it will not") as caught:
        scripted(client, "refuse")
    assert caught.value.status_code == 400


def test_a_client_that_leaves_ends_the_work_of_the_engine(server: OllamaServer, client: ollama.Client) -> None:
    parts = scripted(client, "slow", stream=True)
    next(parts)
    wait_for(lambda: server.lab.instance("scripted")["requests"] == 1, 5, "in progress")
    parts.close()
    wait_for(lambda: server.lab.instance("scripted")["requests"] == 0, 5, "ended")


def test_openai_s_paths_on_the_same_port(server: OllamaServer) -> None:
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.port}", trust_env=False, timeout=30) as http:
        body = {"model": "qwen:latest", "messages": USER, "max_tokens": 3, "stream": True}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.headers["x-request-id"]
        assert {one["id"] for one in http.get("/v1/models").json()["data"]} == {"qwen", "scripted"}
        assert http.get("/").text == "Ollama is running"
        assert http.get("/api/version").json()["version"]


async def test_the_asynchronous_client(server: OllamaServer) -> None:
    client = ollama.AsyncClient(f"http://127.0.0.1:{server.port}", trust_env=False)
    parts = [one async for one in await client.chat("qwen", messages=USER, options={"num_predict": 3}, stream=True)]
    assert len(parts) == 4
    await client.close()


# --- keys


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[OllamaServer]:
    settings = {"require_inference_auth": "1", "require_management_auth": "1", "management_keys": MANAGER}
    made = OllamaServer(tmp_path_factory.mktemp("guarded"), tiny_model, **settings)
    try:
        made.start(Authorization=f"Bearer {MANAGER}")
        yield made
    finally:
        made.lab.close()


def test_keys_decide_as_at_the_gateway(guarded: OllamaServer) -> None:
    with guarded.client() as nobody:
        for call in (nobody.list, nobody.ps, lambda: nobody.chat("qwen", messages=USER), lambda: nobody.show("qwen")):
            with pytest.raises(ollama.ResponseError) as caught:
                call()
            assert caught.value.status_code == 401
    assert httpx2.get(f"http://127.0.0.1:{guarded.port}/", trust_env=False).text == "Ollama is running"
    with guarded.client(Authorization=f"Bearer {inference_key(guarded, 'k1')}") as client:
        assert client.chat("qwen", messages=USER, options={"num_predict": 1}).done
        assert len(client.list().models) == 2


def test_unloading_takes_a_key_that_manages(guarded: OllamaServer) -> None:
    with guarded.client(Authorization=f"Bearer {inference_key(guarded, 'k2')}") as client:
        assert client.generate("qwen").done_reason == "load"
        with pytest.raises(ollama.ResponseError, match="scope manage") as caught:
            client.generate("qwen", keep_alive=0)
        assert caught.value.status_code == 403
        assert guarded.lab.instance("qwen")["state"] == "running"
    with guarded.client(Authorization=f"Bearer {MANAGER}") as manager:
        assert manager.generate("qwen", keep_alive=0).done_reason == "unload"
    assert guarded.lab.instance("qwen")["state"] == "stopped"


def inference_key(guarded: OllamaServer, name: str) -> str:
    token: str = guarded.lab.api("POST", "/auth/keys", {"name": name})["key"]
    return token
