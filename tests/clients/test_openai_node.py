"""`openai` from npm, unchanged."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from client_environments import npm_package
from client_lab import EVERY, LLAMA_CPP, PROMPT, SIMULATED, VLLM, Served, on
from client_process import CallFailed, ClientProcess

pytestmark = [pytest.mark.system, pytest.mark.timeout(700)]

SCRIPT = Path(__file__).with_name("calls") / "openai_calls.mjs"
ASKED: Any = {"messages": [{"role": "user", "content": PROMPT}], "max_tokens": 6, "temperature": 0}


@pytest.fixture
def client(served: Served) -> Iterator[ClientProcess]:
    first = {"url": f"{served.url}/v1", "key": served.key}
    with ClientProcess(["node", SCRIPT, npm_package("openai-node")], {}, first) as made:
        yield made


@on(*EVERY)
def test_chat_and_completions(client: ClientProcess, served: Served) -> None:
    for name in served.names:
        answer = client.call("chat", model=name, **ASKED)
        assert answer["choices"][0]["message"]["content"]
    text = client.call("chat", model=served.chat, **ASKED)["choices"][0]["message"]["content"]
    chunks = client.call("streamed", model=served.chat, stream_options={"include_usage": True}, **ASKED)
    assert "".join(one["choices"][0]["delta"].get("content") or "" for one in chunks if one["choices"]) == text
    assert chunks[-1]["usage"]["completion_tokens"] == 6
    assert client.call("completion", model=served.chat, prompt=PROMPT, max_tokens=4)["choices"][0]["text"]


@on(*EVERY)
def test_models(client: ClientProcess, served: Served) -> None:
    assert {served.chat, "gpt-4o-mini"} <= set(client.call("models"))
    assert client.call("retrieve", model="gpt-4o-mini")["id"] == "gpt-4o-mini"


@on(SIMULATED)
def test_tools(client: ClientProcess, served: Served) -> None:
    function = {"name": "get_weather", "parameters": {"type": "object"}}
    asked = ASKED | {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    (call,) = client.call("chat", model=served.full, **asked)["choices"][0]["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("get_weather", {"unit": "c"})
    chunks = client.call("streamed", model=served.full, **asked)
    pieces = [
        piece["function"].get("arguments") or ""
        for chunk in chunks
        if chunk["choices"]
        for piece in chunk["choices"][0]["delta"].get("tool_calls") or ()
    ]
    assert json.loads("".join(pieces)) == {"unit": "c"}


@on(SIMULATED, LLAMA_CPP)
def test_embeddings(client: ClientProcess, served: Served) -> None:
    assert client.call("embedding", model=served.vectors, input=PROMPT) > 8


@on(SIMULATED, VLLM)
def test_responses(client: ClientProcess, served: Served) -> None:
    asked = {"model": served.full, "input": PROMPT, "max_output_tokens": 16}
    assert client.call("response", **asked)
    kinds = client.call("response_events", **asked)
    assert kinds[0] == "response.created"
    assert kinds.count("response.output_text.delta") > 2


@on(SIMULATED)
def test_a_transcription(client: ClientProcess, served: Served) -> None:
    text = "RIFF" + "a" * 5000
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert client.call("transcription", model="recorded", text=text) == f"recorded a.wav {len(text)} {digest}"


@on(*EVERY)
def test_errors(client: ClientProcess, served: Served) -> None:
    cases = [
        ("with_key", {"key": "none", "model": served.chat}, "AuthenticationError", "Invalid API key"),
        ("chat", {"model": "gpt-4o-mine"}, "NotFoundError", "Did you mean gpt-4o-mini"),
        ("chat", {"model": ""}, "BadRequestError", "names no model"),
        ("chat", {"model": served.chat, "max_tokens": "many"}, "BadRequestError", "max_tokens"),
    ]
    for name, options, kind, text in cases:
        with pytest.raises(CallFailed, match=text) as raised:
            client.call(name, **ASKED | options)
        assert raised.value.kind == kind


@on(SIMULATED)
def test_a_limit(client: ClientProcess, served: Served) -> None:
    once = served.make_key("node-once", limits={"requests_per_minute": 1})
    assert client.call("with_key", key=once, model=served.chat, **ASKED)
    with pytest.raises(CallFailed) as raised:
        client.call("with_key", key=once, model=served.chat, **ASKED)
    assert (raised.value.kind, raised.value.status) == ("RateLimitError", 429)


@on(*EVERY)
def test_a_stream_that_is_left(client: ClientProcess, served: Served) -> None:
    assert client.call("chat", model=served.slow, **ASKED), "it runs"
    before = served.generated()
    assert client.call("left", model=served.slow, **ASKED | {"max_tokens": served.most, "ignore_eos": True}) == 3
    served.wait_until_idle()
    assert served.generated() - before < served.most / 2, "the engine has stopped"


@on(SIMULATED)
def test_a_cold_model_is_started(client: ClientProcess, served: Served) -> None:
    served.stop(served.cold)
    assert client.call("streamed", model=served.cold, **ASKED)
    assert served.lab.instance(served.cold)["state"] == "running"
