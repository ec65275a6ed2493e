"""Streams: server-sent events in, lines of JSON out, whatever pieces they arrive in."""

import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.gateway.ollama.translation.objects import Form
from garrison.gateway.ollama.translation.stream import StreamTranslator

BEGAN = datetime(2026, 5, 4, tzinfo=UTC)
DONE = b"data: [DONE]\n\n"


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    said = {} if content is None else {"content": content}
    return event(choices=[{"index": 0, "delta": {**said, **more}, "finish_reason": finish}])


def usage(prompt: int, answer: int) -> bytes:
    return event(choices=[], usage={"prompt_tokens": prompt, "completion_tokens": answer})


def tool(index: int | None, name: str | None, arguments: str, id: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": name} if name else {})
    return {"function": function} | ({} if index is None else {"index": index}) | ({"id": id} if id else {})


def lines(*pieces: bytes, chat: bool = True, end: bool = True) -> list[dict[str, Any]]:
    translator = StreamTranslator(Form("m", chat, BEGAN), 0.25)
    out = [translator.feed(piece, 1.0 + at) for at, piece in enumerate(pieces)]
    if end:
        out.append(translator.end(1.0 + len(pieces)))
    text = b"".join(out).decode()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


OPENING = delta("", role="assistant")
WHOLE = OPENING + delta("Hel") + delta("lo") + delta("", "stop") + usage(7, 2) + DONE


def test_a_stream() -> None:
    found = lines(OPENING, delta("Hel"), delta("lo"), delta("", "length"), usage(7, 2), DONE)
    assert found == [
        {"model": "m", "created_at": "2026-05-04T00:00:02.000000Z",
         "message": {"role": "assistant", "content": "Hel"}, "done": False},
        {"model": "m", "created_at": "2026-05-04T00:00:03.000000Z",
         "message": {"role": "assistant", "content": "lo"}, "done": False},
        {"model": "m", "created_at": "2026-05-04T00:00:06.000000Z",
         "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "length",
         "total_duration": 6_000_000_000, "load_duration": 250_000_000,
         "prompt_eval_count": 7, "prompt_eval_duration": 1_750_000_000,
         "eval_count": 2, "eval_duration": 4_000_000_000},
    ]  # fmt: skip


def test_a_generation() -> None:
    found = lines(WHOLE, chat=False)
    assert [one["response"] for one in found] == ["Hel", "lo", ""]
    found = lines(event(choices=[{"index": 0, "text": "a", "finish_reason": "stop"}]) + DONE, chat=False)
    assert [(one["response"], one["done"]) for one in found] == [("a", False), ("", True)]


def test_thoughts_come_before_words() -> None:
    found = lines(delta(None, reasoning="hm"), delta(None, reasoning_content="m"), delta("4", "stop"), DONE)
    assert [(one["message"].get("thinking"), one["message"]["content"]) for one in found] == [
        ("hm", ""), ("m", ""), (None, "4"), (None, ""),
    ]  # fmt: skip


def test_a_call_of_a_tool_is_told_once_it_is_complete() -> None:
    found = lines(
        delta("I will."),
        delta(tool_calls=[tool(0, "add", "", "c1")]),
        delta(tool_calls=[tool(0, None, '{"a":')]),
        delta(tool_calls=[tool(0, None, "1}")]),
        delta(tool_calls=[tool(1, "now", "{}", "c2")]),
        delta(None, "tool_calls"),
        DONE,
    )
    told = [one["message"].get("tool_calls") for one in found]
    first = {"id": "c1", "function": {"index": 0, "name": "add", "arguments": {"a": 1}}}
    second = {"id": "c2", "function": {"index": 1, "name": "now", "arguments": {}}}
    assert told == [None, [first], [second], None]
    assert found[-1]["done_reason"] == "stop"


def test_calls_that_an_engine_does_not_number() -> None:
    by_id = [tool(None, "a", "{}", "x"), tool(None, None, "", "x"), tool(None, "a", '{"n":1}', "y")]
    by_name = [tool(None, "a", "{}"), tool(None, "a", '{"n":1}')]
    for calls in (by_id, by_name):
        found = lines(delta(tool_calls=calls), delta(None, "tool_calls"), DONE)
        arguments = [call["function"]["arguments"] for one in found for call in one["message"].get("tool_calls", ())]
        assert arguments == [{}, {"n": 1}]


def test_a_stream_that_ends_without_a_reason_but_says_that_it_ends() -> None:
    found = lines(delta("a", tool_calls=[tool(0, "f", "{}")]), DONE)
    assert found[-1]["done_reason"] == "stop"
    assert found[-1]["message"]["tool_calls"] == [{"function": {"index": 0, "name": "f", "arguments": {}}}]


def test_a_stream_that_says_why_it_ends_but_not_that_it_does() -> None:
    assert lines(delta("a", "stop"))[-1]["done"] is True


@pytest.mark.parametrize("cut", [b"", OPENING, OPENING + delta("Hel"), OPENING + b'data: {"choices"'])
def test_a_stream_that_is_cut_off_ends_with_an_error(cut: bytes) -> None:
    found = lines(cut)
    assert found[-1] == {"error": "the engine's answer ended before it was complete"}
    assert not any(one.get("done") for one in found)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (event(error={"message": "out of memory", "code": 500}), "out of memory"),
        (event(object="error", message="out of memory"), "out of memory"),
        (delta(None, "abort"), "ended the answer before it was complete"),
        (b"data: {\n\n", "no completion"),
        (b"data: []\n\n", "no completion"),
        (b"data: \xff\n\n", "no completion"),
        (delta(tool_calls=[tool(0, "f", "[1]")]) + delta(None, "tool_calls"), "arguments that are no JSON object"),
        (delta(tool_calls=[tool(n, "f", "{}") for n in range(300)]), "more than 256 tools"),
        (b"data: " + b"x" * (5 * 1024 * 1024), "an event is larger than"),
        (b"".join(delta(tool_calls=[tool(0, "f", "x" * 1024 * 1024)]) for _ in range(5)), "are too long"),
    ],
)
def test_an_error_in_the_middle_is_the_last_line(broken: bytes, words: str) -> None:
    found = lines(OPENING + delta("Hel"), broken, delta("lo", "stop"), DONE)
    assert found[0]["message"]["content"] == "Hel"
    assert words in found[-1]["error"]
    assert len(found) == 2, "nothing follows"


