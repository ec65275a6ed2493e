"""Whole answers of engines as Ollama's clients read them, and errors as one sentence."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from garrison.gateway.ollama.translation.answers import whole_answer
from garrison.gateway.ollama.translation.embeddings import embed_answer, read_vectors
from garrison.gateway.ollama.translation.errors import AnswerError, error_text
from garrison.gateway.ollama.translation.objects import Ended, Form, Piece

BEGAN = datetime(2026, 5, 4, 3, 2, 1, 500_000, tzinfo=UTC)
CHAT = Form("qwen:latest", True, BEGAN)
TEXT = Form("qwen", False, BEGAN)
USAGE = {"prompt_tokens": 7, "completion_tokens": 5}


def answer(message: Any = None, reason: str | None = "stop", **more: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **(message or {})}, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": USAGE, **more}).encode()


def test_a_message() -> None:
    assert whole_answer(CHAT, answer({"content": "hello"}), 2.0) == {
        "model": "qwen:latest",
        "created_at": "2026-05-04T03:02:03.500000Z",
        "message": {"role": "assistant", "content": "hello"},
        "done": True,
        "done_reason": "stop",
        "total_duration": 2_000_000_000,
        "load_duration": 0,
        "prompt_eval_count": 7,
        "prompt_eval_duration": 0,
        "eval_count": 5,
        "eval_duration": 2_000_000_000,
    }


def test_a_generation_is_the_content_of_a_message_or_the_text_of_a_completion() -> None:
    for body in (answer({"content": "hello"}), b'{"choices": [{"text": "hello", "finish_reason": "stop"}]}'):
        found = whole_answer(TEXT, body, 1.0)
        assert found["response"] == "hello"
        assert "message" not in found


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop"), ("content_filter", "stop")]
)
def test_why_it_ended(finish: str, reason: str) -> None:
    assert whole_answer(CHAT, answer({"content": "x"}, finish), 1.0)["done_reason"] == reason


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_what_the_model_thought(name: str) -> None:
    found = whole_answer(CHAT, answer({"content": "4", name: "2+2"}), 1.0)
    assert found["message"] == {"role": "assistant", "content": "4", "thinking": "2+2"}
    assert whole_answer(TEXT, answer({"content": "4", name: "2+2"}), 1.0)["thinking"] == "2+2"


@pytest.mark.parametrize("arguments", ['{"a": 1, "b": "ü"}', {"a": 1, "b": "ü"}])
def test_calls_of_tools(arguments: Any) -> None:
    calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}},
             {"type": "function", "function": {"name": "now", "arguments": ""}}]  # fmt: skip
    found = whole_answer(CHAT, answer({"content": None, "tool_calls": calls}, "tool_calls"), 1.0)
    assert found["message"] == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "c1", "function": {"index": 0, "name": "add", "arguments": {"a": 1, "b": "ü"}}},
            {"function": {"index": 1, "name": "now", "arguments": {}}},
        ],
    }


def test_arguments_that_cannot_be_read() -> None:
    calls = [{"id": "c", "function": {"name": "add", "arguments": '{"a": '}}]
    with pytest.raises(AnswerError, match="'add' with arguments that are no JSON object"):
        whole_answer(CHAT, answer({"tool_calls": calls}, "tool_calls"), 1.0)
    found = whole_answer(CHAT, answer({"tool_calls": calls}, "length"), 1.0)
    assert "tool_calls" not in found["message"], "it was cut at the limit of the client"
    assert found["done_reason"] == "length"


def test_log_probabilities_are_passed_on() -> None:
    content = [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]
    choice = {"message": {"content": "a"}, "finish_reason": "stop", "logprobs": {"content": content}}
    assert whole_answer(CHAT, json.dumps({"choices": [choice]}).encode(), 1.0)["logprobs"] == content


def test_an_engine_that_measures_is_believed() -> None:
    found = whole_answer(CHAT, answer({"content": "x"}, timings={"prompt_ms": 250.5, "predicted_ms": 1500}), 9.0)
    assert (found["prompt_eval_duration"], found["eval_duration"]) == (250_500_000, 1_500_000_000)


def test_an_answer_without_a_reason_or_usage() -> None:
    found = whole_answer(CHAT, b'{"choices": [{"message": {"content": "x"}}]}', 1.0)
    assert found["done_reason"] == "stop"
    assert "eval_count" not in found


def test_loads_and_unloads_have_no_measures() -> None:
    assert TEXT.last(Piece(), Ended("load", 1.0)) == {
        "model": "qwen", "created_at": "2026-05-04T03:02:02.500000Z", "response": "", "done": True,
        "done_reason": "load",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no completion"),
        (b"[]", "no completion"),
        (b"<html>", "no completion"),
        (b"{}", "no completion"),
        (b'{"choices": []}', "no completion"),
        (b'{"choices": [{"message": {"content": 1}}]}', "no completion"),
        (b'{"choices": [{"finish_reason": "abort", "message": {}}]}', "ended the answer before it was complete"),
        (b'{"error": {"message": "no room", "code": 500}}', "no room"),
        (b'{"object": "error", "message": "no room", "code": 400}', "no room"),
        (b'{"error": {}, "choices": []}', "no completion"),
        (b'{"error": {"code": 5}}', "the engine answered with an error"),
        (b"[" * 100_000, "no completion"),
    ],
)
def test_what_is_no_answer(body: bytes, words: str) -> None:
    with pytest.raises(AnswerError, match=words):
        whole_answer(CHAT, body, 1.0)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error": {"message": "too long", "type": "x"}}', "too long"),
        (400, b'{"error": "too long"}', "too long"),
        (400, b'{"object": "error", "message": "too long"}', "too long"),
        (422, b'{"error": "invalid", "details": "x"}', "invalid"),
        (404, b'{"detail": "Not Found"}', "Not Found"),
        (500, b"<html>oops</html>", "the engine answered 500 Internal Server Error"),
        (599, b"", "the engine answered 599"),
        (400, b'{"error": {"error": {"error": {"error": {"error": "deep"}}}}}', "the engine answered 400 Bad Request"),
        (400, b'{"error": {"message": "a\\u001b[2Jb"}}', "a�[2Jb"),
        (400, json.dumps({"error": "x" * 5000}).encode(), "x" * 2000 + "…"),
        (400, b"\xff", "the engine answered 400 Bad Request"),
    ],
)
def test_errors_as_one_sentence(status: int, body: bytes, expected: str) -> None:
    assert error_text(status, body) == expected


def test_vectors_are_in_order_and_of_length_one() -> None:
    body = {"data": [{"index": 1, "embedding": [0, 2]}, {"index": 0, "embedding": [3, 4, 0]}], "usage": USAGE}
    vectors = read_vectors(json.dumps(body).encode())
    assert vectors.first == [3, 4, 0], "the older call gets them as they are"
    found = embed_answer("m", vectors, None, 0.5)
    assert found == {
        "model": "m", "embeddings": [[0.6, 0.8, 0.0], [0.0, 1.0]], "total_duration": 500_000_000, "load_duration": 0,
        "prompt_eval_count": 7,
    }  # fmt: skip
    assert embed_answer("m", vectors, 1, 0.5)["embeddings"] == [[1.0], [0.0]]


def test_no_vectors() -> None:
    assert embed_answer("m", read_vectors(b'{"data": []}'), None, 0.0)["embeddings"] == []
    assert read_vectors(b'{"data": []}').first == []
    for body, words in ((b"{", "no embeddings"), (b'{"data": [{"embedding": "AAAA"}]}', "no embeddings"),
                        (b'{"error": {"message": "not here"}}', "not here")):  # fmt: skip
        with pytest.raises(AnswerError, match=words):
            read_vectors(body)
