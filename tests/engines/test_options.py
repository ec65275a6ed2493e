"""Options as JSON and as arguments."""

import json
import shlex
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.engines.catalogue import Option, load
from garrison.engines.options import normal_keys, to_args, to_options
from garrison.engines.parse.command import parse_command

ENGINES = ("vllm", "llama_cpp", "mlx_lm")
PREFIX = {"vllm": "vllm serve", "llama_cpp": "llama-server", "mlx_lm": "mlx_lm.server"}


def args(engine: str, **options: Any) -> list[str]:
    return list(to_args(options, load(engine)))


def options(line: str) -> dict[str, Any]:
    parsed = parse_command(line)
    return to_options(parsed, load(parsed.engine))


@pytest.mark.parametrize(
    ("engine", "given", "expected"),
    [
        ("vllm", {"tensor_parallel_size": 2}, ["--tensor-parallel-size", "2"]),
        ("vllm", {"tensor-parallel-size": 2}, ["--tensor-parallel-size", "2"]),
        ("vllm", {"gpu_memory_utilization": 0.5}, ["--gpu-memory-utilization", "0.5"]),
        ("vllm", {"enable_log_outputs": True}, ["--enable-log-outputs"]),
        ("vllm", {"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ("vllm", {"seed": 0}, ["--seed", "0"]),
        ("vllm", {"chat_template": ""}, ["--chat-template="]),
        ("vllm", {"model": "m", "quantization": None}, []),
        ("vllm", {"lora_modules": ["a=b", "c=d"]}, ["--lora-modules", "a=b", "c=d"]),
        ("vllm", {"middleware": ["a", "b"]}, ["--middleware", "a", "--middleware", "b"]),
        ("vllm", {"compilation_config": {"mode": 3}}, ["--compilation-config", '{"mode":3}']),
        ("vllm", {"compilation_config.pass_config.x": 1}, ["--compilation-config.pass_config.x", "1"]),
        ("vllm", {"max_model_len": "32k"}, ["--max-model-len", "32k"]),
        ("vllm", {"tp": 2}, ["--tensor-parallel-size", "2"]),
        ("vllm", {"extra_args": {"-O3": True, "new_flag": "v", "other": True}}, ["-O3", "--new-flag", "v", "--other"]),
        ("vllm", {"mm_encoder_fp8_scale_save_margin": -0.5}, ["--mm-encoder-fp8-scale-save-margin=-0.5"]),
        ("vllm", {"lora_target_modules": ["-x"]}, ["--lora-target-modules=-x"]),
        ("vllm", {"hf_overrides.a": None}, ["--hf-overrides.a", "null"]),
        ("llama_cpp", {"temp": 0}, ["--temp", "0"]),
        ("llama_cpp", {"temp": -0.5}, ["--temp", "-0.5"]),
        ("llama_cpp", {"ngl": -1}, ["--gpu-layers", "-1"]),
        ("llama_cpp", {"n_gpu_layers": 0}, ["--gpu-layers", "0"]),
    ],
)
def test_each_kind_of_value(engine: str, given: dict[str, Any], expected: list[str]) -> None:
    assert to_args(given, load(engine)) == tuple(expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "vllm serve --model ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g --tensor-parallel-size 2 "
            "--gpu-memory-utilization 0.5",
            {
                "model": "ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g",
                "tensor_parallel_size": 2,
                "gpu_memory_utilization": 0.5,
            },
        ),
        ("vllm serve m -tp 2 --seed=0", {"model": "m", "tensor_parallel_size": 2, "seed": 0}),
        ("vllm serve m --no-enable-prefix-caching", {"model": "m", "enable_prefix_caching": False}),
        ("vllm serve m --enable-expert-parallel", {"model": "m", "enable_expert_parallel": True}),
        ("""vllm serve m --allowed-origins '["*"]'""", {"model": "m", "allowed_origins": ["*"]}),
        (
            """vllm serve m --allowed-origins '["a"]' --allowed-origins '["b"]'""",
            {"model": "m", "allowed_origins": ["b"]},
        ),
        ("vllm serve m --middleware a --middleware b", {"model": "m", "middleware": ["a", "b"]}),
        ("vllm serve m --new-flag v", {"model": "m", "extra_args": {"--new-flag": "v"}}),
        ("""vllm serve m --compilation-config '{"mode": 3}'""", {"model": "m", "compilation_config": {"mode": 3}}),
        (
            "vllm serve m --served-model a b --max-model=8k",
            {"model": "m", "served_model_name": ["a", "b"], "max_model_len": "8k"},
        ),
        ("vllm serve m --tokens-on --no-tokens-only", {"model": "m", "tokens_only": False}),
        ("vllm serve m --enable-lora --no-enable-lora --enable-lora", {"model": "m", "enable_lora": True}),
        (
            "mlx_lm.server --model m --trust-remote --chat-template-a '{}'",
            {"model": "m", "trust_remote_code": True, "chat_template_args": {}},
        ),
        ("llama-server -m x.gguf -ngl -1", {"model": "x.gguf", "gpu_layers": -1}),
        (
            "llama-server -m x.gguf -ot a=CPU --override-tensor b=CPU",
            {"model": "x.gguf", "override_tensor": ["a=CPU", "b=CPU"]},
        ),
    ],
)
def test_a_command_line_as_options(line: str, expected: dict[str, Any]) -> None:
    assert options(line) == expected


