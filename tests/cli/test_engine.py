"""The parts of `garrison engine` that need no engine."""

import json
from collections.abc import Callable
from typing import Any

import pytest

Cli = Callable[..., Any]


def test_describe_shows_the_requested_option(cli: Cli) -> None:
    done = cli("engine", "describe", "vllm", "--shipped", "--option", "--max-model-len", "--json")
    assert done.code == 0
    assert [option["flag"] for option in json.loads(done.out)["options"]] == ["--max-model-len"]


DESCRIBED = {
    "max-model-len": "--max-model-len",
    "max_model_len": "--max-model-len",
    "--max_model_len": "--max-model-len",
    "tp": "--tensor-parallel-size",
    "-tp": "--tensor-parallel-size",
    "no-enable-lora": "--enable-lora",
    "compilation-config.mode": "--compilation-config",
    "-cc": "--compilation-config",
}


@pytest.mark.parametrize("name", DESCRIBED)
def test_an_option_is_described_with_or_without_its_dashes(cli: Cli, name: str) -> None:
    done = cli("engine", "describe", "vllm", "--shipped", f"--option={name}", "--json")
    assert [option["flag"] for option in json.loads(done.out)["options"]] == [DESCRIBED[name]]


def test_a_short_option_of_llama_cpp_is_described(cli: Cli) -> None:
    done = cli("engine", "describe", "llama_cpp", "--shipped", "-o", "ngl", "--json")
    assert [option["flag"] for option in json.loads(done.out)["options"]] == ["--gpu-layers"]


def test_describe_suggests_with_json_as_without(cli: Cli) -> None:
    for extra in ((), ("--json",)):
        done = cli("engine", "describe", "vllm", "--shipped", "--option", "--max-modle-len", *extra)
        assert done.code == 1
        assert "Did you mean --max-model-len?" in done.err


def test_no_engine_installed_is_not_an_error(cli: Cli) -> None:
    done = cli("engine", "list")
    assert done.code == 0
    assert "garrison engine install vllm" in done.out


def test_a_data_directory_that_cannot_be_made(cli: Cli, clean_environ: Any, monkeypatch: Any, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GARRISON_DATA_DIR", str(tmp_path / "file" / "data"))
    done = cli("engine", "install", "mlx_lm")
    assert done.code == 1
    assert "GARRISON_DATA_DIR" in done.err


def test_a_group_alone_prints_its_help_and_no_empty_error(cli: Cli) -> None:
    done = cli("engine")
    assert done.code == 0
    assert "install" in done.out + done.err
    assert "error:" not in done.err
