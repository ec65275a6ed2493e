"""LiteLLM as a client, unchanged: through its providers `openai`, `hosted_vllm` and `anthropic`."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_environments import python_of
from client_lab import EVERY, LLAMA_CPP, PROMPT, SIMULATED, VLLM, Served, on
from client_process import CallFailed, ClientProcess

pytestmark = [pytest.mark.system, pytest.mark.timeout(700)]

SCRIPT = Path(__file__).with_name("calls") / "litellm_calls.py"
ENVIRON = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
MESSAGES = [{"role": "user", "content": PROMPT}]
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def process() -> Iterator[ClientProcess]:
    """One for all tests: its start takes seconds."""
    with ClientProcess([python_of("litellm"), SCRIPT], ENVIRON) as made:
        yield made


@pytest.fixture
def call(process: ClientProcess, served: Served) -> Call:
    """`call("chat", model="openai/…", …)`: with the address and the key of the server."""

    def ask(name: str, *, model: str, **options: Any) -> Any:
        base = served.url if model.startswith("anthropic/") else f"{served.url}/v1"
        return process.call(name, **{"model": model, "api_base": base, "api_key": served.key} | options)

    return ask


@on(*EVERY)
def test_chat(call: Call, served: Served) -> None:
    asked = {"messages": MESSAGES, "max_tokens": 5, "temperature": 0}
    for provider in ("openai", "hosted_vllm"):
        for name in served.names:
            whole = call("chat", model=f"{provider}/{name}", **asked)
            assert (bool(whole["text"]), whole["tokens"]) == (True, 5)
        streamed = call("streamed", model=f"{provider}/{served.names[-1]}", **asked)
        assert (streamed["text"], streamed["tokens"]) == (whole["text"], 5)
    assert call("completion", model=f"text-completion-openai/{served.chat}", prompt=PROMPT, max_tokens=4)


@on(*EVERY)
def test_messages(call: Call, served: Served) -> None:
    asked = {"messages": MESSAGES, "max_tokens": 8}
    assert call("chat", model=f"anthropic/{served.full}", **asked)["tokens"]
    streamed = call("streamed", model=f"anthropic/{served.full}", **asked)
    assert (bool(streamed["text"]), streamed["tokens"]) == (True, 8)


@on(SIMULATED)
def test_tools(call: Call, served: Served) -> None:
    function = {
        "name": "get_weather",
        "description": "The weather.",
        "parameters": {"type": "object", "properties": {}},
    }
    asked = {"messages": MESSAGES, "tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    for provider in ("openai", "anthropic"):
        ((name, arguments),) = call("chat", model=f"{provider}/{served.full}", **asked)["calls"]
        assert (name, json.loads(arguments)) == ("get_weather", {"unit": "c"})
    ((_, arguments),) = call("streamed", model=f"openai/{served.full}", **asked)["calls"]
    assert json.loads(arguments) == {"unit": "c"}


@on(SIMULATED, LLAMA_CPP)
def test_embeddings(call: Call, served: Served) -> None:
    assert call("embedding", model=f"openai/{served.vectors}", input=[PROMPT], encoding_format="float") > 8


@on(SIMULATED, VLLM)
def test_responses(call: Call, served: Served) -> None:
    asked = {"model": f"openai/{served.full}", "input": PROMPT, "max_output_tokens": 16}
    assert call("response", **asked)
    assert call("response_events", **asked).count("response.output_text.delta") > 2


@on(SIMULATED)
def test_a_transcription(call: Call, served: Served) -> None:
    text = "RIFF" + "a" * 5000
    digest = hashlib.sha256(text.encode()).hexdigest()
    assert call("transcription", model="openai/recorded", text=text) == f"recorded a.wav {len(text)} {digest}"


@on(SIMULATED)
def test_errors(call: Call, served: Served) -> None:
    once = served.make_key("litellm-once", limits={"requests_per_minute": 1})
    assert call("chat", model="openai/fast", messages=MESSAGES, max_tokens=1, api_key=once)
    cases = [
        ("openai/fast", {"api_key": "none"}, "AuthenticationError", "Invalid API key"),
        ("openai/gpt-4o-mine", {}, "NotFoundError", "Did you mean gpt-4o-mini"),
        ("openai/fast", {"max_tokens": "many"}, "BadRequestError", "max_tokens"),
        ("openai/fast", {"api_key": once}, "RateLimitError", "requests"),
        ("anthropic/recorded", {"api_key": "none"}, "AuthenticationError", "Invalid API key"),
        ("anthropic/claude-haikus", {}, "NotFoundError", "Did you mean claude-haiku"),
    ]
    for model, options, kind, text in cases:
        with pytest.raises(CallFailed, match=text) as raised:
            call("chat", model=model, messages=MESSAGES, **{"max_tokens": 2, "max_retries": 0} | options)
        assert raised.value.kind == kind, model


@on(*EVERY)
def test_a_stream_that_is_left(call: Call, served: Served) -> None:
    assert call("chat", model=f"openai/{served.slow}", messages=MESSAGES, max_tokens=1), "it runs"
    before = served.generated()
    asked = {"messages": MESSAGES, "max_tokens": served.most, "extra_body": {"ignore_eos": True}}
    assert call("left", model=f"openai/{served.slow}", **asked) == 3
    served.wait_until_idle()
    assert served.generated() - before < served.most / 2, "the engine has stopped"


@on(SIMULATED)
def test_a_cold_model_is_started(call: Call, served: Served) -> None:
    served.stop(served.cold)
    assert call("streamed", model=f"openai/{served.cold}", messages=MESSAGES, max_tokens=3)["tokens"] == 3
    assert served.lab.instance(served.cold)["state"] == "running"
