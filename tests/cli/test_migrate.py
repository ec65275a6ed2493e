"""`garrison migrate`: the manifest, the notes, and what it does not do."""

import json
from pathlib import Path
from typing import Any

import pytest

CONFIG = """\
startPort: 9000
models:
  llama:
    cmd: llama-server -m /m/a.gguf --port ${PORT} -c 4096
    ttl: 60
    aliases: [gpt-4o]
    cmdStop: kill ${PID}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    return path


def test_what_it_writes_can_be_planned(cli: Any, config: Path, tmp_path: Path) -> None:
    written = tmp_path / "garrison.yaml"
    done = cli("migrate", "llama-swap", config, "-o", written)
    assert done.code == 0
    assert "1 instance, 1 route" in done.out
    assert "note: models.llama.cmdStop: no equivalent" in done.err
    assert "setting: GARRISON_INSTANCE_PORT_RANGE=9000-9999" in done.err
    text = written.read_text()
    assert "#   models.llama.cmdStop: no equivalent" in text
    assert "#   GARRISON_INSTANCE_PORT_RANGE=9000-9999" in text
    planned = cli("plan", written, "--json")
    assert planned.code == 0
    (one,) = json.loads(planned.out)["plan"]["instances"]
    assert (one["kind"], one["name"], one["summary"]) == ("create", "llama", "llama_cpp  /m/a.gguf")


def test_standard_output_holds_the_manifest_alone(cli: Any, config: Path, tmp_path: Path) -> None:
    done = cli("migrate", "llama-swap", config)
    (tmp_path / "again.yaml").write_text(done.out)
    assert cli("eval", tmp_path / "again.yaml").code == 0
    body = json.loads(cli("migrate", "llama-swap", config, "--json").out)
    assert body["manifest"] == done.out
    assert body["remarks"][0]["where"] == "models.llama.cmdStop"


def test_an_existing_file_is_not_overwritten(cli: Any, config: Path) -> None:
    done = cli("migrate", "llama-swap", config, "-o", config)
    assert done.code == 33
    assert config.read_text() == CONFIG


def test_control_characters_stay_in_their_line(cli: Any, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text('models: {m: {cmd: "x ${PORT}"}}\n"a\\nb: {c: d}\\e[31m": 1\n')
    done = cli("migrate", "llama-swap", path)
    assert done.code == 0
    assert "\x1b" not in done.out + done.err
    (tmp_path / "again.yaml").write_text(done.out)
    assert cli("eval", tmp_path / "again.yaml").code == 0


def test_a_system_that_is_not_known(cli: Any, config: Path) -> None:
    assert cli("migrate", "lmstudio", config).code == 64


def test_a_file_that_is_not_there(cli: Any, tmp_path: Path) -> None:
    done = cli("migrate", "ollama", tmp_path / "Modelfile")
    assert done.code == 1
    assert "there is no file" in done.err
