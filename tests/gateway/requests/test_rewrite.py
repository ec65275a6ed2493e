"""Bodies with other parameters: what is asked for changes, and no other byte."""

import itertools
import json
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.requests.rewrite import rewrite, rewritten

RENAMED: dict[str, tuple[str, str]] = {
    "first": ('{"model":"a","x":1.50}', '{"model":"new","x":1.50}'),
    "last, and numbers as they were": ('{"x":[1e5,-0.0],"model":"a"}', '{"x":[1e5,-0.0],"model":"new"}'),
    "blanks": ('\n{ "model" :\t"a" , "x":1 }\r\n', '\n{ "model" :\t"new" , "x":1 }\r\n'),
    "nested ones before": ('{"x":{"model":"a"},"model":"a"}', '{"x":{"model":"a"},"model":"new"}'),
    "nested ones after": ('{"model":"a","x":[{"model":"a"}]}', '{"model":"new","x":[{"model":"a"}]}'),
    "nested on both sides": (
        '{"x":{"model":"a"},"model":"a","y":{"model":"b"}}',
        '{"x":{"model":"a"},"model":"new","y":{"model":"b"}}',
    ),
    "one as a value": ('{"x":"model","model":"a"}', '{"x":"model","model":"new"}'),
    "one in a prompt": (r'{"p":"\"model\":\"a\"\\","model":"a"}', r'{"p":"\"model\":\"a\"\\","model":"new"}'),
    "an escaped name": (r'{"\u006dodel":"a","x":1}', r'{"\u006dodel":"new","x":1}'),
    "an escaped value": (r'{"model":"\u0061","x":"é"}', '{"model":"new","x":"é"}'),
    "brackets in strings": (r'{"x":["]}\"{["],"model":"a"}', r'{"x":["]}\"{["],"model":"new"}'),
    "a byte order mark": ('\ufeff{"model":"a"}', '\ufeff{"model":"new"}'),
    "first of another type": ('{"model":7,"model":"a"}', '{"model":"new","model":"new"}'),
}


@pytest.mark.parametrize(("body", "expected"), RENAMED.values(), ids=RENAMED.keys())
def test_renamed(body: str, expected: str) -> None:
    assert rewritten(body.encode(), rewrite(model="new"), "a").decode() == expected


def test_a_model_that_is_written_twice() -> None:
    for body in (b'{"model":"b","model":"a"}', rb'{"model":"b","\u006dodel":"a"}', rb'{"\u006dodel":"b","model":"a"}'):
        done = rewritten(body, rewrite(model="new"), "a")
        assert json.loads(done)["model"] == "new"
        assert len(json.loads(done, object_pairs_hook=list)) == 2


def test_a_name_is_encoded() -> None:
    assert json.loads(rewritten(b'{"model":"a"}', rewrite(model='é"\\'), "a")) == {"model": 'é"\\'}


def test_the_same_name_changes_nothing() -> None:
    body = b'{"x":{"model":"z"},"model":"a"}'
    assert rewritten(body, rewrite(model="a"), "a") is body
    assert rewritten(body, rewrite(), "a") is body
    assert rewritten(body, rewrite(strip=["temperature"]), "a") is body


@pytest.mark.parametrize("model_at", ["start", "middle", "end"])
def test_a_large_body_is_renamed_wherever_its_model_is(model_at: str) -> None:
    long = '{"role":"user","content":"' + 'say {\\"model\\": 1} ' * 2000 + '"}'
    parts = [f'"messages":[{long}]', f'"tools":[{long}]']
    parts.insert(["start", "middle", "end"].index(model_at), '"model": "a"')
    body = "{" + ", ".join(parts) + "}"
    assert rewritten(body.encode(), rewrite(model="b"), "a").decode() == body.replace('"model": "a"', '"model": "b"')


