"""Messages, images, tools and calls of tools on their way to an engine."""

import base64
import json
from typing import Any

import msgspec
import pytest

from garrison.base.errors import InvalidError
from garrison.gateway.ollama.translation.bodies import Message
from garrison.gateway.ollama.translation.messages import image_url, openai_messages, openai_tools

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"\0" * 20).decode()


def translated(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return openai_messages(msgspec.convert(list(messages), list[Message]))


def call(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"function": {"name": name, "arguments": arguments}, **more}


def test_texts() -> None:
    assert translated({"role": "System", "content": "be brief"}, {"role": "user", "content": "hi"}) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
    ]
    assert translated({"role": "user", "content": None}, {"role": "assistant"}) == [
        {"role": "user", "content": ""},
        {"role": "assistant", "content": ""},
    ]


def test_what_a_model_thought_has_both_names() -> None:
    (found,) = translated({"role": "assistant", "content": "4", "thinking": "2+2"})
    assert found == {"role": "assistant", "content": "4", "reasoning": "2+2", "reasoning_content": "2+2"}


def test_images_are_parts_of_the_content() -> None:
    (found,) = translated({"role": "user", "content": "what is this?", "images": [PNG, PNG]})
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}
    assert found == {"role": "user", "content": [{"type": "text", "text": "what is this?"}, url, url]}
    (found,) = translated({"role": "user", "content": "", "images": [PNG]})
    assert found["content"] == [url]


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "jpeg"),
        (b"GIF89a", "gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "webp"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "jpeg"),
        (b"BM6\0", "bmp"),
        (b"what else", "jpeg"),
        (b"x", "jpeg"),
    ],
)
def test_the_format_of_an_image_is_in_its_first_bytes(start: bytes, kind: str) -> None:
    text = base64.b64encode(start + b"\0" * (0 if len(start) < 3 else 20)).decode()
    assert image_url(text) == f"data:image/{kind};base64,{text}"


def test_an_image_that_is_none() -> None:
    assert image_url("data:image/png;base64,AAAA") == "data:image/png;base64,AAAA"
    for text in ("/home/me/cat.png", "not base64!!", "ü"):
        with pytest.raises(InvalidError, match="not base64"):
            image_url(text)


def test_calls_get_ids_and_arguments_as_text() -> None:
    found = translated(
        {"role": "assistant", "tool_calls": [call("add", {"a": 1, "b": "ü"}), call("now", None), call("raw", "{}")]},
        {"role": "tool", "content": "3"},
        {"role": "tool", "content": "noon", "tool_name": "now"},
        {"role": "tool", "content": "x", "tool_call_id": "call_2"},
    )
    calls = found[0]["tool_calls"]
    assert [one["id"] for one in calls] == ["call_0", "call_1", "call_2"]
    assert all(one["type"] == "function" for one in calls)
    assert [json.loads(one["function"]["arguments"]) for one in calls] == [{"a": 1, "b": "ü"}, {}, {}]
    assert [one["tool_call_id"] for one in found[1:]] == ["call_0", "call_1", "call_2"]
    assert found[2]["name"] == "now"


def test_results_belong_to_the_call_of_their_tool() -> None:
    found = translated(
        {"role": "assistant", "tool_calls": [call("a", {}), call("b", {}), call("a", {})]},
        {"role": "tool", "content": "1", "tool_name": "b"},
        {"role": "tool", "content": "2", "tool_name": "a"},
        {"role": "tool", "content": "3", "tool_name": "a"},
    )
    assert [one["tool_call_id"] for one in found[1:]] == ["call_1", "call_0", "call_2"]


def test_ids_of_the_client_are_kept() -> None:
    found = translated(
        {"role": "assistant", "tool_calls": [call("a", {}, id="x1"), call("b", {})]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
    )
    assert [one["id"] for one in found[0]["tool_calls"]] == ["x1", "call_1"]
    assert [one["tool_call_id"] for one in found[1:]] == ["x1", "call_1"]


def test_a_result_without_a_call_still_has_an_id() -> None:
    assert translated({"role": "tool", "content": "1"})[0]["tool_call_id"] == "call_0"
    assert translated({"role": "tool", "content": "1", "tool_call_id": "far"})[0]["tool_call_id"] == "far"


def test_arguments_that_are_no_object() -> None:
    with pytest.raises(InvalidError, match="arguments of the call of 'a' are no object"):
        translated({"role": "assistant", "tool_calls": [call("a", [1])]})


def test_tools_have_a_type() -> None:
    function = {"name": "add", "parameters": {"type": "object"}}
    assert openai_tools([{"function": function}, {"type": "function", "function": function}]) == [
        {"type": "function", "function": function},
        {"type": "function", "function": function},
    ]
