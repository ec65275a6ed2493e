import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.launch.manifest import ServeManifest, load_manifest, option_args
from garrison.launch.spec import AdapterSpec, LaunchSpec


def write(directory: Path, text: str, name: str = "garrison.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


FULL = """\
model: Qwen/Qwen2.5-0.5B-Instruct
engine: llama_cpp
executable: /opt/llama-server
host: 0.0.0.0
port: 9000
served_model_name: qwen
options:
  max-model-len: 4096
  enforce-eager: true
args: [--seed, "7"]
env:
  VLLM_CPU_KVCACHE_SPACE: 1
  NAME: text
adapters:
  sql: /models/adapters/sql
  law: law
runtime_lora: true
max_loras: 2
max_lora_rank: 16
api_key_env: KEY
stack: box
"""


def test_every_key(tmp_path: Path) -> None:
    assert load_manifest(write(tmp_path, FULL)) == LaunchSpec(
        model="Qwen/Qwen2.5-0.5B-Instruct",
        engine="llama_cpp",
        executable=Path("/opt/llama-server"),
        host="0.0.0.0",
        port=9000,
        served_name="qwen",
        args=("--max-model-len", "4096", "--enforce-eager", "--seed", "7"),
        env={"VLLM_CPU_KVCACHE_SPACE": "1", "NAME": "text"},
        adapters=(AdapterSpec("sql", "/models/adapters/sql"), AdapterSpec("law", "law")),
        runtime_lora=True,
        max_loras=2,
        max_lora_rank=16,
        api_key_env="KEY",
    )


def test_the_full_example_has_every_key() -> None:
    assert set(ServeManifest.model_fields) == {line.split(":")[0] for line in FULL.splitlines() if line[0] != " "}


def test_defaults_come_from_the_settings(tmp_path: Path) -> None:
    path = write(tmp_path, "model: acme/tiny\n")
    assert load_manifest(path) == LaunchSpec(model="acme/tiny")
    assert load_manifest(path, host="::1", port=9) == LaunchSpec(model="acme/tiny", host="::1", port=9)


def test_a_directory_means_the_garrison_yaml_in_it(tmp_path: Path) -> None:
    write(tmp_path, "model: acme/tiny\n")
    assert load_manifest(tmp_path).model == "acme/tiny"


@pytest.mark.parametrize(
    ("name", "text"),
    [("m.json", '{"model": "acme/tiny", "port": 9}'), ("m.toml", 'model = "acme/tiny"\nport = 9\n')],
)
def test_other_formats(tmp_path: Path, name: str, text: str) -> None:
    assert load_manifest(write(tmp_path, text, name)) == LaunchSpec(model="acme/tiny", port=9)


OPTIONS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "number": ({"max-model-len": 4096}, ("--max-model-len", "4096")),
    "zero": ({"seed": 0}, ("--seed", "0")),
    "negative number": ({"seed": -1}, ("--seed", "-1")),
    "fraction": ({"gpu-memory-utilization": 0.85}, ("--gpu-memory-utilization", "0.85")),
    "true": ({"enforce-eager": True}, ("--enforce-eager",)),
    "false": ({"enable-prefix-caching": False}, ("--no-enable-prefix-caching",)),
    "null": ({"seed": None}, ()),
    "text": ({"dtype": "bfloat16"}, ("--dtype", "bfloat16")),
    "32k": ({"max-model-len": "32k"}, ("--max-model-len", "32k")),
    "empty text": ({"chat-template": ""}, ("--chat-template=",)),
    "text like a flag": ({"chat-template": "-x"}, ("--chat-template=-x",)),
    "a number that argparse takes for a flag": ({"seed": -1e-5}, ("--seed=-1e-05",)),
    "text with blanks": ({"chat-template": "a b"}, ("--chat-template", "a b")),
    "list": ({"served-model-name": ["a", "b"]}, ("--served-model-name", "a", "b")),
    "list of numbers": ({"sizes": [1, 2.5, -3]}, ("--sizes", "1", "2.5", "-3")),
    "JSON": ({"compilation-config": {"mode": 0, "sizes": [1, 2]}},
             ("--compilation-config", '{"mode":0,"sizes":[1,2]}')),
    "JSON with false and null": ({"c": {"a": False, "b": None}}, ("--c", '{"a":false,"b":null}')),
    "empty JSON": ({"c": {}}, ("--c", "{}")),
    "order": ({"b": 1, "a": 2}, ("--b", "1", "--a", "2")),
    "underscores": ({"max_model_len": 1}, ("--max-model-len", "1")),
    "short flag": ({"-tp": 2}, ("--tensor-parallel-size", "2")),
    "empty list": ({"served-model-name": []}, ()),
    "list of objects": ({"lora-modules": [{"name": "a"}]}, ("--lora-modules", '{"name":"a"}')),
    "list of a flag that is repeated": ({"middleware": ["x.y", "z.w"]}, ("--middleware", "x.y", "--middleware", "z.w")),
    "list that is JSON": ({"allowed-origins": ["*"]}, ("--allowed-origins", '["*"]')),
    "empty list that is JSON": ({"allowed-methods": []}, ("--allowed-methods", "[]")),
    "list inside JSON": ({"compilation-config": {"custom_ops": ["all"]}},
                         ("--compilation-config", '{"custom_ops":["all"]}')),
    "false of a switch without a negation": ({"headless": False}, ()),
    "a switch that the catalogue does not list": ({"brand-new": True, "other-new": False},
                                                  ("--brand-new", "--no-other-new")),
    "flag with dashes": ({"--seed": 2}, ("--seed", "2")),
    "dotted key": ({"compilation-config.cudagraph_mode": "NONE"}, ("--compilation-config.cudagraph_mode", "NONE")),
    "dotted true": ({"compilation-config.cudagraph_mm_encoder": True},
                    ("--compilation-config.cudagraph_mm_encoder", "true")),
    "dotted false": ({"compilation_config.cudagraph_mm_encoder": False},
                     ("--compilation-config.cudagraph_mm_encoder", "false")),
    "dotted number": ({"hf-overrides.rope_theta": 1e6}, ("--hf-overrides.rope_theta", "1000000.0")),
    "dotted list": ({"compilation-config.compile_sizes": [1, 2]}, ("--compilation-config.compile_sizes", "[1,2]")),
    "dotted list of names": ({"compilation-config.custom_ops+": ["none", "+rms_norm"]},
                             ("--compilation-config.custom_ops+", "none,+rms_norm")),
    "dotted object": ({"compilation-config.pass_config": {"x": None}},
                      ("--compilation-config.pass_config", '{"x":null}')),
    "dotted text that is a number in JSON": ({"speculative-config.model": "1"}, ("--speculative-config.model", '"1"')),
    "dotted text that is JSON": ({"hf-overrides.a": '{"b":1}'}, ("--hf-overrides.a", '{"b":1}')),
    "dotted alias": ({"-cc.mode": 3}, ("--compilation-config.mode", "3")),
}  # fmt: skip


