"""Whatever a config of these systems holds, the manifest that is made of it loads."""

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.base.settings import Settings
from garrison.declared.spec import specs_of
from garrison.migrate import llama_swap, llamactl, ollama
from garrison.migrate.modelfile import parse_modelfile
from garrison.migrate.values import Found
from garrison.migrate.write import manifest_text, read_back

CHARACTERS = st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_categories=("Cc", "Cs"))
WORDS = st.text(CHARACTERS, min_size=1, max_size=12)
NAMES = WORDS | st.sampled_from(["qwen", "Qwen/Qwen3:8b", "_x", "${A}", "a b", "."])
TEXT = WORDS | st.sampled_from(["${X}", "$${X}", "a ${env.HOME} b", "it's", '"', "${PORT}", "#", "--x"])
NUMBERS = st.integers(-5, 10**6) | st.floats(0, 1e6)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(WORDS, inner, max_size=2),
    max_leaves=4,
)
LLAMACTL = st.fixed_dictionaries(
    {
        "backend_type": st.sampled_from(["vllm", "llama_cpp", "mlx_lm", "other"]),
        "backend_options": st.dictionaries(
            st.sampled_from(["max_model_len", "hf_repo", "hf_file", "port", "seed"]), TEXT | NUMBERS | st.booleans()
        ).map(lambda found: {"model": "org/name", **found}),
    },
    optional={
        "auto_restart": st.booleans(), "max_restarts": st.integers(0, 100), "restart_delay": NUMBERS,
        "idle_timeout": st.integers(-5, 10_000), "environment": st.dictionaries(NAMES, TEXT, max_size=2),
        "docker_enabled": st.booleans(), "command_override": st.sampled_from(["", "vllm", "/opt/x y", "it's"]),
        "group": st.sampled_from(["", "big"]), "nodes": st.lists(st.sampled_from(["main", "gpu 2"]), max_size=2),
        "preset_ini": TEXT | st.text(st.characters(exclude_categories=("Cs",)), max_size=9), "unheard_of": JSON,
    },
)  # fmt: skip
COMMANDS = st.lists(
    TEXT | st.sampled_from(["llama-server", "vllm", "serve", "-m", "/m.gguf", "--port", "${PORT}", "docker", "run"]),
    max_size=8,
).map(" ".join)
MODEL = st.fixed_dictionaries(
    {"cmd": COMMANDS},
    optional={
        "ttl": st.integers(-1, 10**6), "env": st.lists(st.builds("{}={}".format, NAMES, TEXT), max_size=2),
        "aliases": st.lists(NAMES, max_size=2), "macros": st.dictionaries(NAMES, TEXT | NUMBERS, max_size=2),
        "filters": JSON | st.fixed_dictionaries(
            {}, optional={"stripParams": TEXT, "setParams": st.dictionaries(NAMES, JSON, max_size=2),
                          "setParamsByID": st.dictionaries(NAMES, JSON, max_size=2)},
        ),
        "concurrencyLimit": JSON, "proxy": TEXT,
        "checkEndpoint": st.sampled_from(["/health", "none", "/v1/models"]), "unheard_of": JSON,
    },
)  # fmt: skip
SWAP = st.fixed_dictionaries(
    {"models": st.dictionaries(NAMES, MODEL, max_size=3)},
    optional={
        "macros": st.dictionaries(NAMES, TEXT, max_size=2), "globalTTL": st.integers(0, 10**6),
        "groups": st.dictionaries(NAMES, st.fixed_dictionaries({"members": st.lists(NAMES, max_size=3)}), max_size=2),
        "hooks": st.fixed_dictionaries({"on_startup": st.fixed_dictionaries({"preload": st.lists(NAMES, max_size=2)})}),
        "startPort": st.integers(1, 70_000), "peers": st.dictionaries(NAMES, JSON, max_size=2),
        "selectors": st.dictionaries(NAMES, JSON, max_size=2), "unheard_of": JSON,
    },
)  # fmt: skip


def loads(found: Found) -> None:
    declared = read_back(manifest_text(found, "test"), Path("/"))
    assert set(declared.instances) == set(found.instances)
    assert set(specs_of(declared, Settings())) == set(found.instances)


@given(st.dictionaries(NAMES, LLAMACTL, max_size=3))
def test_instances_of_llamactl(instances: dict[str, Any]) -> None:
    found = Found(stack="llamactl")
    for name, options in instances.items():
        llamactl.add_instance(name, options, found)
    loads(found)


@given(st.dictionaries(st.sampled_from(["server", "backends", "instances", "auth", "nodes", "x"]), JSON))
def test_a_config_of_llamactl(config: dict[str, Any]) -> None:
    found = Found(stack="llamactl")
    llamactl.add_config(config, found)
    loads(found)


@given(SWAP)
def test_a_config_of_llama_swap(config: dict[str, Any]) -> None:
    found = Found(stack="llama-swap")
    llama_swap.add_config(config, found)
    loads(found)


@given(st.lists(st.tuples(st.sampled_from(["FROM", "PARAMETER", "SYSTEM", "ADAPTER"]), TEXT, TEXT), max_size=4), TEXT)
def test_a_modelfile(lines: list[tuple[str, str, str]], model: str) -> None:
    found = Found(stack="ollama")
    text = f"FROM {model}\n" + "\n".join(" ".join(line) for line in lines)
    try:
        modelfile = parse_modelfile(text)
    except InvalidError:
        return
    ollama.add_modelfile("m", modelfile, {"OLLAMA_KEEP_ALIVE": model}, Path("/d"), found)
    loads(found)