def test_comments_and_other_choices_say_nothing() -> None:
    other = event(choices=[{"index": 1, "delta": {"content": "other"}, "finish_reason": "stop"}])
    found = lines(b": ping\n\n", other, delta("a", "stop"), DONE + delta("late"))
    assert [one["message"]["content"] for one in found] == ["a", ""]


def test_an_answer_that_came_all_at_once_still_took_some_time() -> None:
    found = lines(WHOLE)[-1]
    assert (found["prompt_eval_duration"], found["eval_duration"]) == (0, 750_000_000)


def test_timings_of_the_engine() -> None:
    found = lines(delta("a", "stop") + event(choices=[], timings={"prompt_ms": 10, "predicted_ms": 20}) + DONE)
    assert (found[-1]["prompt_eval_duration"], found[-1]["eval_duration"]) == (10_000_000, 20_000_000)


_texts = st.text(max_size=12)
_deltas = st.one_of(
    st.builds(delta, _texts),
    st.builds(lambda text: delta(None, reasoning=text), _texts),
    st.builds(
        lambda index, name, text: delta(tool_calls=[tool(index, name, text)]),
        st.one_of(st.none(), st.integers(0, 2)),
        st.one_of(st.none(), st.just("f")),
        st.sampled_from(["{}", "", '{"a":']),
    ),
    st.just(b": ping\n\n"),
    st.just(b"event: x\r\n"),
    st.builds(usage, st.integers(0, 9), st.integers(0, 9)),
)  # fmt: skip
_ends = st.sampled_from(
    [delta(None, "stop") + DONE, delta(None, "length"), DONE, b"", event(error="x"), b"data: {\n\n"]
)


@given(st.lists(_deltas, max_size=8), _ends, st.lists(st.integers(0, 2000), max_size=12))
def test_lines_do_not_depend_on_how_the_bytes_were_split(parts: list[bytes], last: bytes, cuts: list[int]) -> None:
    data = b"".join(parts) + last
    at = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[a:b] for a, b in pairwise(at)]

    def told(*some: bytes) -> list[dict[str, Any]]:
        translator = StreamTranslator(Form("m", True, BEGAN), 0.0)
        text = b"".join([translator.feed(piece, 1.0) for piece in some]) + translator.end(1.0)
        return [json.loads(line) for line in text.splitlines()]

    whole = told(data)
    assert told(*pieces) == whole
    assert told(*[data[n : n + 1] for n in range(len(data))]) == whole
    assert ("error" in whole[-1]) != bool(whole[-1].get("done"))
    assert all(one["done"] is False for one in whole[:-1])
    said = [json.loads(part[6:])["choices"][0]["delta"].get("content") or "" for part in parts if b'"delta"' in part]
    if "error" not in whole[-1]:
        assert "".join(one["message"]["content"] for one in whole) == "".join(said)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_whatever_an_engine_sends_ends_in_one_last_line(pieces: list[bytes]) -> None:
    translator = StreamTranslator(Form("m", True, BEGAN), 0.0)
    text = b"".join([translator.feed(piece, 1.0) for piece in pieces]) + translator.end(1.0)
    found = [json.loads(line) for line in text.splitlines()]
    assert "error" in found[-1] or found[-1]["done"]
    assert translator.over
    assert translator.feed(b"data: more\n\n", 2.0) == translator.end(2.0) == translator.fail("x") == b""