@pytest.mark.parametrize(("options", "args"), OPTIONS.values(), ids=OPTIONS)
def test_options(options: Any, args: tuple[str, ...]) -> None:
    assert option_args(options, "vllm") == args


YAML_OPTIONS = {
    "32k stays text": ("max-model-len: 32k", ("--max-model-len", "32k")),
    "exponent stays as written": ("rope-theta: 1e6", ("--rope-theta", "1e6")),
    "exponent in JSON is a number": (
        "hf-overrides: {a: {rope_theta: 1e6}, b: [1.5e3, -2E-2]}",
        ("--hf-overrides", '{"a":{"rope_theta":1000000.0},"b":[1500.0,-0.02]}'),
    ),
    "quoted exponent in JSON is text": ("hf-overrides: {a: '1e6'}", ("--hf-overrides", '{"a":"1e6"}')),
    "exponent of a dotted key": ("hf-overrides.rope_theta: 1e6", ("--hf-overrides.rope_theta", "1000000.0")),
    "version stays text": ('revision: "1.10"', ("--revision", "1.10")),
    "yes is true": ("enforce-eager: yes", ("--enforce-eager",)),
    "nothing": ("seed:", ()),
    "list of JSON": ('lora-modules: [\'{"name": "a"}\']', ("--lora-modules", '{"name": "a"}')),
}


@pytest.mark.parametrize(("line", "args"), YAML_OPTIONS.values(), ids=YAML_OPTIONS)
def test_options_from_yaml(tmp_path: Path, line: str, args: tuple[str, ...]) -> None:
    assert load_manifest(write(tmp_path, f"model: m\noptions:\n  {line}\n")).args == args


