"""What `garrison serve` makes of its command line. That it serves is shown in `tests/launch/test_supervise.py`."""

import shlex
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serve_command import free_port

Words = list[str]


@pytest.fixture
def serve(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Words]:
    """`serve(model, …)`: the words behind CMD: of a dry run, in an empty directory and with a vLLM on PATH."""
    program = tmp_path / "bin" / "vllm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 0.32.0\n")
    program.chmod(0o755)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("GARRISON_ENGINE_PORT", str(listener.getsockname()[1]))

    def call(*arguments: str | Path) -> Words:
        before, after = list(arguments), []
        if "--" in arguments:
            at = arguments.index("--")
            before, after = list(arguments[:at]), list(arguments[at:])
        done = cli("serve", *before, "--dry-run", *after)
        assert done.code == 0, done
        return shlex.split(done.err.partition("CMD: ")[2])

    return call


def value(words: Words, flag: str) -> str:
    return words[words.index(flag) + 1]


def test_directory(serve: Any, tiny_model: Path) -> None:
    words = serve(tiny_model)
    assert words[1:3] == ["serve", str(tiny_model)]
    assert value(words, "--host") == "127.0.0.1"
    assert value(words, "--served-model-name") == "tiny"


def test_name(serve: Any, cli: Any, tiny_model: Path, clean_environ: Any) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    words = serve("acme/tiny", "--offline")
    assert words[2] == str(Path(clean_environ["GARRISON_DATA_DIR"]) / "models" / "tiny")
    assert value(words, "--served-model-name") == "acme/tiny"


def test_relative_directory(serve: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model.parent)
    assert serve("./tiny")[2] == str(tiny_model)


def test_flags(serve: Any, tiny_model: Path) -> None:
    words = serve(tiny_model, "--host", "::1", "--served-model-name", "t")
    assert (value(words, "--host"), value(words, "--served-model-name")) == ("::1", "t")


def test_engine_arguments_come_last_and_verbatim(serve: Any, tiny_model: Path) -> None:
    extra = ["--max-model-len", "32k", "--seed", "-1", "--json", "--help", "--no-enable-prefix-caching"]
    assert serve(tiny_model, "--", *extra)[-len(extra) :] == extra


def test_adapters(serve: Any, tiny_model: Path, adapter: Any) -> None:
    sql, law = adapter("sql"), adapter("law", rank=16)
    words = serve(tiny_model, "--adapter", f"s={sql}", "-a", str(law), "--runtime-lora")
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in words
    start = words.index("--lora-modules") + 1
    assert words[start : start + 2] == [f"s={sql}", f"law={law}"]
    assert value(words, "--max-lora-rank") == "16"


def test_sim(serve: Any, tiny_model: Path) -> None:
    words = serve(tiny_model, "--engine", "sim")
    assert words[1:6] == ["-P", "-m", "garrison.sim", "--model", str(tiny_model)]


def manifest(directory: Path, text: str, name: str = "garrison.yaml") -> Path:
    path = directory / name
    path.write_text(text)
    return path


def test_the_manifest_of_this_directory(serve: Any, tiny_model: Path) -> None:
    manifest(Path.cwd(), f"model: {tiny_model}\nserved_model_name: from-file\n")
    assert value(serve(), "--served-model-name") == "from-file"


@pytest.mark.parametrize("how", [["--file"], ["-f"], []], ids=["--file", "-f", "as the model"])
def test_a_named_manifest(serve: Any, tiny_model: Path, tmp_path: Path, how: list[str]) -> None:
    path = manifest(tmp_path, f"model: {tiny_model}\nserved_model_name: named\n", "other.yaml")
    assert value(serve(*how, path), "--served-model-name") == "named"


@pytest.mark.parametrize("suffix", ["json", "toml", "yml"])
def test_a_manifest_in_the_place_of_a_model(serve: Any, tiny_model: Path, tmp_path: Path, suffix: str) -> None:
    text = {"json": '{{"model": "{}"}}', "toml": 'model = "{}"', "yml": "model: {}"}[suffix]
    (tmp_path / f"one.{suffix}").write_text(text.format(tiny_model))
    assert serve(tmp_path / f"one.{suffix}")[2] == str(tiny_model)


def test_the_manifest_of_a_stack_beside_it(cli: Any, serve: Any, tiny_model: Path) -> None:
    Path("garrison.yaml").write_text("stack: lab\ntargets: {}\n")
    refused = cli("serve", "--dry-run")
    assert refused.code == 1
    assert "declares a stack" in refused.err
    assert "serve.yaml" in refused.err
    Path("serve.yaml").write_text(f"model: {tiny_model}\n")
    assert serve()[2] == str(tiny_model)
    assert cli("eval").code == 0


