"""`anthropic` for Python, unchanged, with strict validation of what it is answered."""

from typing import Any

import anthropic
import pytest
from anthropic import Anthropic
from client_lab import EVERY, LLAMA_CPP, PROMPT, SIMULATED, VLLM, Served, on

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the library closes its connections when it is collected
]

MESSAGES: Any = [{"role": "user", "content": PROMPT}]
SCHEMA = {"type": "object", "properties": {"unit": {"type": "string", "enum": ["c", "f"]}}, "required": ["unit"]}
TOOLS: Any = {
    "tools": [{"name": "get_weather", "description": "The weather.", "input_schema": SCHEMA}],
    "tool_choice": {"type": "tool", "name": "get_weather"},
    "max_tokens": 16,
}


def client(served: Served, **options: Any) -> Anthropic:
    given = {"api_key": served.key, "max_retries": 0, "timeout": 300, "_strict_response_validation": True} | options
    return Anthropic(base_url=served.url, **given)


@on(*EVERY)
def test_a_message(served: Served) -> None:
    for names in ({"model": served.full}, {"model": "claude-haiku"}):
        answer = client(served).messages.create(messages=MESSAGES, max_tokens=8, **names)
        assert answer.content
        assert answer.usage.output_tokens


@on(SIMULATED)
def test_a_key_as_bearer_token(served: Served) -> None:
    by_token = client(served, api_key=None, auth_token=served.key)
    assert by_token.messages.create(model=served.full, messages=MESSAGES, max_tokens=8).content


@on(*EVERY)
def test_a_stream(served: Served) -> None:
    options: Any = {"model": served.full, "messages": MESSAGES, "max_tokens": 8}
    kinds = [event.type for event in client(served).messages.create(**options, stream=True)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert kinds.count("content_block_delta") >= 8
    with client(served).messages.stream(**options) as stream:
        assert "".join(stream.text_stream)
        assert stream.get_final_message().usage.output_tokens == 8


@on(SIMULATED)
def test_a_tool(served: Served) -> None:
    (block,) = client(served).messages.create(model=served.full, messages=MESSAGES, **TOOLS).content
    assert block.type == "tool_use"
    assert (block.name, block.input) == ("get_weather", {"unit": "c"})


@on(VLLM, LLAMA_CPP)
def test_tools_that_are_offered(served: Served) -> None:
    """Whether random weights use one is up to them."""
    assert client(served).messages.create(model=served.full, messages=MESSAGES, **TOOLS).usage.output_tokens


@on(*EVERY)
def test_tokens_are_counted(served: Served) -> None:
    assert client(served).messages.count_tokens(model=served.full, messages=MESSAGES).input_tokens > 8


@on(*EVERY)
def test_models(served: Served) -> None:
    listed = list(client(served).models.list(limit=1))
    assert {served.full, "claude-haiku"} <= {one.id for one in listed}
    found = client(served).models.retrieve("claude-haiku")
    assert (found.id, found.type) == ("claude-haiku", "model")
    with pytest.raises(anthropic.NotFoundError, match="Did you mean claude-haiku"):
        client(served).models.retrieve("claude-haiku-4")


@on(*EVERY)
def test_errors(served: Served) -> None:
    messages = client(served).messages
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        client(served, api_key="none").messages.create(model=served.full, messages=MESSAGES, max_tokens=4)
    with pytest.raises(anthropic.NotFoundError, match=r"not_found_error.*Did you mean claude-haiku"):
        messages.create(model="claude-haikus", messages=MESSAGES, max_tokens=4)
    with pytest.raises(anthropic.BadRequestError, match=r"invalid_request_error.*names no model"):
        messages.create(model="", messages=MESSAGES, max_tokens=4)


@on(VLLM, LLAMA_CPP)
def test_an_error_of_the_engine(served: Served) -> None:
    wrong: Any = "many"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client(served).messages.create(model=served.full, messages=MESSAGES, max_tokens=wrong)


@on(SIMULATED)
def test_a_limit(served: Served) -> None:
    once = client(served, api_key=served.make_key("messages-once", limits={"requests_per_minute": 1})).messages
    assert once.create(model=served.full, messages=MESSAGES, max_tokens=8)
    with pytest.raises(anthropic.RateLimitError, match="rate_limit_error") as raised:
        once.create(model=served.full, messages=MESSAGES, max_tokens=8)
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 60


@on(VLLM, LLAMA_CPP)
def test_a_stream_that_is_left(served: Served) -> None:
    messages = client(served).messages
    assert messages.create(model=served.slow, messages=MESSAGES, max_tokens=1), "it runs"
    before = served.generated()
    with messages.create(model=served.slow, messages=MESSAGES, max_tokens=served.most, stream=True) as stream:
        for _ in range(3):
            next(iter(stream))
    served.wait_until_idle()
    assert served.generated() - before < served.most / 2, "the engine has stopped"


@on(SIMULATED)
def test_a_cold_model_is_started(served: Served) -> None:
    for stream in (False, True):
        served.stop(served.full)
        answer = client(served).messages.create(model=served.full, messages=MESSAGES, max_tokens=8, stream=stream)
        assert list(answer) if stream else answer
        assert served.lab.instance(served.full)["state"] == "running"
