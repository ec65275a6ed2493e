"""`openai` for Python, unchanged, with strict validation of what it is answered."""

import hashlib
import json
from typing import Any

import openai
import pytest
from client_lab import EVERY, LLAMA_CPP, PROMPT, SIMULATED, VLLM, Served, on
from openai import OpenAI
from server_lab import wait_for

pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # the library closes its connections when it is collected
]

MESSAGES: Any = [{"role": "user", "content": PROMPT}]
SCHEMA = {
    "type": "object", "properties": {"unit": {"type": "string", "enum": ["c", "f"]}}, "required": ["unit"],
    "additionalProperties": False,
}  # fmt: skip
FUNCTION = {"name": "get_weather", "description": "The weather.", "strict": True, "parameters": SCHEMA}
TOOLS: Any = {
    "tools": [{"type": "function", "function": FUNCTION}],
    "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    "logit_bias": {"12": -100, "13": -100, "16": -100, "35": -100},  # else random weights write blanks without end
    "max_tokens": 300,
    "temperature": 0,
}


def client(served: Served, **options: Any) -> OpenAI:
    given = {"api_key": served.key, "max_retries": 0, "timeout": 300, "_strict_response_validation": True} | options
    return OpenAI(base_url=f"{served.url}/v1", **given)


def lenient(served: Served) -> OpenAI:
    """For answers that the engine itself does not give as the client's types have them."""
    return client(served, _strict_response_validation=False)


@on(*EVERY)
def test_chat_under_every_name(served: Served) -> None:
    for name in served.names:
        answer = client(served).chat.completions.create(model=name, messages=MESSAGES, max_tokens=4, temperature=0)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 4
        assert answer._request_id, "what the log of the server knows it by"


@on(*EVERY)
def test_a_stream(served: Served) -> None:
    options: Any = {"model": served.chat, "messages": MESSAGES, "max_tokens": 6, "temperature": 0}
    chunks = list(
        client(served).chat.completions.create(**options, stream=True, stream_options={"include_usage": True})
    )
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == client(served).chat.completions.create(**options).choices[0].message.content
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 6


@on(SIMULATED, VLLM)
def test_tools(served: Served) -> None:
    chat = client(served).chat.completions
    (call,) = chat.create(model=served.full, messages=MESSAGES, **TOOLS).choices[0].message.tool_calls or ()
    assert call.type == "function"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"unit": "c"})
    pieces = [
        piece
        for chunk in chat.create(model=served.full, messages=MESSAGES, stream=True, **TOOLS)
        if chunk.choices
        for piece in chunk.choices[0].delta.tool_calls or ()
    ]
    functions = [piece.function for piece in pieces if piece.function is not None]
    assert "".join(one.name or "" for one in functions) == "get_weather"
    assert json.loads("".join(one.arguments or "" for one in functions)) == {"unit": "c"}


@on(*EVERY)
def test_completions(served: Served) -> None:
    options: Any = {"model": served.chat, "prompt": PROMPT, "max_tokens": 5, "temperature": 0}
    whole = client(served).completions.create(**options).choices[0].text
    assert whole
    # Engines say `finish_reason: null` until the end, which the client's types do not know.
    chunks = lenient(served).completions.create(**options, stream=True)
    assert "".join(one.choices[0].text for one in chunks) == whole


@on(*EVERY)
def test_a_stream_shows_its_usage_to_a_client_that_asks_and_counts_for_others_too(served: Served) -> None:
    key = served.make_key("streams")
    chat = client(served, api_key=key).chat.completions
    options: Any = {"model": served.chat, "messages": MESSAGES, "max_tokens": 5, "temperature": 0, "stream": True}
    hidden = list(chat.create(**options))
    assert all(one.usage is None and one.choices for one in hidden)
    *_, last = chat.create(**options, stream_options={"include_usage": True})
    assert last.usage is not None

    def counted() -> tuple[int, int, int]:
        rows = served.lab.api("GET", "/usage?group_by=key")["rows"]
        sums = next((one for one in rows if one["key_name"] == "streams"), {})
        return sums.get("requests", 0), sums.get("tokens_out", 0), sums.get("uncounted", 0)

    wait_for(lambda: counted() == (2, 2 * last.usage.completion_tokens, 0), 20, "stored")


@on(SIMULATED, LLAMA_CPP)
def test_embeddings(served: Served) -> None:
    floats = client(served).embeddings.create(model=served.vectors, input=[PROMPT, "b"], encoding_format="float")
    assert len(floats.data) == 2
    # Without a format the client asks for base64, which it decodes after it has compared it with its types.
    packed = lenient(served).embeddings.create(model=served.vectors, input=[PROMPT, "b"])
    assert packed.data[0].embedding == pytest.approx(floats.data[0].embedding, rel=1e-5)