@pytest.mark.parametrize(
    ("words", "value", "built"),
    [
        ("--hf-overrides.a 3", 3, ["--hf-overrides.a", "3"]),
        ("--hf-overrides.a=true", True, ["--hf-overrides.a", "true"]),
        ("--hf-overrides.a null", None, ["--hf-overrides.a", "null"]),
        ("--hf-overrides.a=-0.5", -0.5, ["--hf-overrides.a=-0.5"]),
        ("--hf-overrides.a '\"3\"'", "3", ["--hf-overrides.a", '"3"']),
        ("--hf-overrides.a 80g", "80g", ["--hf-overrides.a", "80g"]),
        ("--hf-overrides.a=", "", ["--hf-overrides.a="]),
        ("--hf-overrides.a 1 --hf-overrides.a 2", 2, ["--hf-overrides.a", "2"]),
        ("--hf-overrides.a [1] --hf-overrides.a [2]", [1, 2], ["--hf-overrides.a", "[1,2]"]),
        (
            """--hf-overrides.a '{"b":{"c":1}}' --hf-overrides.a '{"b":{"d":2}}'""",
            {"b": {"c": 1, "d": 2}},
            ["--hf-overrides.a", '{"b":{"c":1,"d":2}}'],
        ),
    ],
)
def test_a_key_of_a_json_option_keeps_its_type(words: str, value: Any, built: list[str]) -> None:
    found = options(f"vllm serve m {words}")
    assert found == {"model": "m", "extra_args": {"--hf-overrides.a": value}}
    assert args("vllm", **found) == built


@pytest.mark.parametrize("words", ["--hf-overrides.a+ 1,b", "--hf-overrides.a+ 1 --hf-overrides.a+=b"])
def test_what_is_added_to_a_key_of_a_json_option_is_a_list_of_texts(words: str) -> None:
    found = options(f"vllm serve m {words}")
    assert found["extra_args"] == {"--hf-overrides.a+": ["1", "b"]}
    assert args("vllm", **found) == ["--hf-overrides.a+", "1,b"]


def test_what_cannot_be_an_option() -> None:
    with pytest.raises(InvalidError, match="given twice"):
        normal_keys({"max-model-len": 1, "max_model_len": 2})
    with pytest.raises(InvalidError, match="must be an object"):
        normal_keys({"extra_args": ["--x"]})
    for value in (object(), {"a": date(2026, 1, 1)}, [b"x"], {"a": [float("nan")]}, float("inf"), {"a": {1, 2}}):
        with pytest.raises(InvalidError, match="no JSON"):
            args("vllm", hf_overrides=value)
    with pytest.raises(InvalidError, match="null character"):
        args("vllm", revision="a\0b")


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("max_model_len", 1e4, "10000"),
        ("max_model_len", "1e4", "10000"),
        ("max_model_len", "1.5e3", "1500"),
        ("seed", 7.0, "7"),
        ("max_model_len", 0.5, "0.5"),
        ("max_model_len", "1.5k", "1.5k"),
        ("gpu_memory_utilization", 1.0, "1.0"),
        ("revision", "1e4", "1e4"),
        ("rope_theta", 1e6, "1000000.0"),
    ],
)
def test_a_whole_number_is_written_as_one_where_the_option_takes_one(name: str, value: Any, word: str) -> None:
    assert args("vllm", **{name: value})[1] == word


