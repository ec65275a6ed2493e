import json
from pathlib import Path
from typing import Any

import pytest
from serve_command import free_port

SERVE_SIM = "serve", "--engine", "sim", "--port", str(free_port()), "--dry-run"


def test_a_directory(cli: Any, tiny_model: Path) -> None:
    done = cli("resolve", tiny_model)
    assert (done.code, done.out) == (0, f"{tiny_model}\n")


def test_json_one_object_a_step(cli: Any, tiny_model: Path) -> None:
    done = cli("resolve", tiny_model, "--json")
    steps = [json.loads(line) for line in done.out.splitlines()]
    assert steps[-1]["step"] == "resolved"
    assert steps[-1]["path"] == str(tiny_model)
    assert all("step" in step for step in steps)


def test_a_relative_directory_is_pinned_absolutely(cli: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny_model.parent)
    assert cli("resolve", "./tiny").out == f"{tiny_model}\n"


def test_a_hand_copied_model_in_the_models_directory(
    cli: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GARRISON_MODELS_DIR", str(tiny_model.parent))
    assert cli("resolve", "acme/tiny", "--source", "local", "--offline").out == f"{tiny_model}\n"


def test_the_model_of_the_seeds_variables(cli: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_MODELS_DIR", str(tiny_model.parent))
    monkeypatch.setenv("VLLM_MODEL", "tiny")
    monkeypatch.setenv("VLLM_MODEL_ORG", "acme")
    assert cli("resolve", "--offline").out == f"{tiny_model}\n"


def test_not_found_names_what_was_tried(cli: Any) -> None:
    done = cli("resolve", "acme/nope", "--offline", "--source", "local", "--source", "hf-cache")
    assert (done.code, done.out) == (10, "")
    assert "acme/nope" in done.err


def test_broken(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert cli("resolve", tmp_path).code == 11


def test_no_model(cli: Any) -> None:
    done = cli("resolve")
    assert done.code in (1, 64)
    assert done.err.startswith("error: ")


def test_unknown_source(cli: Any) -> None:
    done = cli("resolve", "acme/tiny", "--source", "floppy")
    assert done.code == 64
    assert "flox, local, hf-cache, r2, hf-hub" in done.err


@pytest.mark.parametrize("command", [["resolve"], [*SERVE_SIM]], ids=["resolve", "serve"])
@pytest.mark.parametrize("name", ["tiny", "acme/tiny"])
def test_a_directory_of_the_name_wins_with_a_word(
    cli: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], name: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(tiny_model)
    monkeypatch.chdir(tmp_path)
    done = cli(*command, name, "--offline")
    assert done.code == 0, done
    assert f"{name} is the directory ./{name} here" in done.err
    explicit = cli(*command, f"./{name}", "--offline")
    assert explicit.code == 0
    assert "is the directory" not in explicit.err


ADAPTER = {
    "resolve": (["resolve"], "garrison serve MODEL --adapter"),
    "serve": ([*SERVE_SIM], "garrison serve MODEL --adapter"),
    "models import": (["models", "import"], "garrison adapters import"),
    "models show": (["models", "show"], "garrison adapters import"),
    "models verify": (["models", "verify"], "garrison adapters import"),
}


@pytest.mark.parametrize(("command", "hint"), ADAPTER.values(), ids=ADAPTER)
def test_a_directory_with_an_adapter_says_so(cli: Any, adapter: Any, command: list[str], hint: str) -> None:
    done = cli(*command, adapter("sql"))
    assert done.code == 11
    assert "sql is a LoRA adapter, not a model" in done.err
    assert hint in done.err


def test_a_directory_with_a_model_is_no_adapter(cli: Any, tiny_model: Path) -> None:
    done = cli("adapters", "import", tiny_model)
    assert done.code == 11
    assert "is a model, not an adapter" in done.err
    assert "garrison models import" in done.err