EMPTY = {
    "model": ["serve", ""],
    **{flag: ["serve", "m", flag, ""] for flag in ("--engine", "--host", "--served-model-name", "--adapter")},
    "key": ["serve", "m", "--api-key-env", ""],
}


@pytest.mark.parametrize("words", EMPTY.values(), ids=EMPTY)
def test_an_empty_value_is_no_default(cli: Any, serve: Any, words: list[str]) -> None:
    done = cli(*words, "--dry-run")
    assert done.code == 64
    assert "there is no value for" in done.err


def test_flags_win_over_the_manifest(serve: Any, tiny_model: Path, tmp_path: Path) -> None:
    path = manifest(
        tmp_path, f"model: {tiny_model}\nhost: 127.0.0.2\nserved_model_name: f\noptions:\n  seed: 1\nmax_lora_rank: 8\n"
    )
    words = serve("--file", path, "--host", "127.0.0.3", "--served-model-name", "c", "--", "--seed", "2")
    assert (value(words, "--host"), value(words, "--served-model-name")) == ("127.0.0.3", "c")
    assert words[-4:] == ["--seed", "1", "--seed", "2"]


def test_the_manifest_wins_over_variables(
    serve: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARRISON_ENGINE_HOST", "127.0.0.9")
    assert value(serve(tiny_model), "--host") == "127.0.0.9"
    path = manifest(tmp_path, f"model: {tiny_model}\nhost: 127.0.0.2\n")
    assert value(serve("--file", path), "--host") == "127.0.0.2"


def test_the_seeds_variables(serve: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MODELS_DIR", str(tiny_model.parent))
    monkeypatch.setenv("VLLM_MODEL", "tiny")
    monkeypatch.setenv("VLLM_MODEL_ORG", "acme")
    assert serve("--offline")[2] == str(tiny_model)


def test_a_dry_run_writes_nothing_to_standard_output(cli: Any, serve: Any, tiny_model: Path) -> None:
    assert cli("serve", tiny_model, "--dry-run").out == ""


def test_a_key_is_not_shown(serve: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-secret")
    assert "VLLM_API_KEY=$MY_KEY" in serve(tiny_model, "--api-key-env", "MY_KEY")


FAILURES = {
    "no such model": (["acme/nope", "--offline"], 10, "acme/nope"),
    "no such directory": (["./nope"], 10, "nope"),
    "no such manifest": (["--file", "nope.yaml"], 1, "nope.yaml"),
    "unknown engine": (["acme/tiny", "--engine", "vlm"], 1, "vlm"),
    "engine not there": (["acme/tiny", "--executable", "/nonexistent/vllm"], 20, "/nonexistent/vllm"),
    "engine not installed": (["acme/tiny", "--engine", "llama_cpp"], 20, "garrison engine install llama_cpp"),
}


@pytest.mark.parametrize(("words", "code", "said"), FAILURES.values(), ids=FAILURES)
def test_failure(cli: Any, serve: Any, words: list[str], code: int, said: str) -> None:
    done = cli("serve", *words)
    assert done.code == code, done
    assert said in done.err


def test_a_misspelt_engine_flag_is_named_with_the_right_one(cli: Any, serve: Any, tiny_model: Path) -> None:
    done = cli("serve", tiny_model, "--dry-run", "--", "--max-modle-len", "4096")
    assert done.code == 0
    assert "--max-model-len" in done.err
    assert done.err.count("id you mean") <= 1


def test_an_open_address_without_a_key_is_said(cli: Any, serve: Any, tiny_model: Path) -> None:
    assert "no API key is set" in cli("serve", tiny_model, "--dry-run", "--host", "0.0.0.0").err
    assert "no API key is set" not in cli("serve", tiny_model, "--dry-run").err
    given = cli("serve", tiny_model, "--dry-run", "--host", "0.0.0.0", "--", "--api-key=x").err
    assert "no API key is set" not in given


def test_a_key_among_the_engine_arguments_is_not_printed(cli: Any, serve: Any, tiny_model: Path) -> None:
    done = cli("serve", tiny_model, "--dry-run", "--", "--api-key", "sk-secret", "--seed", "1")
    assert "sk-secret" not in done.err
    assert "--api-key *** --seed 1" in done.err


def test_a_broken_adapter_is_said_before_anything_starts(cli: Any, serve: Any, tiny_model: Path, adapter: Any) -> None:
    done = cli("serve", tiny_model, "--dry-run", "--adapter", f"bad={adapter('bad', width=32)}")
    assert done.code == 11
    assert "adapter 'bad' does not fit the model" in done.err


def test_a_program_of_this_directory(serve: Any, cli: Any, tiny_model: Path) -> None:
    """`./mine` is a path; `mine` is a name, which is never looked up in the current directory."""
    mine = Path("mine")
    mine.write_text("#!/bin/sh\necho 0.32.0\n")
    mine.chmod(0o755)
    assert serve(tiny_model, "--executable", "./mine")[0] == str(mine.absolute())
    assert serve(tiny_model, "--executable", f"../{Path.cwd().name}/mine")[0].endswith("/mine")
    refused = cli("serve", tiny_model, "--executable", "mine", "--dry-run")
    assert refused.code == 20
    assert "Write ./mine for the one in this directory" in refused.err
    assert serve(tiny_model, "--executable", "vllm")[0].endswith("/bin/vllm")


@pytest.mark.parametrize("named", ["./mine", "sub/../mine", "{here}/mine"])
def test_the_program_of_a_manifest_is_relative_to_it(serve: Any, tiny_model: Path, tmp_path: Path, named: str) -> None:
    place = tmp_path / "place"
    (place / "sub").mkdir(parents=True)
    (place / "mine").write_text("#!/bin/sh\necho 0.32.0\n")
    (place / "mine").chmod(0o755)
    manifest = place / "garrison.yaml"
    manifest.write_text(f"model: {tiny_model}\nexecutable: {named.format(here=place)}\n")
    assert Path(serve("--file", manifest)[0]).samefile(place / "mine")


def test_an_address_of_another_machine_is_said_before_anything_is_fetched(serve: Any, cli: Any) -> None:
    done = cli("serve", "acme/nowhere", "--host", "192.0.2.1", "--dry-run")
    assert done.code == 1
    assert "'192.0.2.1' is not an address of this machine" in done.err
    done = cli("serve", "acme/nowhere", "--dry-run", "--", "--host", "192.0.2.1")
    assert "'192.0.2.1' is not an address of this machine" in done.err


ENGINE_FLAGS = {
    "--max-model-len 100": ("`--max-model-len` is an option of vLLM", "garrison serve MODEL -- --max-model-len"),
    "--max_model_len=100": ("`--max_model_len` is an option of vLLM", "-- --max_model_len"),
    "--max-model 100": ("`--max-model` is an option of vLLM", "-- --max-model"),
    "-tp 2": ("`-tp` is an option of vLLM", "-- -tp"),
    "--trust-remote-code": ("`--trust-remote-code` is an option of vLLM", "-- --trust-remote-code"),
    "--hf-overrides.rope_theta 1": ("`--hf-overrides.rope_theta` is an option of vLLM", "-- --hf-overrides.rope_theta"),
    "-e llama_cpp -ngl 99": ("`-ngl` is an option of llama.cpp", "MODEL -- -ngl"),
    "-e sim --dtype half": ("`--dtype` is an option of vLLM", "MODEL -- --dtype"),
    "-e mlx_lm --temp 0": ("`--temp` is an option of MLX LM", "MODEL -- --temp"),
    "--ctx-size 5": ("`--ctx-size` is an option of llama.cpp", "MODEL --engine llama_cpp -- --ctx-size"),
    "--max-modle-len 5": ("no option `--max-modle-len`; vLLM has --max-model-len", "-- --max-model-len"),
    "--prot 1": ("No such option: --prot (Possible options: --host, --port)", "garrison serve --help"),
    "--frobnicate": ("No such option: --frobnicate", "after --: garrison serve MODEL -- --x"),
}


@pytest.mark.parametrize("words", ENGINE_FLAGS)
def test_an_option_of_the_engine_before_the_separator(cli: Any, words: str) -> None:
    said, hint = ENGINE_FLAGS[words]
    done = cli("serve", "acme/tiny", *words.split())
    assert done.code == 64
    assert said in done.err
    assert hint in done.err


@pytest.mark.parametrize("option", ["--port", "--host", "--served-model-name", "-p"])
def test_an_option_of_its_own_without_its_value_is_not_called_the_engines(cli: Any, option: str) -> None:
    done = cli("serve", "acme/tiny", option)
    assert done.code == 64
    assert f"Option '{option}' requires an argument." in done.err
    assert "--help` shows the usage" in done.err
    assert "is an option of" not in done.err


def test_its_value_is_not_shown(cli: Any) -> None:
    done = cli("serve", "acme/tiny", "--api-key", "SECRET-1")
    assert "`--api-key` is an option of vLLM" in done.err
    assert "SECRET" not in done.err


@pytest.mark.parametrize("words", [[], ["acme/tiny"], ["x" * 300]], ids=["none", "a name", "a long name"])
def test_the_simulator_serves_any_name(cli, words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = cli("serve", *words, "-e", "sim", "--port", str(free_port()), "--dry-run")
    assert done.code == 0, done
    assert (words or ["acme/tiny"])[0] in done.err


def test_a_path_that_the_simulator_cannot_find_is_an_error(cli, tmp_path):
    assert cli("serve", tmp_path / "none", "-e", "sim", "--port", str(free_port()), "--dry-run").code in (10, 11)
