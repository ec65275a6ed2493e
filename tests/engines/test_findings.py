"""What people paste, and what is said of it. The engines reject each word that is called an error here."""

import pytest

from garrison.engines.catalogue import Catalogue, load
from garrison.engines.findings import check_args
from garrison.engines.nearest import nearest_flag, opposite_of

VLLM = load("vllm")
LLAMA = load("llama_cpp")
MLX = load("mlx_lm")
EM, EN, NO_BREAK, MINUS = "\u2014", "\u2013", "\u2011", "\u2212"

SAID: dict[str, tuple[Catalogue, tuple[str, ...], str, str]] = {
    "flag and value in one word": (VLLM, ("--max-model-len 4096",), "error", "write two: --max-model-len 4096"),
    "with a colon": (VLLM, ("--max-model-len: 4096",), "error", "write two: --max-model-len 4096"),
    "with a no-break space": (VLLM, ("--max-model-len\u00a04096",), "error", "write two: --max-model-len 4096"),
    "a short flag": (VLLM, ("-tp 2",), "error", "write two: -tp 2"),
    "of llama.cpp": (LLAMA, ("--ctx-size 4096",), "error", "write two: --ctx-size 4096"),
    "of MLX": (MLX, ("--temp 0.5",), "error", "write two: --temp 0.5"),
    "one that another flag swallows": (
        VLLM, ("--served-model-name", "a", "--max-model-len 4096"), "warning", "write two words: --max-model-len 4096"
    ),
    "llama.cpp knows no equals sign": (LLAMA, ("--ctx-size=4096",), "error", "write two words: --ctx-size 4096"),
    "vLLM reads no config file behind one": (VLLM, ("--config=a.yaml",), "warning", "write two words: --config a.yaml"),
    "true behind a switch": (VLLM, ("--trust-remote-code", "True"), "error", "write --trust-remote-code alone"),
    "1 behind a switch": (VLLM, ("--enforce-eager", "1"), "error", "write --enforce-eager alone"),
    "false behind a switch": (VLLM, ("--enforce-eager", "false"), "error", "write --no-enforce-eager instead"),
    "false behind one that cannot be negated": (VLLM, ("--headless", "false"), "error", "leave it out"),
    "false behind a negation": (VLLM, ("--no-enable-lora", "false"), "error", "write --enable-lora instead"),
    "true after an equals sign": (VLLM, ("--enable-lora=true",), "error", "write --enable-lora alone"),
    "another word behind a switch": (VLLM, ("--enforce-eager", "x"), "error", "'x' follows it"),
    "true behind a switch of MLX": (MLX, ("--trust-remote-code", "True"), "error", "alone"),
    "a key of a JSON option without a value": (
        VLLM, ("--compilation-config.cudagraph_mm_encoder", "--seed", "1"), "error", "cudagraph_mm_encoder true"
    ),
    "an em dash": (VLLM, (f"{EM}max-model-len", "4096"), "error", "write --max-model-len"),
    "an en dash": (VLLM, (f"{EN}tp", "2"), "error", "write -tp"),
    "two minus signs": (VLLM, (f"{MINUS}{MINUS}seed", "1"), "error", "write --seed"),
    "no-break hyphens within": (VLLM, (f"--max{NO_BREAK}model{NO_BREAK}len", "4096"), "error", "write --max-model-len"),
    "a dash and a value": (VLLM, (f"{EM}seed=1",), "error", "write --seed"),
    "a dash of llama.cpp": (LLAMA, (f"{EN}-ctx-size", "4096"), "error", "write --ctx-size"),
    "typographic quotes": (VLLM, ("--chat-template", "\u201ca b\u201d"), "warning", "typographic quotation marks"),
    "a second model": (VLLM, ("--seed", "1", "acme/other"), "error", "'acme/other' belongs to no option"),
    "a stray word of llama.cpp": (LLAMA, ("x.gguf",), "error", "belongs to no option"),
    "a switch and a value in one word": (
        VLLM, ("--trust-remote-code True",), "error", "write --trust-remote-code alone"
    ),
    "a switch and false in one word": (VLLM, ("--enforce-eager false",), "error", "write --no-enforce-eager instead"),
    "a long dash, flag and value in one word": (
        VLLM, (f"{EN}max-model-len 4096",), "error", "write two: --max-model-len 4096"
    ),
    "a unit behind a number": (VLLM, ("--max-model-len", "4096tokens"), "error", "not '4096tokens'"),
    "a thousands separator": (VLLM, ("--max-model-len", "4,096"), "error", "a whole number, such as 32k"),
    "per cent": (VLLM, ("--gpu-memory-utilization", "90%"), "error", "takes a number, not '90%'"),
    "a decimal comma": (VLLM, ("--gpu-memory-utilization=0,9",), "error", "takes a number"),
    "a number in words": (VLLM, ("-tp", "two"), "error", "-tp takes a whole number, not 'two'"),
    "a number of MLX": (MLX, ("--max-tokens", "2k"), "error", "takes a whole number"),
    "JSON whose quotes a shell took": (VLLM, ("--hf-overrides", "{a:1}"), "error", "put single quotes around it"),
    "JSON with the quotes of Python": (VLLM, ("--speculative-config", "{'a': 1}"), "error", "takes JSON"),
    "a JSON list whose quotes a shell took": (VLLM, ("--allowed-origins", "[*]"), "error", "single quotes"),
    "a star for a JSON list": (VLLM, ("--allowed-origins", "*"), "warning", "write '[\"*\"]'"),
    "what was JSON in another form once": (
        VLLM, ("--limit-mm-per-prompt", "image=5"), "warning", "write '{\"image\": 5}'"
    ),
    "JSON of llama.cpp": (LLAMA, ("--chat-template-kwargs", "{a:true}"), "error", "takes JSON"),
    "a second separator": (VLLM, ("--seed", "1", "--", "--enforce-eager"), "error", "ends the options"),
}  # fmt: skip