PATHS = {
    "./": ("./models/tiny", "{here}/models/tiny"),
    "../": ("../tiny", "{parent}/tiny"),
    ".": (".", "{here}"),
    "absolute": ("/models/tiny", "/models/tiny"),
    "name": ("acme/tiny", "acme/tiny"),
    "bare name": ("tiny", "tiny"),
    "name with revision": ("acme/tiny@main", "acme/tiny@main"),
    "home": ("~/tiny", str(Path("~/tiny").expanduser())),
}


@pytest.mark.parametrize(("given_path", "expected"), PATHS.values(), ids=PATHS)
def test_paths_are_relative_to_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_path: str, expected: str
) -> None:
    directory = tmp_path / "stack"
    directory.mkdir()
    write(directory, f"model: {given_path}\n")
    monkeypatch.chdir(tmp_path)
    spec = load_manifest(Path("stack"))
    assert spec.model == expected.format(here=directory, parent=tmp_path)


PROGRAMS = {
    "looked up on PATH": ("vllm", "vllm"),
    "./": ("./vllm", "{here}/vllm"),
    "a path without ./": ("venv/bin/vllm", "{here}/venv/bin/vllm"),
    "absolute": ("/opt/venv/bin/vllm", "/opt/venv/bin/vllm"),
    "home": ("~/venv/bin/vllm", str(Path("~/venv/bin/vllm").expanduser())),
}


@pytest.mark.parametrize(("given_path", "expected"), PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_is_looked_up_or_beside_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given_path: str, expected: str
) -> None:
    directory = tmp_path / "stack"
    directory.mkdir()
    write(directory, f"model: acme/tiny\nexecutable: {given_path}\n")
    monkeypatch.chdir(tmp_path)
    assert str(load_manifest(Path("stack")).executable) == expected.format(here=directory)


ADAPTERS = {
    "name": ("sql", "sql"),
    "a path without ./": ("adapters/sql", "{here}/adapters/sql"),
    "./": ("./sql", "{here}/sql"),
    "../": ("../sql", "{parent}/sql"),
    ".": (".", "{here}"),
    "absolute": ("/adapters/sql", "/adapters/sql"),
    "home": ("~/sql", str(Path("~/sql").expanduser())),
}


@pytest.mark.parametrize(("given_path", "expected"), ADAPTERS.values(), ids=ADAPTERS)
def test_adapters_with_a_slash_are_paths_beside_the_manifest(tmp_path: Path, given_path: str, expected: str) -> None:
    directory = tmp_path / "stack"
    directory.mkdir()
    write(directory, f"model: m\nadapters:\n  a: {given_path}\n")
    wanted = expected.format(here=directory, parent=tmp_path)
    assert load_manifest(directory).adapters == (AdapterSpec("a", wanted),)


WRONG = {
    "unknown key, near": ("model: m\nmodle: n\n", ":2:1: unknown key 'modle'", "Did you mean 'model'?"),
    "unknown key, far": ("model: m\nzzz: n\n", ":2:1: unknown key 'zzz'", "Known keys: model, engine"),
    "key of a later part": ("model: m\ntargets: []\n", ":2:1: unknown key 'targets'", ""),
    "missing model": ("port: 1\n", ":1:1: key 'model' is missing", "model: …"),
    "empty model": ("model: ''\n", ":1:1: model: ", "Fix this line"),
    "model is no text": ("model: 7\n", ":1:1: model: ", "Fix this line"),
    "port is text": ("model: m\nport: '8000'\n", ":2:1: port: ", "Fix this line"),
    "port out of range": ("model: m\nport: 70000\n", ":2:1: port: ", "Fix this line"),
    "port is a boolean": ("model: m\nport: true\n", ":2:1: port: ", "Fix this line"),
    "env boolean": ("model: m\nenv:\n  A: 'x'\n  B: true\n", ":4:3: env.B: ", "Fix this line"),
    "env list": ("model: m\nenv: [A]\n", ":2:1: env: ", "Fix this line"),
    "adapter is a number": ("model: m\nadapters:\n  sql: 5\n", ":3:3: adapters.sql: ", "Fix this line"),
    "args is text": ("model: m\nargs: --seed 7\n", ":2:1: args: ", "Fix this line"),
    "args of a number": ("model: m\nargs: [--seed, 7]\n", ":2:16: args.1: ", "Fix this line"),
    "runtime_lora is text": ("model: m\nruntime_lora: 'yes'\n", ":2:1: runtime_lora: ", "Fix this line"),
    "max_loras zero": ("model: m\nmax_loras: 0\n", ":2:1: max_loras: ", "Fix this line"),
    "list in a list": ("model: m\noptions:\n  a: [[1]]\n", ":3:3: options.a: an option is text", "Fix this line"),
    "date": ("model: m\noptions:\n  a: 2026-01-01\n", ":3:3: options.a: an option is text", "Fix this line"),
    "key twice": ("model: m\nmodel: n\n", ":2:1: duplicate key 'model'", "Remove"),
    "option twice": ("model: m\noptions:\n  a: 1\n  a: 2\n", ":4:3: duplicate key 'a'", "Remove"),
    "number as key": ("model: m\n1: x\n", ":2:1: ", ""),
    "not closed": ("model: [\n", ":2:1: ", "close the bracket"),
    "list": ("- model\n", "has no `key: value` lines", "Start with"),
    "empty": ("", "has no `key: value` lines", "Start with"),
}


