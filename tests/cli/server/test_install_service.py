"""`garrison up --install-service --user`."""

from pathlib import Path
from typing import Any

import pytest

from garrison.cli.server import service


@pytest.fixture
def unit(clean_environ: Any) -> Path:
    return Path(clean_environ["XDG_CONFIG_HOME"]) / "systemd" / "user" / "garrison.service"


def test_it_is_written_once(cli: Any, unit: Path, clean_environ: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("GARRISON_SERVER_HOST", "0.0.0.0")
    done = cli("up", "--install-service", "--user", "--port", "8081")
    assert done.code == 0, done.err
    text = unit.read_text()
    assert " up --port=8081\n" in text
    assert f"GARRISON_DATA_DIR={clean_environ['GARRISON_DATA_DIR']}" in text
    assert "hf_secret" not in text + done.out
    assert "GARRISON_SERVER_HOST" in done.out, "what the service will not have is named"
    assert "systemctl --user enable --now garrison" in done.out
    secrets = unit.parents[2] / "garrison" / "server.env"
    assert secrets.stat().st_mode & 0o777 == 0o600
    secrets.write_text("HF_TOKEN=x\n")
    secrets.chmod(0o644)
    assert "up to date" in cli("up", "--install-service", "--user", "--port", "8081").out
    assert (secrets.read_text(), secrets.stat().st_mode & 0o777) == ("HF_TOKEN=x\n", 0o600)


def test_a_different_one_is_not_overwritten_unasked(cli: Any, unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit.parent.mkdir(parents=True)
    unit.write_text("mine")
    assert cli("up", "--install-service", "--user").code == 64
    monkeypatch.setattr(service, "asked", lambda _question: False)
    assert cli("up", "--install-service", "--user").code == 41
    assert unit.read_text() == "mine"
    assert cli("up", "--install-service", "--user", "--yes").code == 0
    assert unit.read_text().startswith("[Unit]")


def test_a_dry_run_writes_nothing(cli: Any, unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.yaml").write_text("server_port: 8081\n")
    done = cli("up", "--install-service", "--user", "--dry-run", "--config", "here.yaml")
    assert done.out.startswith(f"# {unit}\n[Unit]")
    assert f"--config={Path.cwd() / 'here.yaml'}" in done.out
    assert not unit.exists()


def test_a_manifest_is_part_of_the_unit(cli: Any, unit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli("up", "--install-service", "--user", "--dry-run", "-f", "box.yaml")
    assert f"--file={tmp_path / 'box.yaml'}" in done.out
    done = cli("up", "--install-service", "--user", "--dry-run", "-f", "-")
    assert done.code == 64
    assert "standard input" in done.err


def test_where_it_may_not_be_written(cli: Any, unit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, _content: str, *, mode: int) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(service, "write_atomic", refuse)
    done = cli("up", "--install-service", "--user")
    assert done.code == 40
    assert f"{unit} may not be written" in done.err
