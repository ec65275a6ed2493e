import json
from pathlib import Path
from typing import Any

import pytest

from garrison.base.settings import Settings


def test_json_has_every_setting(cli: Any) -> None:
    body = json.loads(cli("config", "show", "--json").out)["settings"]
    assert list(body) == [row.name for row in Settings.table()]
    assert body["engine_port"] == {
        "value": 8000,
        "from": "default",
        "variables": ["GARRISON_ENGINE_PORT", "VLLM_PORT"],
        "group": "endpoint",
        "help": "Port an engine listens on.",
    }


def test_where_values_come_from(cli: Any, clean_environ: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = Path(clean_environ["XDG_CONFIG_HOME"]) / "garrison" / "config.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("stop_timeout: 7\n")
    monkeypatch.setenv("VLLM_PORT", "9000")
    body = json.loads(cli("config", "show", "--json", "--changed").out)["settings"]
    assert {name: entry["from"] for name, entry in body.items()} == {
        "data_dir": "GARRISON_DATA_DIR",
        "engine_port": "VLLM_PORT",
        "stop_timeout": str(file),
    }


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["table", "json"])
def test_secrets_are_not_shown(cli: Any, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdefghij")
    done = cli("config", "show", *arguments)
    assert "hf_abcdefghij" not in done.out + done.err
    assert "set" in done.out


def test_table(cli: Any) -> None:
    out = cli("config", "show").out
    for row in Settings.table():
        assert row.name in out
    assert "config file: " in out


def test_an_invalid_value_is_reported(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PORT", "tcp://10.0.0.1:8000")
    done = cli("config", "show")
    assert done.code == 1
    assert "VLLM_PORT must be an integer from 1 to 65535" in done.err


def test_a_mistyped_variable_is_reported_once(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARRISON_STOPTIMEOUT", "1")
    done = cli("config", "show", "--json")
    assert done.err.count("GARRISON_STOP_TIMEOUT") == 1
    assert done.err.startswith("warning: GARRISON_STOPTIMEOUT is not a setting and has no effect")
    assert "STOPTIMEOUT" not in done.out


def test_a_command_that_reads_settings_twice_says_it_once(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GARRISON_STOPTIMEOUT", "1")
    assert cli("adapters", "list").err.count("GARRISON_STOPTIMEOUT") == 1


@pytest.mark.parametrize("group", ["adapters", "engine", "models"])
def test_a_group_alone_prints_its_help(cli, group):
    done = cli(group)
    assert (done.code, done.err) == (0, "")
    assert done.out.split() == cli(group, "--help").out.split()


@pytest.mark.parametrize("flags", [[], ["--json"], ["--changed"], ["--changed", "--json"]], ids=str)
def test_alone_it_shows(cli: Any, flags: list[str]) -> None:
    alone, shown = cli("config", *flags), cli("config", "show", *flags)
    assert alone.code == 0
    assert alone.out == shown.out != ""