@pytest.mark.parametrize(("catalogue", "args", "level", "said"), SAID.values(), ids=SAID)
def test_one_finding_says_what_to_write(catalogue: Catalogue, args: tuple[str, ...], level: str, said: str) -> None:
    (finding,) = check_args(catalogue, args)
    assert finding.level == level
    assert said in finding.message


def test_each_is_found() -> None:
    found = check_args(VLLM, ["--max-model-len 4096", "--seed", "1", "--enforce-eager", "True", f"{EM}dtype", "half"])
    assert [finding.flag for finding in found] == ["--max-model-len", "--enforce-eager", f"{EM}dtype"]


def test_a_flag_that_another_one_takes_for_its_value() -> None:
    found = check_args(VLLM, ["--seed", f"{EM}max-model-len", "5"])
    assert "write --max-model-len" in found[0].message


@pytest.mark.parametrize(
    "args",
    [
        ("--api-key SECRET-1",),
        ("--seed", "1", "--api-key  SECRET-1"),
        (f"{EM}api-key=SECRET-1",),
        (f"{EM}api-key", "SECRET-1"),
        ("--api-key", "\u201cSECRET-1\u201d"),
        ("--served-model-name", "a", "--api-key SECRET-1"),
        ("--kv-transfer-config", "{token: SECRET-1}"),
        ("--kv-transfer-config", "token=SECRET-1"),
    ],
)
def test_no_secret_is_shown(args: tuple[str, ...]) -> None:
    found = check_args(VLLM, args)
    assert found
    assert "SECRET" not in repr(found)


@pytest.mark.parametrize(
    "args",
    [
        ("--chat-template", "- a {{ b }}"),
        ("--chat-template", f"{EM} a quotation"),
        ("--chat-template", "it\u2019s"),
        ("--hf-overrides", '{"a": "--seed 1"}'),
        ("--served-model-name", "a b", "c"),
        ("--seed", "-1"),
        ("--seed", "+1"),
        ("--max-model-len", "32k"),
        ("--max-model-len", "1.5K"),
        ("--max-model-len", "auto"),
        ("--max-model-len", "-1"),
        ("--cpu-offload-gb", "4.5"),
        ("--gpu-memory-utilization", "9e-1"),
        ("--hf-overrides", ""),
        ("--speculative-config", "None"),
        ("--mm-processor-kwargs", "null"),
        ("--allowed-origins", '["*"]'),
        ("--compilation-config.mode", "x"),
        ("-O3", "-cc.mode=3", "-tp=2"),
        ("--served-model", "a", "b", "--enable-log-re", "--no-enable-prefix", "--max-model=8k"),
        ("--max-model-len", "AUTO"),
        ("--moe-backend", "FlashInfer-CUTLASS"),
        ("--safetensors-load-strategy", "None"),
        ("--collect-detailed-traces", "None"),
    ],
)
def test_values_may_look_like_nearly_anything(args: tuple[str, ...]) -> None:
    assert check_args(VLLM, args) == []


def test_of_a_flag_that_is_not_listed_the_number_of_values_is_not_known() -> None:
    (found,) = check_args(VLLM, ["--brand-new", "a", "b", "c"])
    assert (found.level, found.flag) == ("warning", "--brand-new")


def test_llama_server_reads_the_number_at_the_beginning_of_a_word() -> None:
    assert check_args(LLAMA, ["--ctx-size", "4096x", "--gpu-layers", "all", "--json-schema-file", "x.json"]) == []


def test_the_words_of_a_pasted_command_are_judged_elsewhere() -> None:
    assert check_args(VLLM, ["acme/tiny", "--seed", "1"], strays=False) == []


NEAREST = {
    "--disable-log-requests": "--no-enable-log-requests",
    "--disable-log-request": "--no-enable-log-requests",
    "--no-log-requests": "--no-enable-log-requests",
    "--log-requests": "--enable-log-requests",
    "--enable-uvicorn-access-log": "--no-disable-uvicorn-access-log",
    "--disable-trust-remote-code": "--no-trust-remote-code",
    "--without-enforce-eager": "--no-enforce-eager",
    "--enable-trust-remote-code": "--trust-remote-code",
    "--no-enable-chunked-prefil": "--no-enable-chunked-prefill",
    "--no-headless": None,
    "--enable-log-stats": None,
    "--disable-frontend-multiprocessing": None,
}


@pytest.mark.parametrize(("flag", "near"), NEAREST.items())
def test_the_opposite_is_never_near(flag: str, near: str | None) -> None:
    assert nearest_flag(VLLM, flag) == near


def test_where_there_is_only_the_opposite_it_is_named_as_that() -> None:
    assert opposite_of(VLLM, "--no-headless") == "--headless"
    (finding,) = check_args(VLLM, ["--enable-log-stats"])
    assert "--disable-log-stats is what it has: leave both out" in finding.message
    assert finding.suggestion is None
