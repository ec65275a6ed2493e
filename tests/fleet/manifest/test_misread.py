"""A name that YAML does not read as text is an error that shows the name as written, in its own place."""

import io
import json

import pytest

from garrison.base.errors import InvalidError
from garrison.fleet.manifest.load import load_declaration

READ = {
    "on": "true", "off": "false", "yes": "true", "no": "false", "Off": "false", "NO": "false", "true": "true",
    "null": "no value", "~": "no value", "012": "the number 10", "1_000": "the number 1000", "1:30": "the number 90",
    "0x10": "the number 16", ".5": "the number 0.5", "1.0e+3": "the number 1000.0", "7": "a number", "1.5": "a number",
    "2026-01-01": "a date", "2026-01-01 10:00:00": "a time",
}  # fmt: skip
TEXT = ("y", "n", "Y", "1e3", "08", "1.2.3", "nil", "none", "oN")


def load(text: str):
    return load_declaration(["-"], environ={}, stdin=io.StringIO(text)).declaration


def problems(text: str) -> list[tuple[str, str, str | None]]:
    with pytest.raises(InvalidError) as caught:
        load(text)
    return [
        (one["where"].removeprefix("<standard input>:"), one["problem"], one["hint"])
        for one in caught.value.details["problems"]
    ]


@pytest.mark.parametrize(("word", "read"), READ.items(), ids=READ)
def test_as_a_key_and_in_a_list(word, read):
    text = f"stack: s\ntargets:\n  a: {{host: h}}\n  {word}: {{host: g}}\nadapters:\n  x:\n    lora_path: /x\n"
    assert problems(f"{text}    targets: [a, {word}]\n") == [
        ("4:3", f"targets: `{word}` is read as {read}", f"Write '{word}', in quotes."),
        ("8:18", f"adapters.x.targets.1: `{word}` is read as {read}", f"Write '{word}', in quotes."),
    ]


@pytest.mark.parametrize("word", [*READ, *TEXT])
def test_in_quotes_it_is_a_name(word):
    text = f"stack: s\ntargets: {{'{word}': {{host: g}}}}\nadapters: {{x: {{targets: ['{word}'], lora_path: /x}}}}\n"
    found = load(text)
    assert list(found.targets) == [found.adapters[0].target] == [word]


@pytest.mark.parametrize("word", TEXT)
def test_what_yaml_reads_as_text_needs_no_quotes(word):
    found = load(f"stack: s\ntargets: {{{word}: {{host: g}}}}\nadapters: {{x: {{target: {word}, lora_path: /x}}}}\n")
    assert list(found.targets) == [found.adapters[0].target] == [word]


@pytest.mark.parametrize(
    ("text", "where", "problem"),
    [
        ("stack: no\n", "1:1", "stack: `no` is read as false"),
        ("stack: s\ntargets: {t: {host: 012}}\n", "2:15", "targets.t.host: `012` is read as the number 10"),
        ("stack: s\ninstances: {yes: {model: m}}\n", "2:13", "instances: `yes` is read as true"),
        ("stack: s\ninstances: {i: {model: 1_000}}\n", "2:17", "instances.i.model: `1_000` is read as the number 1000"),
        ("stack: s\ninstances: {i: {model: m, options: {off: 1}}}\n", "2:37",
         "instances.i.options: `off` is read as false"),
        ("stack: s\ntargets: {t: {host: h, labels: {no: x}}}\n", "2:33", "targets.t.labels: `no` is read as false"),
        ("stack: s\ntargets: {t: {host: h, headers: {X-A: off}}}\n", "2:34",
         "targets.t.headers.X-A: `off` is read as false"),
        ("stack: s\nroutes: {off: {to: x}}\n", "2:10", "routes: `off` is read as false"),
        ("model: m\nadapters: {012: ./x}\n", "2:12", "adapters: `012` is read as the number 10"),
        ("model: m\nadapters: {a: off}\n", "2:12", "adapters.a.lora_path: `off` is read as false"),
        ("model: 012\n", "1:1", "instances.model.model: `012` is read as the number 10"),
    ],
)  # fmt: skip
def test_in_other_places(text, where, problem):
    assert [one[:2] for one in problems(text)] == [(where, problem)]


def test_two_names_that_are_read_as_one_value_are_two_errors():
    found = problems("stack: s\ntargets:\n  on: {host: a}\n  yes: {host: b}\n  1: {host: c}\n")
    assert [one[0] for one in found] == ["3:3", "4:3", "5:3"]


def test_several_files(tmp_path):
    (tmp_path / "a.yaml").write_text("stack: s\ntargets: {t: {host: h}}\n")
    (tmp_path / "b.yaml").write_text("adapters: {x: {targets: [t, off], lora_path: /x}}\n")
    with pytest.raises(InvalidError) as caught:
        load_declaration([str(tmp_path)], environ={})
    assert caught.value.message.endswith("b.yaml:1:29: adapters.x.targets.1: `off` is read as false")


def test_a_key_of_the_manifest_needs_no_quotes():
    assert load("stack: s\nhooks: [{on: [drift], command: [x]}]\n").hooks[0].on == ("drift",)


def test_json_is_not_yaml():
    text = json.dumps({"stack": "s", "targets": {"off": {"host": "h"}}, "models": {"m": {"target": False}}})
    assert problems(text) == [("1:68", "models.m.target: must be text", "Put it in quotes if it is text.")]


def test_a_number_that_stands_for_text_is_the_text_that_was_written():
    found = load(
        "stack: s\ninstances: {i: {model: m, env: {UMASK: 022, V: 1.10, N: 7}}}\n"
        "targets: {t: {host: h, labels: {rack: 012, row: 7, edge: true}}}\n"
        "adapters: {x: {select: {rack: '012'}, lora_path: /x}}\n"
    )
    assert found.instances["i"].env == {"UMASK": "022", "V": "1.10", "N": "7"}
    assert found.targets["t"].labels == {"rack": "012", "row": "7", "edge": "true"}
    assert found.adapters[0].target == "t"
