import pytest

from garrison.base.errors import InvalidError
from garrison.engines.catalogue import (
    Catalogue,
    Option,
    from_json,
    load,
    shipped,
    to_json,
)
from garrison.engines.findings import Finding, check_args
from garrison.engines.nearest import nearest_flag

VLLM = load("vllm")
LLAMA = load("llama_cpp")
MLX = load("mlx_lm")


def levels(catalogue: Catalogue, *args: str) -> list[tuple[str, str]]:
    return [(finding.level, finding.flag) for finding in check_args(catalogue, args)]


def test_an_unknown_flag_is_a_warning_with_the_nearest() -> None:
    (finding,) = check_args(VLLM, ["--max-modle-len", "5"])
    assert (finding.level, finding.suggestion) == ("warning", "--max-model-len")
    assert "did you mean --max-model-len?" in finding.message


def test_a_flag_like_nothing_is_passed_on() -> None:
    (finding,) = check_args(VLLM, ["--xyzzy"])
    assert (finding.level, finding.suggestion) == ("warning", None)
    assert "passed on" in finding.message


def test_a_wrong_choice_names_the_nearest() -> None:
    (finding,) = check_args(VLLM, ["--dtype", "bfloat61"])
    assert (finding.level, finding.suggestion) == ("error", "bfloat16")


def test_every_value_of_a_list_is_looked_at() -> None:
    (finding,) = check_args(VLLM, ["--collect-detailed-traces", "model", "wroker"])
    assert (finding.level, finding.suggestion) == ("error", "worker")


def test_a_switch_takes_no_value() -> None:
    (finding,) = check_args(VLLM, ["--enable-prefix-caching=false"])
    assert (finding.level, finding.suggestion) == ("error", "--no-enable-prefix-caching")


@pytest.mark.parametrize("args", [("--port",), ("--port", "--dtype", "half"), ("--lora-modules",)])
def test_a_missing_value_is_an_error(args: tuple[str, ...]) -> None:
    assert levels(VLLM, *args) == [("error", args[0])]


GOOD = [
    (VLLM, ("--max-model-len", "32k", "--max-model-len=-1", "--seed", "0", "--swap", "x")[:5]),
    (VLLM, ("--compilation-config", '{"mode": 3}', "-cc.mode=3", "--hf-overrides.rope_scaling.factor", "2")),
    (VLLM, ("--enable-lora", "--no-enable-lora", "--no-enable-prefix-caching")),
    (VLLM, ("--max_model_len", "1", "--served_model_name", "a", "b")),
    (VLLM, ("--middleware", "a", "--middleware", "b", "-tp", "2", "-O3", "-q", "awq")),
    (VLLM, ("--hf-token", "--enforce-eager", "--api-key", "a", "b")),
    (VLLM, ("--gpu-memory-utilization", "0.0", "--chat-template", "")),
    (LLAMA, ("-ngl", "-1", "-c", "0", "-fa", "on", "--temp", "0", "-nkvo", "--no-warmup", "-n", "-1")),
    (LLAMA, ("--control-vector-layer-range", "1", "2", "--reasoning-budget", "-1", "--seed", "-1")),
    (LLAMA, ("--reverse-prompt", "--user", "--grammar", "-x")),
    (MLX, ("--model", "x", "--temp", "0.0", "--chat-template-args", "{}", "--trust-remote-code")),
]


@pytest.mark.parametrize(("catalogue", "args"), GOOD, ids=[" ".join(row[1])[:60] for row in GOOD])
def test_what_the_engines_take_is_not_complained_of(catalogue: Catalogue, args: tuple[str, ...]) -> None:
    assert check_args(catalogue, args) == []


def test_a_removed_option_says_so() -> None:
    (finding,) = check_args(LLAMA, ["--draft", "4"])
    assert finding.level == "error"
    assert "removed" in finding.message


def test_the_version_is_the_nearest_that_is_shipped() -> None:
    assert shipped("vllm") == ("0.32.0",)
    for wanted in (None, "0.32.0+cpu", "0.99.0", "0.1", "unknown"):
        assert load("vllm", wanted).version == "0.32.0"
    with pytest.raises(InvalidError):
        load("nothing")


def test_json_and_back() -> None:
    option = Option("--a", ("-a",), ("--no-a",), "flag", "0", (), "True", "G", "h", None, "A", True, True)
    catalogue = Catalogue("e", "1", (option, Option("--b")))
    assert from_json(to_json(catalogue)) == catalogue
    assert to_json(catalogue)["options"][1] == {"flag": "--b"}


@pytest.mark.parametrize("catalogue", [VLLM, LLAMA, MLX], ids=lambda item: item.engine)
def test_shipped_catalogues_are_whole(catalogue: Catalogue) -> None:
    spellings = [spelling for option in catalogue.options for spelling in option.spellings]
    assert len(spellings) == len(set(spellings))
    assert all(option.help or catalogue.engine != "vllm" for option in catalogue.options if option.flag != "--grpc")
    assert {option.type for option in catalogue.options} <= {"flag", "choice", "json", "integer", "number", "text"}
    assert all(option.nargs in ("?", "+") or option.nargs.isdecimal() for option in catalogue.options)


def test_an_engine_without_options_is_not_checked() -> None:
    assert check_args(Catalogue("sim", "1", ()), ["--anything"]) == []


def test_a_finding_never_changes_the_arguments() -> None:
    args = ["--max-modle-len", "5"]
    check_args(VLLM, args)
    assert args == ["--max-modle-len", "5"]
    assert nearest_flag(VLLM, "--enable-prefix-cachign") == "--enable-prefix-caching"
    assert Finding("warning", "--x", "m") == Finding("warning", "--x", "m", None)