def test_numbers_too_large_for_json_stay_as_they_were_written() -> None:
    assert options("vllm serve m --hf-overrides '{\"a\": 1e999}'") == {"model": "m", "hf_overrides": '{"a": 1e999}'}


_WORDS = st.text("abcxyz019.:/=_ {}[]\"'é-", min_size=0, max_size=12)


def _value(option: Option) -> st.SearchStrategy[list[str]]:
    one: st.SearchStrategy[str]
    match option.type:
        case "integer":
            one = st.integers(-5, 10**6).map(str)
        case "number":
            one = st.one_of(
                st.integers(-5, 100).map(str), st.sampled_from(["0.5", "0.0", "1e-5", "-0.25", ".5", "1.50"])
            )
        case "choice":
            one = st.sampled_from(option.choices) if option.choices else _WORDS
        case "json":
            one = st.sampled_from(['{"a": 1}', '{"a": {"b": [1, 2.50, null, "x y"]}}', "3", '{"a":1e400}', "{x", ""])
        case _:
            one = _WORDS
    match option.nargs:
        case "0":
            return st.just([])
        case "+":
            return st.lists(one.filter(lambda word: not word.startswith("-")), min_size=1, max_size=3)
        case "?" | "1":
            return one.map(lambda word: [word])
        case count:
            return st.lists(one, min_size=int(count), max_size=int(count))


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, list[str]]:
    engine = draw(st.sampled_from(ENGINES))
    known = [one for one in load(engine).options if not one.removed and one.flag not in ("--model", "--help")]
    words: list[str] = []
    for option in draw(st.lists(st.sampled_from(known), max_size=6, unique_by=lambda one: one.flag)):
        spelling = draw(st.sampled_from(option.spellings))
        for _ in range(draw(st.integers(1, 2)) if option.nargs == "1" else 1):
            values = [] if spelling in option.negations else draw(_value(option))
            if len(values) == 1 and spelling.startswith("--"):
                words.append(f"{spelling}={values[0]}")
            elif values and any(one.startswith("-") or one == "" for one in values):
                continue
            else:
                words += [spelling, *values]
    return engine, words


def meaning(engine: str, words: list[str]) -> dict[str, Any]:
    """What an engine understands: by option, the values of each occurrence."""
    known = load(engine).by_spelling()
    parsed = parse_command(f"{PREFIX[engine]} {shlex.join(words)}", engine)
    found: dict[str, Any] = {}
    for flag, times in parsed.options.items():
        option = known.get(flag)
        if option is None:
            found[flag] = times
        elif option.nargs == "0":
            found[option.flag] = flag not in option.negations
        else:
            counting = times[-1:] if option.type == "json" else times
            found[option.flag] = tuple(tuple(_canonical(one, option) for one in values) for values in counting)
    return {flag: value for flag, value in found.items() if value is not False or known[flag].negations}


def _canonical(text: str, option: Option) -> Any:
    if option.type == "json" and text.startswith("{"):
        try:
            return json.dumps(json.loads(text))
        except ValueError:
            return text
    return text


@given(lines())
def test_building_what_was_parsed_means_the_same(line: tuple[str, list[str]]) -> None:
    engine, words = line
    parsed = parse_command(f"{PREFIX[engine]} {shlex.join(words)}", engine)
    built = to_args(to_options(parsed, load(engine)), load(engine))
    assert meaning(engine, list(built)) == meaning(engine, words)
