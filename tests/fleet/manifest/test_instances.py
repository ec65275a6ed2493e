"""Instances, routes and the short form: from a manifest to a declaration and back."""

import io
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.engines.catalogue import load as load_catalogue
from garrison.engines.options import to_args
from garrison.fleet.manifest.dump import dump_manifest
from garrison.fleet.manifest.instance_model import INSTANCE_NAME
from garrison.fleet.manifest.instance_options import with_args
from garrison.fleet.manifest.load import Loaded, load_declaration
from garrison.fleet.manifest.schema import manifest_schema
from garrison.fleet.manifest.short import instance_name
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance import CustomCommand, InstanceDeclaration
from garrison.fleet.values.route import RouteEnd
from garrison.instances.values.spec import require_name
from garrison.net.endpoint import Secret

ENVIRON = {"HOME": "/home/me", "LEN": "4096", "HF_TOKEN": "sesame"}


def load(text: str, directory: Path = Path("/box/dir")) -> Loaded:
    return load_declaration(["-"], environ=ENVIRON, stdin=io.StringIO(text), directory=directory)


def refused(text: str) -> str:
    with pytest.raises(InvalidError) as raised:
        load(text)
    return f"{raised.value.message} | {raised.value.hint}"


FULL = """\
stack: box
instances:
  qwen:
    model: Qwen/Qwen2.5-7B-Instruct
    engine: vllm
    options: {max-model-len: '${LEN}', enable_prefix_caching: false, hf-overrides: {a: 1}}
    args: [--enforce-eager, --seed, "7"]
    executable: ./bin/vllm
    container: false
    env: {HF_TOKEN: '${HF_TOKEN}', CACHE: '${HOME}/cache', N: 3, KEY: {file: key.txt}}
    served_model_name: qwen
    max_loras: 2
    max_lora_rank: 20
    port: 8123
    on_demand: true
    idle: 30m
    autoRestart: false
    max_restarts: 1
    restart_delay: 2s
    group: big
    pin: true
    priority: 5
    weight: 2
    devices: [0, GPU-1]
    memory: 14GiB
    sleep_level: 2
    preload: true
    node: gpu-2
  whisper:
    custom: {argv: [./server, --port, "{port}"], ready_path: /ready, apis: [audio]}
    idle: never
    devices: auto
  tiny:
    model: ./models/tiny
    engine: llama_cpp
  router:
    engine: llama_cpp
    preset_ini: |
      [one]
      model = ${HOME}/one.gguf

      [org/two]
      hf-repo = org/two
  directory: {engine: llama_cpp, options: {models-dir: ./models}}
targets:
  edge-2: {host: 10.0.0.2, base_model: base}
adapters:
  sql: {targets: [qwen, edge-2], lora_path: ./adapters/sql}
routes:
  gpt-4o-mini: {to: tiny}
  small: {to: [router/org/two, directory/tiny]}
  sql-bot: {to: [qwen/sql, edge-2/sql], policy: round-robin, weights: {qwen/sql: 3}}
"""


def test_every_key_of_an_instance() -> None:
    loaded = load(FULL)
    assert loaded.declaration.instances["qwen"] == InstanceDeclaration(
        name="qwen",
        model="Qwen/Qwen2.5-7B-Instruct",
        options={"max_model_len": "4096", "enable_prefix_caching": False, "hf_overrides": {"a": 1}},
        args=("--enforce-eager", "--seed", "7"),
        executable=("/box/dir/bin/vllm",),
        container=False,
        env={
            "HF_TOKEN": Secret("env", "HF_TOKEN"),
            "CACHE": "/home/me/cache",
            "N": "3",
            "KEY": Secret("file", "/box/dir/key.txt"),
        },
        served_model_name="qwen",
        max_loras=2,
        max_lora_rank=20,
        port=8123,
        on_demand=True,
        idle=1800.0,
        auto_restart=False,
        max_restarts=1,
        restart_delay=2.0,
        group="big",
        pin=True,
        priority=5,
        weight=2.0,
        devices=("0", "GPU-1"),
        memory=14 * 2**30,
        sleep_level=2,
        preload=True,
        node="gpu-2",
    )
    assert loaded.declaration.instances["whisper"] == InstanceDeclaration(
        name="whisper",
        engine="custom",
        custom=CustomCommand(("/box/dir/server", "--port", "{port}"), "/ready", ("audio",)),
        idle=0.0,
    )
    assert loaded.declaration.instances["tiny"].model == "/box/dir/models/tiny"
    assert loaded.declaration.instances["router"] == InstanceDeclaration(
        name="router",
        engine="llama_cpp",
        preset_ini="[one]\nmodel = /home/me/one.gguf\n\n[org/two]\nhf-repo = org/two\n",
    )
    assert loaded.declaration.instances["directory"].options == {"models_dir": "/box/dir/models"}
    assert loaded.warnings == ()


