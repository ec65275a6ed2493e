import argparse
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.fleet.manifest.instance_model import InstanceModel
from garrison.launch.manifest import ServeManifest, default_manifest, load_manifest, option_args
from garrison.launch.manifest_problems import OF_THE_SERVER
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
    "another spelling": ("model: m\nservedModelName: n\n", ":2:1: unknown key", "Did you mean 'served_model_name'?"),
    "key of a later part": ("model: m\ntargets: []\n", ":2:1: unknown key 'targets'", ""),
    "key of an instance": ("model: m\non_demand: true\n", ":2:1: unknown key 'on_demand'", "`garrison up` reads it"),
    "missing model": ("port: 1\n", ":1:1: key 'model' is missing", "model: …"),
    "model is no text": ("model: 7\n", ":1:1: model: ", "in quotes"),
    "engine is near": ("model: m\nengine: vlm\n", ":2:1: engine: there is no engine 'vlm'", "Did you mean vllm?"),
    "engine is far": ("model: m\nengine: zzz\n", ":2:1: engine: there is no engine 'zzz'", "Engines: vllm"),
    "port is text": ("model: m\nport: '8000'\n", ":2:1: port: ", "without quotes"),
    "port is a fraction": ("model: m\nport: 1.5\n", ":2:1: port: ", "whole number"),
    "port out of range": ("model: m\nport: 70000\n", ":2:1: port: must be at most 65535", ""),
    "port is a boolean": ("model: m\nport: true\n", ":2:1: port: ", "whole number"),
    "env boolean": ("model: m\nenv:\n  A: 'x'\n  B: true\n", ":4:3: env.B: ", "in quotes"),
    "env list": ("model: m\nenv: [A]\n", ":2:1: env: must be a mapping", "`name: value` lines"),
    "adapter is a number": ("model: m\nadapters:\n  sql: 5\n", ":3:3: adapters.sql: ", "in quotes"),
    "args is text": ("model: m\nargs: --seed 7\n", ":2:1: args: ", "Write a list"),
    "args of a number": ("model: m\nargs: [--seed, 7]\n", ":2:16: args.1: ", "in quotes"),
    "runtime_lora is text": ("model: m\nruntime_lora: 'yes'\n", ":2:1: runtime_lora: ", "true or false"),
    "max_loras zero": ("model: m\nmax_loras: 0\n", ":2:1: max_loras: must be at least 1", ""),
    "list in a list": ("model: m\noptions:\n  a: [[1]]\n", ":3:3: options.a: an option is text", "in quotes"),
    "date": ("model: m\noptions:\n  a: 2026-01-01\n", ":3:3: options.a: `2026-01-01` is read as a date",
             "Write '2026-01-01', in quotes."),
    "date in an object": ("model: m\noptions:\n  a: {b: 2026-01-01}\n", ":3:3: options.a: the value of --a", "quotes"),
    "bytes in a list": ("model: m\noptions:\n  a: [{b: !!binary aGk=}]\n", ":3:3: options.a: the value", "quotes"),
    "no number": ("model: m\noptions:\n  a: .nan\n", ":3:3: options.a: the value of --a holds", "quotes"),
    "the model is no option": ("model: m\noptions:\n  --model: n\n", ":3:3: options: --model is not an option here",
                               "the key `model`"),
    "an option in two spellings": ("model: m\noptions:\n  a-b: 1\n  a_b: 2\n", ":4:3: options.a_b: it is given twice",
                                   "Remove one"),
    "key twice": ("model: m\nmodel: n\n", ":2:1: duplicate key 'model'", "Remove"),
    "option twice": ("model: m\noptions:\n  a: 1\n  a: 2\n", ":4:3: duplicate key 'a'", "Remove"),
    "number as key": ("model: m\n1: x\n", ":2:1: unknown key '1'", "Known keys"),
    "number as option": ("model: m\noptions:\n  1: x\n", ":3:3: options: `1` is read as a number",
                         "Write '1', in quotes."),
    "number as variable": ("model: m\nenv:\n  1: x\n", ":3:3: env: `1` is read as a number", "Write '1', in quotes."),
    "a boolean as a name": ("model: m\nadapters: {off: ./a}\n", ":2:12: adapters: `off` is read as false",
                                           "Write 'off', in quotes."),
    "a boolean as a value": ("model: m\nargs: [--x, off]\n", ":2:13: args.1: `off` is read as false",
                                            "Write 'off', in quotes."),
    "digits that are octal": ("model: m\nadapters: {a: 012}\n", ":2:12: adapters.a: `012` is read as the number 10",
                              "Write '012', in quotes."),
    "not closed": ("model: [\n", ":2:1: ", "close the bracket"),
    "list": ("- model\n", "has no `key: value` lines", "Start with"),
    "empty": ("", "has no `key: value` lines", "Start with"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said", "hint"), WRONG.values(), ids=WRONG)
def test_wrong(tmp_path: Path, text: str, said: str, hint: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidError) as caught:
        load_manifest(path)
    assert caught.value.message.startswith(str(path))
    assert said in caught.value.message
    assert hint in (caught.value.hint or "")


TOP = [name for name in ServeManifest.model_fields if name != "model"]
EMPTY = {
    **{name: (f"{name}:", f":2:1: {name}: has no value") for name in TOP},
    **{
        f"{name} is an empty text": (f"{name}: ''", f":2:1: {name}: has no value")
        for name in ("engine", "executable", "host", "served_model_name", "api_key_env", "stack")
    },
    "an option": ("options: {seed: }", ":2:11: options.seed: has no value"),
    "an option that is null": ("options: {seed: null}", ":2:11: options.seed: has no value"),
    "an option that is a list of nothing": ("options: {served-model-name: []}", "served-model-name: has no value"),
    "an item of an option": ("options: {served-model-name: [a, ~]}", ": options.served-model-name"),
    "a variable": ("env: {A: }", ":2:7: env.A: has no value"),
    "an argument": ("args: [a, ]\nadapters: {a: }", ":3:12: adapters.a: has no value"),
    "an item of the arguments": ("args: [~]", ":2:8: args.0: `~` is read as no value"),
    "an adapter": ("adapters: {a: ''}", ":2:12: adapters.a: has no value"),
}


@pytest.mark.parametrize(("line", "said"), EMPTY.values(), ids=EMPTY)
def test_an_empty_value_is_an_error_and_no_default(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        load_manifest(write(tmp_path, f"model: m\n{line}\n"))
    assert said in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("text", ["model:\n", "model: ''\n"])
def test_an_empty_model(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidError, match="yaml:1:1: model: has no value"):
        load_manifest(write(tmp_path, text))


def test_what_may_be_empty(tmp_path: Path) -> None:
    text = "model: m\nenv: {A: ''}\nargs: ['']\noptions: {chat-template: '', allowed-methods: [], c: {a: null}}\n"
    found = load_manifest(write(tmp_path, text))
    assert (found.env, found.args[-1]) == ({"A": ""}, "")
    assert found.args[:-1] == ("--chat-template=", "--allowed-methods", "[]", "--c", '{"a":null}')


def test_the_errors_are_shown_at_once(tmp_path: Path) -> None:
    lines = ["port: '1'", "host:", "engine: vlm", "modle: x", "options:", "  seed:", "adapters:", "  sql: 5"]
    with pytest.raises(InvalidError) as caught:
        load_manifest(write(tmp_path, "\n".join(lines) + "\n"))
    said = caught.value.message.splitlines()
    assert said[0] == "the manifest has 7 errors:"
    places = [line.partition("garrison.yaml:")[2].partition(": ")[0] for line in said[1:]]
    assert places == ["1:1", "1:1", "2:1", "3:1", "4:1", "6:3", "8:3"]
    assert "(Did you mean 'model'?)" in said[5]
    assert len(caught.value.details["problems"]) == 7


def test_no_more_than_ten(tmp_path: Path) -> None:
    with pytest.raises(InvalidError) as caught:
        load_manifest(write(tmp_path, "model: m\n" + "".join(f"zzz{number}: 1\n" for number in range(12))))
    said = caught.value.message.splitlines()
    assert (len(said), said[-1]) == (12, "  and 2 more")


def test_keys_of_an_instance_are_known() -> None:
    assert set(OF_THE_SERVER) == set(InstanceModel.model_fields) - set(ServeManifest.model_fields)


def test_the_manifests_of_a_server_and_of_a_stack_are_in_one_directory(tmp_path: Path) -> None:
    write(tmp_path, "stack: lab\ntargets: {}\n")
    write(tmp_path, "model: acme/tiny\n", "serve.yaml")
    assert default_manifest(tmp_path) == tmp_path / "serve.yaml"
    assert load_manifest(tmp_path).model == "acme/tiny"


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
def test_the_model_is_no_option(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidError, match="is not an option here"):
        load_manifest(write(tmp_path, f"model: m\noptions: {{{name}: x}}\n"))


def test_a_manifest_of_a_fleet_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "garrison.yaml").write_text("stack: lab\ntargets: {}\n")
    with pytest.raises(InvalidError, match="declares a stack, not one server") as raised:
        load_manifest(tmp_path)
    assert "garrison up" in (raised.value.hint or "")
    assert "serve.yaml" in (raised.value.hint or "")