FILTERED: dict[str, tuple[str, str]] = {  # model -> m, top_k = 1, temperature and x removed
    "set, and one removed": ('{"model":"a","temperature":0.5}', '{"model":"m","top_k":1}'),
    "first removed": ('{"temperature":0.5, "model":"a"}', '{"model":"m","top_k":1}'),
    "in between": ('{"model":"a", "temperature":0.5 , "y":2}', '{"model":"m", "y":2,"top_k":1}'),
    "several in a row": ('{"model":"a","temperature":1,"x":2,"y":3}', '{"model":"m","y":3,"top_k":1}'),
    "the last ones": ('{"model":"a" ,"temperature":1, "x":{} }', '{"model":"m","top_k":1 }'),
    "apart": ('{"x":1,"model":"a","temperature":1}', '{"model":"m","top_k":1}'),
    "there already": ('{"top_k": 50, "model":"a"}', '{"top_k": 1, "model":"m"}'),
    "there twice": ('{"top_k":1,"model":"a","top_k":[2]}', '{"top_k":1,"model":"m","top_k":1}'),
    "removed twice": ('{"x":1,"model":"a","x":2}', '{"model":"m","top_k":1}'),
    "removed by an escaped name": (r'{"model":"a","\u0078":2}', '{"model":"m","top_k":1}'),
    "after a byte order mark": ('\ufeff{"x":1,"model":"a"}', '\ufeff{"model":"m","top_k":1}'),
    "nested ones stay": ('{"model":"a","y":{"x":1,"top_k":2}}', '{"model":"m","y":{"x":1,"top_k":2},"top_k":1}'),
}


@pytest.mark.parametrize(("body", "expected"), FILTERED.values(), ids=FILTERED.keys())
def test_filters(body: str, expected: str) -> None:
    change = rewrite(model="m", set={"top_k": 1}, strip=["temperature", "x"])
    assert rewritten(body.encode(), change, "a").decode() == expected


USAGE: dict[str, tuple[str, str]] = {
    "none": ('{"model":"a" }', '{"model":"a" ,"stream_options":{"include_usage":true}}'),
    "null": ('{"model":"a","stream_options":null}', '{"model":"a","stream_options":{"include_usage":true}}'),
    "empty": ('{"stream_options":{ },"model":"a"}', '{"stream_options":{ "include_usage":true},"model":"a"}'),
    "false": (
        '{"model":"a","stream_options":{"include_usage" : false,"x":[]}}',
        '{"model":"a","stream_options":{"include_usage" : true,"x":[]}}',
    ),
    "others stay": (
        '{"model":"a","stream_options":{"x":1.0}}',
        '{"model":"a","stream_options":{"x":1.0,"include_usage":true}}',
    ),
}


@pytest.mark.parametrize(("body", "expected"), USAGE.values(), ids=USAGE.keys())
def test_usage(body: str, expected: str) -> None:
    assert rewritten(body.encode(), rewrite(usage=True), "a").decode() == expected


def test_usage_goes_into_the_options_that_a_filter_sets() -> None:
    change = rewrite(set={"stream_options": {"x": 1}}, usage=True)
    for body in (b'{"model":"a"}', b'{"model":"a","stream_options":{"y":2}}'):
        assert json.loads(rewritten(body, change, "a"))["stream_options"] == {"x": 1, "include_usage": True}


def test_options_that_hold_a_model_are_not_mistaken_for_the_body() -> None:
    body = b'{"stream_options":{"model":"z"},"model":"a"}'
    done = rewritten(body, rewrite(model="b", usage=True), "a")
    assert json.loads(done) == {"stream_options": {"model": "z", "include_usage": True}, "model": "b"}


@pytest.mark.parametrize(
    "filters",
    [{"set": {"model": "x"}}, {"strip": ["model"]}, {"set": {"x": float("nan")}}, {"set": {"x": object()}}],
)
def test_filters_that_cannot_be(filters: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        rewrite(**filters)


# --- any object, written in any way

_BLANKS = st.text(" \t\n\r", max_size=2)
_SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False)
_TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\{}[],:'), max_size=12)


@st.composite
def _quoted(draw: st.DrawFn, texts: st.SearchStrategy[str] = _TEXTS) -> str:
    text = draw(texts)
    if draw(st.booleans()):
        return json.dumps(text, ensure_ascii=draw(st.booleans()))
    return '"' + "".join(f"\\u{ord(sign):04x}" if ord(sign) < 0x10000 else sign for sign in text) + '"'