def test_an_instance_with_adapters_is_a_target() -> None:
    declared = load(FULL).declaration
    assert set(declared.targets) == {"qwen", "edge-2"}
    assert declared.targets["qwen"].base_url == "instance://gpu-2/qwen"
    place = declared.targets["qwen"].instance
    assert place is not None
    assert (place.name, place.node) == ("qwen", "gpu-2")
    assert declared.targets["edge-2"].instance is None
    assert [(one.target, one.lora_name) for one in declared.adapters] == [("qwen", "sql"), ("edge-2", "sql")]


def test_routes() -> None:
    routes = load(FULL).declaration.routes
    assert routes["gpt-4o-mini"].to == (RouteEnd(place="tiny"),)
    assert [one.adapter for one in routes["small"].to] == ["org/two", "tiny"]
    assert routes["sql-bot"].policy == "round-robin"
    assert routes["sql-bot"].to == (
        RouteEnd(place="qwen", adapter="sql", weight=3.0),
        RouteEnd(place="edge-2", adapter="sql"),
    )


def test_what_is_dumped_loads_as_the_same() -> None:
    declared = load(FULL).declaration
    assert load(dump_manifest(declared)).declaration == declared
    assert Declaration.from_json(declared.to_json()) == declared
    assert "preset_ini: |\n      [one]\n" in dump_manifest(declared), "as it was written, to be read by people"


def test_a_stack_without_instances_is_written_as_before() -> None:
    """So that a stack that is on record already compares equal, and an apply leaves no trace."""
    body = load("stack: s\ntargets: {t: {host: h}}").declaration.to_json()
    assert list(body) == ["stack", "targets", "adapters", "models", "policy", "hooks"]
    assert Declaration.from_json(body).instances == {}


def instance(text: str) -> str:
    return f"stack: s\ninstances:\n  a: {text}\n"


