"""The fields that the gateway reads from JSON bodies, and the bodies that it refuses."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.requests.body_fields import MoreFields, read_fields, read_more_fields

NAMED: dict[str, tuple[bytes, str]] = {
    "plain": (b'{"model":"a"}', "a"),
    "blanks around everything": (b'\r\n\t {\n"model"\t:\r"a"\n}\n ', "a"),
    "last": (b'{"messages":[{"role":"user","content":"hi"}],"model":"a/b:7b"}', "a/b:7b"),
    "twice": (b'{"model":"a","model":"b"}', "b"),
    "twice, the first with another type": (b'{"model":1,"model":"b"}', "b"),
    "an escaped name": (b'{"\\u006dode\\u006C":"a"}', "a"),
    "an escaped name after a plain one": (b'{"model":"a","\\u006dodel":"b"}', "b"),
    "an escaped value": (b'{"model":"\\u00e9\\ud83d\\ude00\\/"}', "é😀/"),
    "nested ones": (b'{"x":{"model":"no"},"model":"a","y":[{"model":"no"}]}', "a"),
    "one in a prompt": (b'{"prompt":"\\"model\\":\\"no\\"","model":"a"}', "a"),
    "another case": (b'{"Model":"no","model":"a","MODEL":"no"}', "a"),
    "a byte order mark": (b'\xef\xbb\xbf{"model":"a"}', "a"),
    "broken UTF-8 in a prompt": (b'{"prompt":"\xff","model":"a"}', "a"),
    "broken UTF-8 in another name": (b'{"model":"a","\xffmodel":"b"}', "a"),
    "unusual types elsewhere": (b'{"model":"a","stream":[],"stream_options":7}', "a"),
}


@pytest.mark.parametrize(("body", "model"), NAMED.values(), ids=NAMED.keys())
def test_model(body: bytes, model: str) -> None:
    assert read_fields(body).model == model


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no valid JSON"),
    "text": (b"hello", "no valid JSON"),
    "an array": (b'["model","a"]', "no JSON object"),
    "null": (b"null", "no JSON object"),
    "no model": (b'{"messages":[]}', "names no model"),
    "an empty model": (b'{"model":""}', "names no model"),
    "a number": (b'{"model":7}', "is no string"),
    "null as model": (b'{"model":null}', "is no string"),
    "an object as model": (b'{"model":{"model":"a"}}', "is no string"),
    "a string, then a number": (b'{"model":"a","model":7}', "is no string"),
    "only nested": (b'{"x":{"model":"a"}}', "names no model"),
    "more after it": (b'{"model":"a"}{"model":"b"}', "no valid JSON"),
    "a zero byte after it": (b'{"model":"a"}\0', "no valid JSON"),
    "cut short": (b'{"model":"a"', "no valid JSON"),
    "a comment": (b'{"model":"a"/**/}', "no valid JSON"),
    "a comma too many": (b'{"model":"a",}', "no valid JSON"),
    "NaN": (b'{"model":"a","x":NaN}', "no valid JSON"),
    "a raw line break": (b'{"model":"a\nb"}', "no valid JSON"),
    "broken UTF-8": (b'{"model":"\xff"}', "no string"),
    "half of a surrogate pair": (b'{"model":"\\ud800"}', "no valid JSON"),
    "UTF-16": ('{"model":"a"}'.encode("utf-16"), "no valid JSON"),
    "nested deeply": (b'{"model":"a","x":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "no valid JSON"),
    "opened deeply": (b'{"x":' * 200_000, "no valid JSON"),
    "deep stream options": (b'{"model":"a","stream_options":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "valid JSON"),
}


@pytest.mark.parametrize(("body", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(body: bytes, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason) as raised:
        read_fields(body)
    assert raised.value.http_status == 400
    assert raised.value.hint


@pytest.mark.parametrize(
    ("text", "stream", "usage"),
    [
        ("{}", None, False),
        ('{"stream":true}', True, False),
        ('{"stream":false}', False, False),
        ('{"stream":null}', None, False),
        ('{"stream":"true"}', True, False),
        ('{"stream":1}', True, False),
        ('{"stream":"perhaps"}', None, False),
        ('{"stream":true,"stream_options":{"include_usage":true}}', True, True),
        ('{"stream":true,"stream_options":{"x":[1],"include_usage":true}}', True, True),
        ('{"stream":true,"stream_options":{"include_usage":false}}', True, False),
        ('{"stream":true,"stream_options":{"include_usage":null}}', True, False),
        ('{"stream":true,"stream_options":null}', True, False),
        ('{"stream":true,"stream_options":[true]}', True, False),
        ('{"stream":1,"stream_options":{"include_usage":"true"}}', True, True),
        ('{"x":{"stream":true}}', None, False),
    ],
)
def test_stream(text: str, stream: bool | None, usage: bool) -> None:
    found = read_fields(('{"model":"a",' + text[1:]).replace(",}", "}").encode())
    assert (found.stream, found.wants_usage) == (stream, usage)


def test_more_fields() -> None:
    body = {"model": "a", "user": "u", "max_tokens": 5, "n": 2, "priority": -1, "prompt_cache_key": "k", "x": []}
    assert read_more_fields(json.dumps(body).encode()) == MoreFields(
        user="u", max_tokens=5, n=2, priority=-1, prompt_cache_key="k"
    )
    odd: dict[str, Any] = {"model": "a", "user": 7, "max_tokens": "9", "n": None, "priority": {}}
    assert read_more_fields(json.dumps(odd).encode()) == MoreFields(max_tokens=9)
    assert read_more_fields(b'{"max_tokens":1,"max_completion_tokens":2}').most_tokens == 2
    with pytest.raises(InvalidError):
        read_more_fields(b"[]")


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["model", "stream", "stream_options", "x", "é"]), _VALUES), st.booleans())
def test_as_the_json_module_reads_it(content: dict[str, Any], ascii_only: bool) -> None:
    body = json.dumps(content, ensure_ascii=ascii_only).encode()
    model = content.get("model")
    if isinstance(model, str) and model:
        found = read_fields(body)
        assert found.model == model
        if isinstance(content.get("stream"), bool):
            assert found.stream is content["stream"]
    else:
        with pytest.raises(InvalidError):
            read_fields(body)


@given(st.binary() | st.binary().map(lambda noise: b'{"model":"a","x":' + noise + b"}"))
def test_no_bytes_raise_anything_else(body: bytes) -> None:
    try:
        found = read_fields(body)
    except InvalidError:
        return
    assert found.model == json.loads(body.decode("utf-8", "replace").removeprefix("\ufeff"))["model"]
