"""What an answer says that it used, however its bytes are cut."""

import json
import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from garrison.gateway.paths import uses_tokens
from garrison.gateway.usage import UsageReader, estimate

SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"
USAGE = {
    "prompt_tokens": 11,
    "completion_tokens": 31,
    "total_tokens": 42,
    "prompt_tokens_details": {"cached_tokens": 8},
}
TEXT = "Grüße aus dem Süden, and 41 more letters here."
FILLER = {"data": [{"embedding": [0.25] * 1000, "index": at} for at in range(100)]}


def events(*found: Any, end: str = "\n\n") -> bytes:
    return "".join(f"data: {one if isinstance(one, str) else json.dumps(one)}{end}" for one in found).encode()


def delta(text: str, **more: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}], **more}


def named(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields}, ensure_ascii=False)}\n\n"


ANTHROPIC_BEGIN = named(
    "message_start",
    message={
        "role": "assistant", "content": [],
        "usage": {"input_tokens": 9, "cache_read_input_tokens": 100, "output_tokens": 1},
    },
)  # fmt: skip
ANTHROPIC_TEXT = "".join(
    named("content_block_delta", index=0, delta={"type": "text_delta", "text": text}) for text in ("Hel", "lo there")
)
ANTHROPIC_END = named("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 30})
COMPLETED = {"type": "response.completed", "response": {"usage": {"input_tokens": 5, "output_tokens": 6}}}

# name: content type, body, tokens of the request by estimate, tokens in all
ANSWERS: dict[str, tuple[str, bytes, int, int]] = {
    "json": (JSON, json.dumps({"choices": [{"message": {"content": TEXT}}], "usage": USAGE}).encode(), 99, 42),
    "json-without-total": (JSON, b'{"usage": {"input_tokens": 7, "output_tokens": 8}}', 99, 15),
    "json-without-usage": (JSON, json.dumps({"choices": [{"message": {"content": "x" * 41}}]}).encode(), 5, 16),
    "json-with-null": (JSON, b'{"usage": null, "content": [{"type": "text", "text": "12345678"}]}', 5, 7),
    "json-of-umlauts": (JSON, json.dumps({"text": "ü" * 10}).encode(), 0, 5),
    "embedding": (JSON, b'{"data": [{"embedding": [0.5, 1]}], "usage": {"total_tokens": 3}}', 99, 3),
    "large-usage-last": (JSON, json.dumps({**FILLER, "usage": USAGE}).encode(), 99, 42),
    "large-usage-first": (JSON, json.dumps({"usage": USAGE, **FILLER}).encode(), 99, 42),
    "large-without": (JSON, json.dumps(FILLER).encode(), 5, 5),
    "large-text-of-usage": (JSON, json.dumps({**FILLER, "text": '"usage": {"total_tokens": 9}'}).encode(), 5, 5),
    "not-json": (JSON, b'{"usage": {"total_tokens": 5', 5, 5),
    "deep": (JSON, b"[" * 100_000, 5, 5),
    "strange-usage": (JSON, b'{"usage": {"total_tokens": -4, "prompt_tokens": "9", "completion_tokens": true}}', 5, 5),
    "usage-of-another-kind": (JSON, b'{"usage": [1], "message": {"usage": 5}, "response": []}', 5, 5),
    "stream": (SSE, events(delta("Hi"), delta(" you"), {"choices": [], "usage": USAGE}, "[DONE]"), 99, 42),
    "stream-crlf": (SSE, events(delta("Hi"), {"choices": [], "usage": USAGE}, "[DONE]", end="\r\n\r\n"), 99, 42),
    "stream-without": (SSE, events(delta("x" * 20), delta("y" * 21), "[DONE]"), 5, 16),
    "stream-null-usage": (SSE, events(delta("x" * 20, usage=None), delta("y" * 20, usage=None)), 5, 15),
    "stream-of-completions": (SSE, events({"choices": [{"text": "x" * 8}]}, {"choices": [{"text": "y" * 8}]}), 5, 9),
    "stream-of-calls": (
        SSE, events({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": "x" * 8}}]}}]}), 5, 7,
    ),
    "continuous-usage": (
        SSE, events(*({"choices": [], "usage": {"prompt_tokens": 2, "total_tokens": 2 + at}} for at in range(5))), 9, 6,
    ),
    "usage-that-shrinks": (SSE, events({"usage": USAGE}, {"usage": {"total_tokens": 0}}), 9, 42),
    "no-blank-line-at-the-end": (SSE, events({"usage": USAGE}).rstrip(), 99, 42),
    "comments": (SSE, b': "usage": {"total_tokens": 9}\n\n: ping\n\n' + events({"usage": USAGE}), 99, 42),
    "anthropic": (SSE, (ANTHROPIC_BEGIN + ANTHROPIC_TEXT + ANTHROPIC_END).encode(), 99, 139),
    "anthropic-cut-off": (SSE, (ANTHROPIC_BEGIN + ANTHROPIC_TEXT).encode(), 99, 112),
    "responses": (SSE, events({"type": "response.output_text.delta", "delta": "Hi"}, COMPLETED), 99, 11),
    "llama-cpp": (
        SSE, events({"content": "a", "tokens_predicted": 1, "tokens_evaluated": 4},
                    {"content": "", "stop": True, "tokens_predicted": 2, "tokens_evaluated": 4}), 99, 6,
    ),
    "event-too-large": (SSE, events(delta("x" * 8), "z" * 2**20, delta("y" * 8)), 5, 7),
    "audio": ("audio/mpeg", b"\xff\xfb\x90" * 100, 5, 5),
    "plain": ("text/plain", b"x" * 8, 5, 7),
    "nothing": ("", b"", 5, 5),
}  # fmt: skip


def read(kind: str, pieces: list[bytes], asked: int) -> int:
    reader = UsageReader(kind, asked)
    for piece in pieces:
        reader.feed(piece)
    reader.close()
    return reader.tokens


@pytest.mark.parametrize("name", ANSWERS)
def test_tokens_of_an_answer(name: str) -> None:
    kind, body, asked, tokens = ANSWERS[name]
    assert read(kind, [body], asked) == tokens


@given(st.sampled_from(sorted(ANSWERS)), st.lists(st.integers(0, 2**21), max_size=12))
@example("stream-crlf", list(range(1, 300)))
@example("anthropic", list(range(1, 900)))
def test_any_split_gives_the_same(name: str, cuts: list[int]) -> None:
    kind, body, asked, tokens = ANSWERS[name]
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    pieces = [body[begin:end] for begin, end in pairwise(places)]
    assert read(kind, pieces, asked) == tokens


@given(st.sampled_from([SSE, JSON, "text/plain", "", "audio/mpeg"]), st.lists(st.binary(max_size=200), max_size=6))
def test_nothing_that_an_engine_sends_raises(kind: str, pieces: list[bytes]) -> None:
    assert read(kind, pieces, 3) >= 3
    assert read(kind, pieces, 3) == read(kind, [b"".join(pieces)], 3)


PARTS = [b"data: ", b"data:", b"event: x", b": ", b"\r", b"\n", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b'{"usage": ', b"}",
         b'{"total_tokens": 7}', b'{"content": "', b"text", b'"}', b"[DONE]", b"\xff"]  # fmt: skip


@given(st.lists(st.sampled_from(PARTS), max_size=40), st.sampled_from([SSE, JSON]))
def test_nor_does_the_split_of_what_is_malformed_matter(pieces: list[bytes], kind: str) -> None:
    assert read(kind, pieces, 3) == read(kind, [b"".join(pieces)], 3)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["usage", "message", "content", "response", "total_tokens"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(VALUES)
def test_nor_does_any_document(found: object) -> None:
    body = json.dumps(found)
    assert read(JSON, [body.encode()], 0) >= 0
    assert read(SSE, [f"data: {body}\n\n".encode()], 0) >= 0
    assert estimate(body.encode(), JSON) >= 0


def test_a_stream_is_counted_while_it_passes() -> None:
    reader = UsageReader(SSE, 5)
    seen = []
    for text in ("x" * 8, "y" * 8, "z" * 8):
        reader.feed(events(delta(text)))
        seen.append(reader.tokens)
    assert seen == [7, 9, 11]


@pytest.mark.parametrize(("kind", "piece"), [(JSON, b'{"text": "' + b"x" * 60_000), (SSE, b"data: " + b"x" * 60_000)])
def test_memory_is_bounded(kind: str, piece: bytes) -> None:
    reader = UsageReader(kind)
    tracemalloc.start()
    for _ in range(500):
        reader.feed(piece)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4 * 2**20, "30 MB passed"


@pytest.mark.parametrize(
    ("body", "kind", "tokens"),
    [
        ({"model": "a-long-name-of-a-model", "messages": [{"role": "user", "content": "x" * 9}]}, JSON, 3),
        ({"messages": [{"content": [{"type": "text", "text": "x" * 8}, {"image_url": {"url": "d" * 99}}]}]}, JSON, 2),
        ({"prompt": [[1, 2, 3], [4, 5]]}, JSON, 5),
        ({"input": ["x" * 4, "y" * 4]}, "", 2),
        ({"query": "x" * 4, "documents": ["y" * 4, {"text": "z" * 4}]}, JSON, 3),
        ({"prompt": "x" * 99}, "multipart/form-data; boundary=x", 0),
        ({}, JSON, 0),
        ([], JSON, 0),
    ],
)  # fmt: skip
def test_a_request_is_estimated_by_its_text(body: Any, kind: str, tokens: int) -> None:
    assert estimate(json.dumps(body).encode(), kind) == tokens


def test_an_empty_request_has_no_tokens() -> None:
    assert estimate(b"", "") == 0


@pytest.mark.parametrize(
    ("method", "path", "uses"),
    [
        ("POST", "/v1/chat/completions", True),
        ("POST", "/completion", True),
        ("POST", "/v1/embeddings", True),
        ("POST", "/v1/messages", True),
        ("POST", "/v1/messages/count_tokens", False),
        ("POST", "/v1/tokenize", False),
        ("POST", "/detokenize", False),
        ("POST", "/apply-template", False),
        ("POST", "/v1/responses", True),
        ("POST", "/v1/responses/resp_1/cancel", False),
        ("GET", "/v1/responses/resp_1", False),
        ("GET", "/props", False),
    ],
)
def test_requests_that_no_model_works_on_use_nothing(method: str, path: str, uses: bool) -> None:
    assert uses_tokens(method, path) is uses