MISTAKES = {
    "an unknown key": (instance("{modell: m}"), ":3:7: unknown key 'instances.a.modell'", "'model'"),
    "no model": (instance("{engine: vllm}"), ":3:3: instances.a: no model", "model: …"),
    "a preset of another engine": (instance('{model: m, preset_ini: "[x]"}'), "is for the engine llama_cpp", ""),
    "an empty preset": (instance('{engine: llama_cpp, preset_ini: ""}'), "instances.a.preset_ini", ""),
    "options without a model": (instance("{engine: llama_cpp, options: {ctx-size: 1}}"), "no model", "model: …"),
    "a route to a router itself": (
        instance('{engine: llama_cpp, preset_ini: "[x]"}') + "routes: {r: {to: a}}",
        ":4:14: routes.r.to.0: 'a' is a router, which has no model of its own",
        "a/MODEL",
    ),
    "two models": (instance("{model: m, options: {model: n}}"), ":3:27: instances.a: the model is given twice", ""),
    "an unknown engine": (instance("{model: m, engine: vlm}"), ":3:17: instances.a.engine: must be 'vllm'", ""),
    "a custom server without argv": (instance("{engine: custom}"), "requires the key custom", ""),
    "argv of another engine": (instance("{model: m, engine: vllm, custom: {argv: [x]}}"), "not vllm", ""),
    "options of a custom server": (instance("{custom: {argv: [x]}, options: {a: 1}}"), "has no options", "custom.argv"),
    "an option twice": (instance("{model: m, options: {a-b: 1, a_b: 2}}"), ":3:35: ", "Leave one out"),
    "an option of no JSON": (instance("{model: m, options: {a: 2026-01-01}}"), ":3:27: ", ""),
    "a stray word": (instance("{model: m, args: [--seed, '7', word]}"), ":3:37: ", "Name the model"),
    "a word first": (instance("{model: m, args: [word]}"), "'word' belongs to no option", ""),
    "the model as an argument": (instance("{model: m, args: [--model, n]}"), "'n' is taken for the model", "`model`"),
    "no duration": (instance("{model: m, idle: soon}"), ":3:17: instances.a.idle: write `never`, or a duration", ""),
    "no size": (instance("{model: m, memory: lots}"), ":3:17: instances.a.memory: write a size", ""),
    "true in the environment": (instance("{model: m, env: {A: true}}"), ":3:23: instances.a.env.A: quote it", ""),
    "two secrets": (instance("{model: m, env: {A: {env: B, file: c}}}"), "give exactly one of env, file, command", ""),
    "a name that is no path": ("stack: s\ninstances: {a/b: {model: m}}", ":2:13: invalid instance name 'a/b'", "50"),
    "a name twice": (
        instance("{model: m}") + "targets: {a: {host: h}}",
        ":4:11: 'a' is both an instance (<standard input>:3:3) and a target",
        "Rename",
    ),
    "an adapter on llama.cpp": (
        instance("{model: m, engine: llama_cpp}") + "adapters: {x: {target: a, lora_path: /x}}",
        "llama_cpp loads no adapters while it runs",
        "vllm",
    ),
    "an adapter on nothing": (
        instance("{model: m}") + "adapters: {x: {target: b, lora_path: /x}}",
        ":4:16: adapters.x.target: unknown target 'b'",
        "Known targets: a",
    ),
    "an mlx container": (instance("{model: m, engine: mlx_lm, container: true}"), "does not run in a container", ""),
    "a route to nothing": (instance("{model: m}") + "routes: {r: {to: aa}}", ":4:14: routes.r.to.0: unknown", "'a'"),
    "a route to no adapter": (instance("{model: m}") + "routes: {r: {to: a/x}}", "no adapter 'x' on 'a'", ""),
    "a route twice to one": (instance("{model: m}") + "routes: {r: {to: [a, a]}}", ":4:22: ", "Remove one"),
    "a weight of nothing": (instance("{model: m}") + "routes: {r: {to: a, weights: {b: 2}}}", "not in `to`", "entries"),
    "a weighted failover": (
        instance("{model: m}") + "routes: {r: {to: a, policy: failover, weights: {a: 2}}}",
        "failover has no weights",
        "Order",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message", "hint"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(text: str, message: str, hint: str) -> None:
    said = refused(text)
    assert message in said
    assert hint in said
    assert said.startswith("<standard input>:")


def test_what_the_server_decides_and_what_looks_like_a_secret_is_warned_of() -> None:
    warnings = load(instance("{model: m, options: {port: 9000}, env: {HF_TOKEN: hf_abc}}")).warnings
    assert "ignored option 'port'" in warnings[0]
    assert "HF_TOKEN looks like a secret" in warnings[1]
    assert "hf_abc" not in str(warnings)


def test_two_files_may_each_declare_instances(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(instance("{model: m}"))
    (tmp_path / "b.yaml").write_text("stack: s\ninstances: {b: {model: n}}\nroutes: {r: {to: a}}")
    declared = load_declaration([str(tmp_path)], environ={}).declaration
    assert set(declared.instances) == {"a", "b"}
    (tmp_path / "c.yaml").write_text("stack: s\ninstances: {a: {model: x}}")
    with pytest.raises(InvalidError, match=r"instance 'a' is declared in .*a\.yaml:3:3 and in .*c\.yaml"):
        load_declaration([str(tmp_path)], environ={})


# --- the short form

SHORT = """\
model: Qwen/Qwen2.5-0.5B-Instruct@main
port: 9000
options: {max-model-len: 4096}
adapters: {sql: adapters/sql}
runtime_lora: true
"""


def test_the_short_form_is_a_stack_of_one_instance() -> None:
    declared = load(SHORT).declaration
    assert declared.stack == "dir"
    (one,) = declared.instances.values()
    assert one == InstanceDeclaration(
        name="Qwen2.5-0.5B-Instruct",
        model="Qwen/Qwen2.5-0.5B-Instruct@main",
        options={"max_model_len": 4096},
        port=9000,
        runtime_lora=True,
    )
    assert [(one.target, one.lora_path) for one in declared.adapters] == [
        ("Qwen2.5-0.5B-Instruct", "/box/dir/adapters/sql")
    ]
    assert load(SHORT + "stack: mine\n").declaration.stack == "mine"


def test_what_only_serve_does_is_left_out_with_a_warning() -> None:
    loaded = load("model: m\nhost: 0.0.0.0\napi_key_env: KEY\n")
    assert [one.partition(": ")[2].partition(":")[0] for one in loaded.warnings] == [
        "ignored 'host'",
        "ignored 'api_key_env'",
    ]


SHORT_MISTAKES = {
    "an unknown key": ("model: m\nmodell: n\n", ":2:1: unknown key"),
    "a port that is none": ("model: m\noptions:\n  a: 1\nport: 99999\n", ":4:1: instances.m.port"),
    "an adapter by name": (
        "model: m\nadapters:\n  sql: imported\n",
        ":3:3: adapters.sql: 'imported' is the name of an",
    ),
    "no text": ("model: 3\n", ":1:1: instances.model.model"),
}


@pytest.mark.parametrize(("text", "said"), SHORT_MISTAKES.values(), ids=SHORT_MISTAKES)
def test_mistakes_of_the_short_form_are_where_they_were_written(text: str, said: str) -> None:
    assert f"<standard input>{said}" in refused(text)


@given(st.text(max_size=80))
def test_every_model_gives_a_name_that_an_instance_may_have(model: str) -> None:
    require_name(instance_name(model))


@given(st.text(max_size=60) | st.from_regex(INSTANCE_NAME.pattern))
def test_names_are_those_that_the_manager_takes(name: str) -> None:
    try:
        require_name(name)
        allowed = True
    except InvalidError:
        allowed = False
    assert (INSTANCE_NAME.match(name) is not None) is allowed


# --- options and args

WORDS = st.sampled_from(
    ["--seed=1", "--enforce-eager", "--max-model-len=8k", "--new-flag=x y", "-O3", "--a.b=1", "--x"]
)


@given(st.lists(WORDS, max_size=5))
def test_args_mean_the_same_as_options(args: list[str]) -> None:
    """Given as options, they come out as the same arguments, each as often as the engine counts it."""
    made = to_args(with_args("vllm", {}, args), load_catalogue("vllm"))
    assert {re.split("[= ]", one)[0] for one in args} <= {re.split("[= ]", one)[0] for one in made} | {"-O3"}
    assert with_args("vllm", {}, list(made)) == with_args("vllm", {}, args)


def test_an_argument_counts_more_than_an_option() -> None:
    made = with_args("vllm", {"seed": 1, "extra_args": {"--a": "1"}}, ["--seed", "2", "--unknown", "3"])
    assert made == {"seed": 2, "extra_args": {"--a": "1", "--unknown": "3"}}


# --- the schema

FITS: dict[str, tuple[Any, bool]] = {
    "the full example": (yaml.safe_load(FULL), True),
    "the short form": (yaml.safe_load(SHORT), True),
    "a short form with a mistake": ({"model": "m", "prot": 1}, False),
    "an instance with a mistake": ({"stack": "s", "instances": {"a": {"model": "m", "prot": 1}}}, False),
    "idle in words": ({"stack": "s", "instances": {"a": {"model": "m", "idle": "later"}}}, False),
    "a route without an end": ({"stack": "s", "routes": {"r": {}}}, False),
}


@pytest.mark.parametrize(("content", "fits"), FITS.values(), ids=FITS)
def test_the_schema(content: Any, fits: bool) -> None:
    assert jsonschema.Draft202012Validator(manifest_schema()).is_valid(content) is fits


# --- the docs


def test_the_example_of_the_docs_is_the_one_that_is_tested_and_loads() -> None:
    root = Path(__file__).resolve().parents[3]
    example = (root / "examples" / "fleet" / "box.yaml").read_text()
    assert f"```yaml\n{example}```" in (root / "docs" / "fleet.md").read_text()
    declared = load(example).declaration
    assert set(declared.instances) == {"qwen", "whisper"}
    assert set(declared.targets) == {"qwen", "edge-2"}
