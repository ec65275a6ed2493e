"""Chats, generations and embeddings on their way to an engine."""

import json
from typing import Any

import pytest

from garrison.base.errors import InvalidError
from garrison.gateway.ollama.translation.bodies import ChatBody, EmbedBody, GenerateBody, is_zero, read_body
from garrison.gateway.ollama.translation.requests import Asked, chat_request, embed_request, generate_request

USER = [{"role": "user", "content": "hi"}]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}}


def chat(**fields: Any) -> Asked:
    return chat_request(read_body(json.dumps({"model": "m", "messages": USER, **fields}).encode(), ChatBody))


def generate(**fields: Any) -> Asked:
    return generate_request(read_body(json.dumps({"model": "m", **fields}).encode(), GenerateBody))


def embed(**fields: Any) -> Asked:
    return embed_request(read_body(json.dumps({"model": "m", **fields}).encode(), EmbedBody))


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({}, USAGE),
        ({"stream": None}, USAGE),
        ({"stream": True}, USAGE),
        ({"stream": False}, {"stream": False}),
        ({"keep_alive": "5m", "truncate": True, "shift": True}, USAGE),
        ({"options": {"temperature": 0, "num_predict": 5}}, USAGE | {"temperature": 0, "max_tokens": 5}),
        ({"format": ""}, USAGE),
        ({"format": "json"}, USAGE | {"response_format": {"type": "json_object"}}),
        (
            {"format": SCHEMA},
            USAGE | {"response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}},
        ),
        ({"think": True}, USAGE | {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}),
        ({"think": False}, USAGE | {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}),
        (
            {"think": "high"},
            USAGE
            | {
                "reasoning_effort": "high",
                "chat_template_kwargs": {"enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
            },
        ),
        ({"logprobs": True, "top_logprobs": 3}, USAGE | {"logprobs": True, "top_logprobs": 3}),
        ({"logprobs": False, "top_logprobs": 3}, USAGE),
        ({"tools": []}, USAGE),
        (
            {"tools": [{"function": {"name": "f"}}]},
            USAGE | {"tools": [{"type": "function", "function": {"name": "f"}}]},
        ),
    ],
)
def test_a_chat(fields: dict[str, Any], more: dict[str, Any]) -> None:
    asked = chat(**fields)
    assert asked.path == "/v1/chat/completions"
    assert asked.of("gateway/name") == {"model": "gateway/name", "messages": USER, **more}


def test_what_a_client_counts_on_is_told_apart() -> None:
    assert chat(options={"num_ctx": 4096}).num_ctx == 4096
    assert generate(prompt="hi", options={"num_ctx": 1}).num_ctx == 1
    assert embed(input="a", options={"num_ctx": 2}).num_ctx == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": "xml"}, "format is 'xml'"),
        ({"format": ["json"]}, "format is"),
        ({"think": "very"}, "think is 'very'"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs must be between 0 and 20"),
        ({"top_logprobs": -1}, "top_logprobs must be between 0 and 20"),
        ({"options": {"top_p": "a"}}, "option 'top_p'"),
    ],
)
def test_chats_that_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        chat(**fields)


def test_a_generation_is_a_chat_of_one_message() -> None:
    asked = generate(prompt="hi", system="be brief", template="", context=[], stream=False)
    assert asked.path == "/v1/chat/completions"
    assert asked.of("m") == {"model": "m", "messages": [{"role": "system", "content": "be brief"}, *USER],
                             "stream": False}  # fmt: skip


def test_a_generation_about_an_image() -> None:
    (message,) = generate(prompt="what?", images=["iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB"]).body["messages"]
    assert [one["type"] for one in message["content"]] == ["text", "image_url"]


def test_a_raw_prompt_is_a_completion_as_long_as_the_context_allows() -> None:
    asked = generate(prompt="[INST] hi [/INST]", raw=True, stream=False)
    assert asked.path == "/v1/completions"
    assert asked.endless
    assert asked.of("m") == {"model": "m", "prompt": "[INST] hi [/INST]", "stream": False}
    assert asked.of("m", 4096)["max_tokens"] == 4096
    limited = generate(prompt="hi", raw=True, options={"num_predict": 7})
    assert not limited.endless
    assert limited.of("m", 4096)["max_tokens"] == 7


def test_what_stands_between_prompt_and_suffix() -> None:
    asked = generate(prompt="def f(", suffix="return x", system="python")
    assert asked.path == "/v1/completions"
    assert asked.body["prompt"] == "python\ndef f("
    assert asked.body["suffix"] == "return x"
    assert "chat_template_kwargs" not in generate(prompt="a", suffix="b", think=True).body


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"template": "{{ .Prompt }}"}, "template is not supported"),
        ({"context": [1, 2]}, "context is not supported"),
        ({"raw": True, "system": "x"}, "raw mode does not support system"),
        ({"raw": True, "images": ["AAAA"]}, "images need the model's template"),
        ({"raw": True, "logprobs": True}, "logprobs need the model's template"),
    ],
)
def test_generations_that_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        generate(prompt="hi", **fields)


@pytest.mark.parametrize(
    ("given", "texts"), [("a", ["a"]), (["a", "b"], ["a", "b"]), ("", []), ([], []), (None, []), ([""], [""])]
)
def test_embeddings(given: Any, texts: list[str]) -> None:
    asked = embed(input=given)
    assert asked.path == "/v1/embeddings"
    assert asked.of("m") == {
        "model": "m", "input": texts, "encoding_format": "float", "truncate_prompt_tokens": -1,
    }  # fmt: skip


def test_embeddings_are_not_cut_against_the_client_s_will() -> None:
    assert "truncate_prompt_tokens" not in embed(input="a", truncate=False).body
    assert "dimensions" not in embed(input="a", dimensions=2).body, "vLLM refuses it for most models; we cut ourselves"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "missing request body"),
        (b"  \n", "missing request body"),
        (b"[]", "the body cannot be read"),
        (b"{", "the body cannot be read"),
        (b'{"model": 1}', "the body cannot be read: Expected `str`"),
        (b'{"messages": [{"content": "no role"}]}', "role"),
        (b'{"model": "\xff"}', "the body cannot be read"),
        (b'{"format": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the body cannot be read"),
    ],
)
def test_bodies_that_cannot_be_read(data: bytes, words: str) -> None:
    with pytest.raises(InvalidError, match=words):
        read_body(data, ChatBody)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0, True), (0.0, True), ("0", True), ("0s", True), ("-0m", True), ("0h0m0s", True), ("0.0s", True),
        (None, False), (-1, False), (300, False), (0.5, False), ("5m", False), ("10s", False), ("0h5m", False),
        ("", False), ("s", False), ("0x", False),
    ],
)  # fmt: skip
def test_keep_alive_that_unloads(given: float | str | None, expected: bool) -> None:
    assert is_zero(given) is expected
