"""Forms with other fields: what is asked for changes, and no other byte."""

from email import message_from_bytes
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.requests.changed_form import changed_form
from garrison.gateway.requests.multipart import form_model
from garrison.gateway.requests.rewrite import Rewrite, rewrite

TYPE = "multipart/form-data; boundary=XX"


def part(name: str, content: bytes, more: str = "") -> bytes:
    return f'--XX\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + content + b"\r\n"


def form(*parts: bytes, model: str = "m") -> bytes:
    return b"".join(parts) + part("model", model.encode()) + b"--XX--\r\n"


def changed(body: bytes, change: Rewrite) -> bytes:
    return changed_form(body, form_model(body, TYPE), change)


def read(body: bytes) -> list[tuple[str, bytes]]:
    """Names and contents, read with the email package."""
    found = message_from_bytes(f"Content-Type: {TYPE}\r\n\r\n".encode() + body)
    return [
        (str(one.get_param("name", header="content-disposition")), bytes(one.get_payload(decode=True)))  # type: ignore[union-attr, arg-type]  # messages
        for one in found.get_payload()
    ]


FILE = part("file", b"RIFF\r\n\0", '; filename="a.wav"\r\nContent-Type: audio/wav')

CHANGES: dict[str, tuple[bytes, dict[str, Any], bytes]] = {
    "a field that is there": (
        form(part("language", b"de"), FILE),
        {"set": {"language": "en"}},
        form(part("language", b"en"), FILE),
    ),
    "a field that is there twice": (
        form(part("language", b"de"), FILE, part("language", b"fr")),
        {"set": {"language": "en"}},
        form(part("language", b"en"), FILE, part("language", b"en")),
    ),
    "a field that is new": (
        form(FILE),
        {"set": {"temperature": 0.5, "stream": True}},
        form(FILE)[: -len(b"--XX--\r\n")] + part("temperature", b"0.5") + part("stream", b"true") + b"--XX--\r\n",
    ),
    "null": (form(part("prompt", b"x"), FILE), {"set": {"prompt": None}}, form(FILE)),
    "null, and not there": (form(FILE), {"set": {"prompt": None}}, form(FILE)),
    "without": (form(part("prompt", b"x"), FILE, part("prompt", b"y")), {"strip": ["prompt"]}, form(FILE)),
    "set and without": (form(part("a", b"x")), {"set": {"a": "y"}, "strip": ["a"]}, form(part("a", b"y"))),
    "an empty field": (form(part("a", b"")), {"set": {"a": "y"}}, form(part("a", b"y"))),
    "the model": (form(FILE), {"model": "n/é"}, form(FILE, model="n/é")),
    "the model and a field": (form(part("a", b"1")), {"model": "n", "strip": ["a"]}, form(model="n")),
    "text with line breaks": (form(part("a", b"1")), {"set": {"a": "x\r\ny"}}, form(part("a", b"x\r\ny"))),
    "a preamble and an epilogue": (
        b"hello\r\n" + form(part("a", b"1")) + b"bye",
        {"strip": ["a"]},
        b"hello\r\n" + form() + b"bye",
    ),
}


@pytest.mark.parametrize(("body", "change", "expected"), CHANGES.values(), ids=CHANGES.keys())
def test_changed(body: bytes, change: dict[str, Any], expected: bytes) -> None:
    assert changed(body, rewrite(**change)) == expected


@pytest.mark.parametrize(
    ("body", "change", "said"),
    [
        (form(), {"set": {"a": [1]}}, "`a` to a list"),
        (form(), {"set": {"a": {}}}, "`a` to an object"),
        (form(), {"set": {"a": "XX"}}, "another boundary"),
        (form(), {"set": {"a b": "x"}}, "cannot be written"),
        (form(), {"set": {"é": "x"}}, "cannot be written"),
        (form(FILE), {"set": {"file": "x"}}, "`file` of the form is a file"),
        (form(FILE), {"strip": ["file"]}, "`file` of the form is a file"),
    ],
)
def test_refused(body: bytes, change: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidError) as raised:
        changed(body, rewrite(**change))
    assert said in f"{raised.value.message} {raised.value.hint}"


_CONTENT = st.binary(max_size=20).filter(lambda one: b"--XX" not in one)
_FIELDS = st.lists(st.tuples(st.sampled_from(["a", "b", "c", "language"]), _CONTENT), max_size=6)


@given(_FIELDS, st.binary(max_size=40).filter(lambda one: b"--XX" not in one), st.booleans())
def test_any_form(fields: list[tuple[str, bytes]], content: bytes, renames: bool) -> None:
    file = part("file", content, '; filename="x"')
    body = form(*(part(name, value) for name, value in fields), file)
    change = rewrite(model="new" if renames else "", set={"a": "A", "d": 1}, strip=["b"])
    done = changed(body, change)
    kept = [(name, b"A" if name == "a" else value) for name, value in fields if name != "b"]
    new = [] if any(name == "a" for name, _ in fields) else [("a", b"A")]
    model = b"new" if renames else b"m"
    made = form_model(done, TYPE)
    assert made.name == model.decode()
    assert done == b"".join(
        [*(part(name, value) for name, value in kept), file, part("model", model)]
        + [part(name, value) for name, value in [*new, ("d", b"1")]]
        + [b"--XX--\r\n"]
    )


def test_another_parser_reads_what_was_written() -> None:
    done = changed(form(part("a", b"1"), FILE), rewrite(model="n", set={"a": "x", "b": 2}))
    assert read(done) == [("a", b"x"), ("file", b"RIFF\r\n\0"), ("model", b"n"), ("b", b"2")]