@on(SIMULATED, VLLM)
def test_responses(served: Served) -> None:
    responses = client(served).responses
    answer = responses.create(model=served.full, input=PROMPT, max_output_tokens=16, temperature=0)
    events = list(responses.create(model=served.full, input=PROMPT, max_output_tokens=16, temperature=0, stream=True))
    assert (events[0].type, events[-1].type) in {
        ("response.created", "response.completed"),
        ("response.created", "response.incomplete"),
    }
    text = "".join(one.delta for one in events if one.type == "response.output_text.delta")
    assert text == answer.output_text != ""
    with pytest.raises(openai.NotFoundError, match="Response with id 'resp_1' not found"):
        responses.retrieve("resp_1")


@on(LLAMA_CPP)
def test_responses_of_llama_cpp(served: Served) -> None:
    responses = lenient(served).responses
    answer = responses.create(model=served.full, input=PROMPT, max_output_tokens=8, temperature=0)
    assert answer.output_text
    events = list(responses.create(model=served.full, input=PROMPT, max_output_tokens=8, temperature=0, stream=True))
    assert events[-1].type == "response.completed"
    assert client(served).responses.input_tokens.count(model=served.full, input=PROMPT).input_tokens > 4


@on(*EVERY)
def test_models(served: Served) -> None:
    models = client(served).models
    assert set(served.names) - {"fast/tiny", "fast/sql"} <= {one.id for one in models.list()}
    assert models.retrieve(served.chat).id == served.chat
    with pytest.raises(openai.NotFoundError, match=f"Did you mean .*{served.chat}"):
        models.retrieve(f"{served.chat}s")


@on(SIMULATED)
def test_a_transcription(served: Served) -> None:
    data = bytes(range(256)) * 300
    for name, asked in (("recorded", "recorded"), ("claude-haiku", "recorded"), ("recorded/large", "large")):
        answer = client(served).audio.transcriptions.create(model=name, file=("a.wav", data, "audio/wav"))
        assert answer.text == f"{asked} a.wav {len(data)} {hashlib.sha256(data).hexdigest()}"


@on(LLAMA_CPP)
def test_a_transcription_that_the_engine_refuses(served: Served) -> None:
    with pytest.raises(openai.InternalServerError, match="does not support audio") as raised:
        client(served).audio.transcriptions.create(model=served.chat, file=("a.wav", b"RIFF0000WAVE"))
    assert raised.value.status_code == 501


@on(*EVERY)
def test_errors(served: Served) -> None:
    chat = client(served).chat.completions
    with pytest.raises(openai.AuthenticationError, match="Invalid API key"):
        client(served, api_key="none").chat.completions.create(model=served.chat, messages=MESSAGES)
    with pytest.raises(openai.NotFoundError, match=f"there is no model .*Did you mean .*{served.chat}"):
        chat.create(model=f"{served.chat}s", messages=MESSAGES)
    with pytest.raises(openai.BadRequestError, match="names no model"):
        chat.create(model="", messages=MESSAGES)
    wrong: Any = "many"
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        chat.create(model=served.chat, messages=MESSAGES, max_tokens=wrong)


@on(SIMULATED)
def test_keys_with_limits(served: Served) -> None:
    once = served.make_key("once", limits={"requests_per_minute": 1})
    chat = client(served, api_key=once).chat.completions
    assert chat.create(model=served.chat, messages=MESSAGES, max_tokens=1)
    with pytest.raises(openai.RateLimitError) as raised:
        chat.create(model=served.chat, messages=MESSAGES, max_tokens=1)
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 60
    other = served.make_key("other", permission_mode="per_instance", instances=["slow"])
    with pytest.raises(openai.PermissionDeniedError):
        client(served, api_key=other).chat.completions.create(model=served.chat, messages=MESSAGES)


@on(*EVERY)
def test_a_stream_that_is_left(served: Served) -> None:
    options: Any = {"model": served.slow, "messages": MESSAGES, "max_tokens": served.most}
    options["extra_body"] = {"ignore_eos": True}
    assert client(served).chat.completions.create(**options | {"max_tokens": 1}), "it runs"
    before = served.generated()
    with client(served).chat.completions.create(**options, stream=True) as stream:
        for _ in range(3):
            next(stream)
    served.wait_until_idle()
    assert served.generated() - before < served.most / 2, "the engine has stopped"


@on(*EVERY)
def test_a_cold_model_is_started(served: Served) -> None:
    served.stop(served.cold)
    answer = client(served).chat.completions.create(model=served.cold, messages=MESSAGES, max_tokens=2)
    assert answer.choices[0].message.content
    assert served.lab.instance(served.cold)["state"] == "running"


@on(SIMULATED)
def test_a_cold_model_that_is_streamed_from(served: Served) -> None:
    served.stop(served.cold)
    stream = client(served).chat.completions.create(model=served.cold, messages=MESSAGES, max_tokens=2, stream=True)
    assert [one.choices[0].finish_reason for one in stream][-1] == "length"
    wait_for(lambda: served.lab.instance(served.cold)["requests"] == 0, 10, "over")