@pytest.mark.parametrize(("text", "said", "hint"), WRONG.values(), ids=WRONG)
def test_wrong(tmp_path: Path, text: str, said: str, hint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidError) as caught:
        load_manifest(path)
    assert caught.value.message.startswith(str(path))
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


def test_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"cannot read the manifest .*No such file"):
        load_manifest(tmp_path / "garrison.yaml")


def test_no_text(tmp_path: Path) -> None:
    (tmp_path / "garrison.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidError, match="not UTF-8 text"):
        load_manifest(tmp_path)


TEXTS = st.text().filter(lambda text: "\0" not in text and text != "--")
"""argparse drops a value that is `--`."""
SCALARS = TEXTS | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
ITEMS = TEXTS.filter(lambda text: not text.startswith("-")) | st.integers(min_value=0)
NAMES = st.from_regex("x(-[a-j]{1,4}){1,2}", fullmatch=True)
"""Of options that no catalogue lists."""


@given(st.dictionaries(NAMES, SCALARS | st.lists(ITEMS, min_size=1, max_size=3), max_size=4))
def test_argparse_reads_what_was_written(options: dict[str, Any]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    wanted: dict[str, Any] = {}
    for name, value in options.items():
        several = isinstance(value, list)
        forms: dict[str, Any] = {"action": argparse.BooleanOptionalAction} if isinstance(value, bool) else {}
        parser.add_argument(f"--{name}", dest=name, **forms, **({"nargs": "+"} if several else {}))
        wanted[name] = list(map(str, value)) if several else value if isinstance(value, bool) else str(value)
    assert vars(parser.parse_args(option_args(options, "vllm"))) == wanted


LLAMA = {
    "a value like a flag": ({"chat-template": "-x"}, ("--chat-template", "-x")),
    "empty text": ({"chat-template": ""}, ("--chat-template", "")),
    "short name": ({"ngl": -1}, ("--gpu-layers", "-1")),
    "what is not listed and off": ({"brand-new": False}, ()),
}


@pytest.mark.parametrize(("options", "args"), LLAMA.values(), ids=LLAMA)
def test_options_of_llama_cpp(options: Any, args: tuple[str, ...]) -> None:
    """It takes the next word for a value, and knows no `--x=value`."""
    assert option_args(options, "llama_cpp") == args


def test_the_options_are_those_of_the_engine_that_is_started(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m\noptions: {chat-template: -x}\n")
    assert load_manifest(path).args == ("--chat-template=-x",)
    assert load_manifest(path, engine="sim").args == ("--chat-template=-x",)
    found = load_manifest(path, engine="llama_cpp")
    assert (found.engine, found.args) == ("llama_cpp", ("--chat-template", "-x"))


@pytest.mark.parametrize("name", ["model", "--model", "-model"])
def test_the_model_is_no_option(name: str) -> None:
    with pytest.raises(InvalidError, match="is not an option here"):
        option_args({name: "x"}, "vllm")


def test_a_manifest_of_a_fleet_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "garrison.yaml").write_text("stack: lab\ntargets: {}\n")
    with pytest.raises(InvalidError, match="declares a stack, not one server") as raised:
        load_manifest(tmp_path)
    assert "garrison up" in (raised.value.hint or "")
