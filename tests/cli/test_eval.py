import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "fleet"


def test_a_manifest_comes_out_as_one(cli: Any) -> None:
    done = cli("eval", "-f", EXAMPLES / "select.yaml")
    assert done.code == 0
    body = yaml.safe_load(done.out)
    assert body["adapters"]["german"]["targets"] == ["shop-berlin", "kiosk-7"]
    assert body["targets"]["shop-berlin"]["base_url"] == "http://10.1.0.10:8000"


def test_json(cli: Any) -> None:
    done = cli("eval", EXAMPLES / "cabinet.yaml", "--json")
    body = json.loads(done.out)
    assert list(body) == ["schema", "ok", "exit_code", "stack", "targets", "adapters", "models", "policy", "hooks"]
    assert body["adapters"] == [
        {
            "target": "local-vllm",
            "label": "sql",
            "lora_name": "sql",
            "lora_path": "/models/adapters/sql",
            "base_model_name": "acme/tiny",
            "is_3d_lora_weight": False,
            "digest": None,
            "probe": None,
        }
    ]


def test_files_are_merged_and_standard_input_is_one(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("stack: s\ntargets: {t: {host: h}}")
    monkeypatch.setattr("sys.stdin", io.StringIO("adapters: {x: {target: t, lora_path: /x}}"))
    body = json.loads(cli("eval", tmp_path / "a.yaml", "-f", "-", "--json").out)
    assert [one["label"] for one in body["adapters"]] == ["x"]


def test_the_default_is_garrison_yaml(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("eval").code == 1
    (tmp_path / "garrison.yaml").write_text("stack: here")
    assert cli("eval").out == "stack: here\n"


@pytest.mark.parametrize("arguments", [[], ["--json"]], ids=["yaml", "json"])
def test_no_secret_comes_out(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setenv("KEY", "sesame")
    (tmp_path / "m.yaml").write_text("stack: s\ntargets: {t: {host: h, api_key: '${KEY}', headers: {X-A: {env: KEY}}}}")
    done = cli("eval", tmp_path / "m.yaml", *arguments)
    assert done.code == 0
    assert "sesame" not in done.out + done.err


def test_warnings_go_to_standard_error(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    done = cli("eval", EXAMPLES / "forma.json", "--json")
    assert json.loads(done.out)["stack"] == "cabinet-7"
    assert done.err.startswith("warning: ")


def test_mistakes(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text("stack: s\ntargets: {t: {hots: h}}\npolicy: {on_drift: fix}")
    done = cli("eval", tmp_path / "m.yaml", "--json")
    assert done.code == 1
    body = json.loads(done.out)
    assert [one["where"] for one in body["problems"]] == [f"{tmp_path / 'm.yaml'}:2:15", f"{tmp_path / 'm.yaml'}:3:10"]
    assert "'host'" in body["problems"][0]["hint"]


@pytest.mark.parametrize("arguments", [["--json", "--yaml"], ["--prop", "x"], ["--prop", "=x"]], ids=" ".join)
def test_usage(cli: Any, arguments: list[str]) -> None:
    assert cli("eval", *arguments).code == 64
