"""The parts of `garrison engine` that need no engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from garrison.engines.environments import mark_complete

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


@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_use_and_remove_have_json(cli: Cli, clean_environ: Any, as_json: bool) -> None:
    for version in ("0.1.0", "0.2.0"):
        path = Path(clean_environ["GARRISON_DATA_DIR"]) / "engines" / "vllm" / f"{version}+cpu"
        path.mkdir(parents=True)
        facts = {"version": version, "device": "cpu", "executable": "bin/vllm", "installed_at": "2026-01-01"}
        mark_complete(path, engine="vllm", **facts)
    flags = ["--json"] if as_json else []
    used = cli("engine", "use", "vllm", "0.2.0", *flags)
    removed = cli("engine", "remove", "vllm", "0.1.0", "--yes", *flags)
    assert (used.code, removed.code) == (0, 0)
    if not as_json:
        assert (used.out, removed.out) == ("vllm 0.2.0+cpu is now in use\n", "removed vllm 0.1.0+cpu\n")
        return
    body = json.loads(used.out)
    assert (body["ok"], body["engine"], body["in_use"]) == (True, "vllm", True)
    assert json.loads(removed.out)["ok"] is True
    assert [one["in_use"] for one in json.loads(cli("engine", "list", "--json").out)["engines"]] == [True]
