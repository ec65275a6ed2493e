"""Every command that has `--json` gives the shape that docs/json.md describes, whether it succeeds or fails."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from json_calls import FLEET, HEAD, LOCAL, ON_A_REQUEST, OTHER_FORMAT, PAGE, SERVER, STREAMS, checked, documented

import garrison.cli
from garrison.cli.settings.words import every_node
from garrison.engines.environments import environment_of, mark_complete

COMMANDS = [
    node.path.removeprefix("garrison ")
    for node in every_node()
    if any("--json" in option.spellings for option in node.options)
]
PRINTS_OTHER_JSON = {
    "cli/fleet/schema.py",  # a JSON Schema
    "cli/fleet/extract.py",  # a manifest
    "cli/engines/parse.py",  # the options of an engine
    "cli/server/requests.py",  # a request that was kept
    "cli/scripts/vllm_resolve_model.py",  # the seed's shape
    "cli/scripts/vllm_preflight.py",
}


def test_each_command_has_a_call_here() -> None:
    assert {*LOCAL, *FLEET, *SERVER, *ON_A_REQUEST, *STREAMS, *OTHER_FORMAT} == set(COMMANDS)


def test_each_command_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [one for one in COMMANDS if f"`{one}`" not in page] == []


def test_no_command_makes_json_of_its_own() -> None:
    root = Path(garrison.cli.__file__).parent
    found = set()
    for file in root.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and ".dumps(" in ast.unparse(node):
                found.add(f"cli/{file.relative_to(root)}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "print" and "dumps)" in ast.unparse(node):
                found.add(f"cli/{file.relative_to(root)}")
    assert found - {"cli/outermost.py"} <= PRINTS_OTHER_JSON


@pytest.fixture
def places(
    clean_environ: Any, tmp_path: Path, tiny_model: Path, adapter: Any, start: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """`places(word)`: what a word in capitals stands for. Two engines are there."""
    data_dir = Path(clean_environ["GARRISON_DATA_DIR"])
    for version in ("0.1.0", "0.2.0"):
        path = data_dir / "engines" / "vllm" / f"{version}+cpu"
        path.mkdir(parents=True)
        mark_complete(
            path, engine="vllm", version=version, device="cpu", executable="bin/vllm", installed_at="2026-01-01"
        )
    monkeypatch.setattr(
        "garrison.cli.engines.engine.install_engine", lambda *_, **__: environment_of(data_dir, "vllm", "0.1.0+cpu")
    )
    swap = tmp_path / "swap.yaml"
    swap.write_text("models:\n  a:\n    cmd: llama-server -m /m/a.gguf --port ${PORT}\n")
    known = {
        "MODEL": lambda: tiny_model,
        "ADAPTER": lambda: adapter("sql"),
        "SWAP": lambda: swap,
        "URL": lambda: start().url,
        "PORT": lambda: "21871",
    }
    return lambda word: known[word]() if word in known else word


@pytest.mark.system
@pytest.mark.parametrize("command", LOCAL)
def test_an_answer(cli: Any, places: Any, command: str) -> None:
    *before, last = LOCAL[command]
    for words in before:
        assert cli(*map(places, words)).code == 0
    done = cli(*map(places, last), "--json")
    body = checked(done)
    assert body["ok"] == (done.code == 0)
    if (keys := documented().get(command)) is not None:
        assert body.keys() == HEAD | keys


@pytest.mark.parametrize("command", COMMANDS)
def test_a_usage_error(cli: Any, command: str) -> None:
    done = cli(*command.split(), "--no-such-option", "--json")
    body = json.loads(done.out)
    assert body.keys() >= HEAD | {"code", "error"}
    assert (body["schema"], body["ok"], body["code"], body["exit_code"], done.code) == (1, False, "usage", 64, 64)


FAILURES = [
    ["models", "show", "nothing"],
    ["adapters", "verify", "nothing"],
    ["engine", "remove", "vllm", "9.9.9", "-y"],
    ["keys", "show", "nobody"],
    ["resolve", "./nothing"],
    ["wait", "http://127.0.0.1:1", "-t", "0.1", "-q"],
    ["instance", "list"],
    ["nodes", "list"],
    ["usage"],
]


@pytest.mark.parametrize("words", FAILURES, ids=" ".join)
def test_a_failure(cli: Any, words: list[str]) -> None:
    done = cli(*words, "--json")
    body = checked(done)
    assert done.code != 0
    assert body["ok"] is False
    assert body["error"]


def test_a_command_that_a_signal_ends(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("garrison.cli.artifacts.models.list_models", interrupted)
    body = checked(cli("models", "list", "--json"))
    assert (body["ok"], body["code"], body["exit_code"]) == (False, "interrupted", 130)
