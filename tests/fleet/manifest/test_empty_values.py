"""A key without a value is an error with its place: the default does not take its place."""

import io
from pathlib import Path

import pytest

from garrison.base.errors import InvalidError
from garrison.fleet.manifest.load import load_declaration
from garrison.fleet.manifest.model import TargetModel

SHORT = "model: acme/tiny\n"
OF_SERVE = ("host", "api_key_env")
OF_AN_INSTANCE = ("engine", "executable", "port", "options", "env", "max_loras", "idle", "memory", "devices", "group")


def load(tmp_path: Path, text: str):
    (tmp_path / "m.yaml").write_text(text)
    return load_declaration([str(tmp_path / "m.yaml")], environ={})


def refused(tmp_path: Path, text: str) -> list[dict[str, str]]:
    with pytest.raises(InvalidError) as caught:
        load(tmp_path, text)
    return [{**one, "where": one["where"].rpartition("m.yaml:")[2]} for one in caught.value.details["problems"]]


@pytest.mark.parametrize("key", OF_SERVE + OF_AN_INSTANCE + ("stack", "adapters"))
def test_of_the_short_form(tmp_path, key):
    (one,) = refused(tmp_path, f"{SHORT}{key}:\n")
    assert one["where"] == "2:1"
    assert one["problem"].endswith(f"{key}: has no value")
    assert one["hint"] == "Give it a value, or remove the line."


@pytest.mark.parametrize("key", OF_SERVE)
def test_an_empty_text_in_the_short_form(tmp_path, key):
    (one,) = refused(tmp_path, f'{SHORT}{key}: ""\n')
    assert (one["where"], one["problem"]) == ("2:1", f"{key}: has no value")


@pytest.mark.parametrize("key", sorted(TargetModel.model_fields))
def test_of_a_target(tmp_path, key):
    address = "" if key in ("base_url", "host", "port", "scheme") else "    base_url: http://h:1\n"
    found = refused(tmp_path, f"stack: s\ntargets:\n  t:\n    {key}:\n{address}")
    assert {"where": "4:5", "problem": f"targets.t.{key}: has no value",
            "hint": "Give it a value, or remove the line."} in found  # fmt: skip


def test_several_at_once_and_of_every_part(tmp_path):
    text = "stack: s\ntargets:\n  t: {host: h, port: }\n  u:\nadapters:\n  a: {target: t, lora_path: }\n  b:\npolicy:\n"
    assert [(one["where"], one["problem"]) for one in refused(tmp_path, text)] == [
        ("3:16", "targets.t.port: has no value"),
        ("4:3", "targets.u: has no value"),
        ("6:18", "adapters.a.lora_path: has no value"),
        ("7:3", "adapters.b: has no value"),
        ("8:1", "policy: has no value"),
    ]


@pytest.mark.parametrize("text", [SHORT + "options: {seed: }\n", "instances: {q: {model: m, options: {seed: }}}\n"])
def test_an_option_of_an_engine(tmp_path, text):
    (one,) = refused(tmp_path, text if text.startswith("model") else f"stack: s\n{text}")
    assert one["problem"].endswith(".options.seed: has no value")


def test_in_json_and_on_standard_input_too():
    text = '{"stack": "s", "targets": {"t": {"host": "h", "port": null}}}'
    with pytest.raises(InvalidError, match=r"targets\.t\.port: has no value"):
        load_declaration(["-"], environ={}, stdin=io.StringIO(text))


def test_where_null_is_a_value_it_stays(tmp_path):
    """A profile that does not serve a name, and a parameter that is set to null."""
    text = "stack: s\ntargets: {t: {host: h}}\nroutes: {r: {to: t, set: {stop: null}}}\nprofiles: {night: {r: null}}\n"
    declaration = load(tmp_path, text).declaration
    assert declaration.profiles == {"night": {"r": None}}
    assert declaration.routes["r"].more["set"] == {"stop": None}