def _container(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    item = st.tuples(_BLANKS, inner, _BLANKS).map("".join)
    member = st.tuples(_BLANKS, _quoted(), _BLANKS, st.just(":"), item).map("".join)
    return st.lists(item, max_size=4).map(lambda items: f"[{','.join(items)}]") | st.lists(member, max_size=4).map(
        lambda members: "{" + ",".join(members) + "}"
    )


_JSON = st.recursive(_SCALARS.map(json.dumps) | _quoted(), _container, max_leaves=40)
_NAMES = _quoted(st.sampled_from(["model", "top_k", "temperature", "stream_options", "x"]) | st.text(max_size=3))


@st.composite
def _bodies(draw: st.DrawFn) -> tuple[str, str]:
    """A body, and the model that counts."""
    others = draw(st.lists(st.tuples(_NAMES, _JSON), max_size=7))
    model = draw(st.sampled_from(["a", "a/b", "é", 'q"{']))
    at = draw(st.integers(0, len(others)))
    members = [*others[:at], (draw(_quoted(st.just("model"))), json.dumps(model)), *others[at:]]
    last = [value for name, value in members if json.loads(name) == "model"][-1]
    if not isinstance(json.loads(last), str) or not json.loads(last):
        members.append(('"model"', json.dumps(model)))
        last = json.dumps(model)
    blank = iter(draw(st.lists(_BLANKS, min_size=4 * len(members) + 2, max_size=4 * len(members) + 2)))
    text = ",".join(
        next(blank) + name + next(blank) + ":" + next(blank) + value + next(blank) for name, value in members
    )
    return next(blank) + "{" + text + "}" + next(blank), json.loads(last)


def _values(text: str) -> list[tuple[str, int, int]]:
    """Names, and where their values stand, found with the json module alone."""
    decoder, blank = json.JSONDecoder(), re.compile(r"[ \t\n\r]*")

    def after_blanks(at: int) -> int:
        found = blank.match(text, at)
        assert found is not None
        return found.end()

    at = after_blanks(0) + 1
    found = []
    while text[at := after_blanks(at)] != "}":
        name, at = decoder.raw_decode(text, at)
        start = after_blanks(text.index(":", at) + 1)
        _, end = decoder.raw_decode(text, start)
        found.append((name, start, end))
        at = after_blanks(end)
        at += text[at] == ","
    return found


@given(_bodies(), st.sampled_from(["", "new"]), st.booleans(), st.booleans(), st.booleans())
def test_any_object(body: tuple[str, str], name: str, sets: bool, strips: bool, usage: bool) -> None:
    text, model = body
    values = {"top_k": [1], "é": "x"} if sets else {}
    without = {"temperature", "x"} if strips else set()
    done = rewritten(text.encode(), rewrite(model=name, set=values, strip=[*without], usage=usage), model).decode()
    old = json.loads(text)
    expected = {key: value for key, value in (old | values).items() if key not in without}
    expected["model"] = name or model
    if usage:
        given_options = old.get("stream_options")
        options = given_options if isinstance(given_options, dict) else {}
        expected["stream_options"] = options | {"include_usage": True}
    assert json.loads(done) == expected
    touched = {"model", "stream_options", *values, *without}
    assert [(one, done[at:end]) for one, at, end in _values(done) if one not in touched] == [
        (one, text[at:end]) for one, at, end in _values(text) if one not in touched
    ]


@given(_bodies())
def test_another_model_leaves_every_other_byte(body: tuple[str, str]) -> None:
    text, model = body
    done = rewritten(text.encode(), rewrite(model="new"), model).decode()
    *before, last = [(at, end) for name, at, end in _values(text) if name == "model"]
    possible = set()
    for count in range(len(before) + 1):
        for some in itertools.combinations(before, count):
            wanted = text
            for at, end in reversed([*some, last]):
                wanted = wanted[:at] + '"new"' + wanted[end:]
            possible.add(wanted)
    assert done in possible


def test_a_body_of_brackets_is_refused_before_it_takes_long() -> None:
    body = b'{"model":"a","temperature":[' + b'[[[{"x":1}]]],' * 600_000 + b"1]}"
    begun = time.process_time()
    with pytest.raises(InvalidError, match="too many values"):
        rewritten(body, rewrite(strip=["temperature"]), "a")
    assert time.process_time() - begun < 5


@pytest.mark.parametrize(
    ("begin", "piece", "end"),
    [
        ("[", " ", "]"),
        ("[[", " ", "[]]]"),
        ('"', r"\"", '"'),
        ('"', r"\\", '"'),
        ("[", '"",', "1]"),
        ("[", "1,", "[[1]]]"),
        ("[", "[],", "[[1]]]"),
        ("[", '["x","y",[[]]],', "1]"),
        ("[", '{"a":["b",{"c":[{}]}]},', "1]"),
    ],
)
def test_the_time_grows_as_the_size_does(begin: str, piece: str, end: str) -> None:
    took = []
    for count in (4_000, 32_000):
        body = f'{{"model":"a","temperature":{begin}{piece * count}{end}}}'.encode()
        begun = time.process_time()
        assert rewritten(body, rewrite(strip=["temperature"]), "a") == b'{"model":"a"}'
        took.append(time.process_time() - begun)
    assert took[1] < 0.1 + 24 * took[0]
