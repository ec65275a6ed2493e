import json
import os
import pty
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest


def listed(cli: Any) -> list[dict[str, Any]]:
    return list(json.loads(cli("models", "list", "--json").out)["models"])


def models_dir(environ: Any) -> Path:
    return Path(environ["GARRISON_DATA_DIR"]) / "models"


def test_round_trip(cli: Any, clean_environ: Any, tiny_model: Path) -> None:
    assert listed(cli) == []
    assert "garrison models import DIR" in cli("models", "list").out

    done = cli("models", "import", tiny_model, "--as", "acme/tiny", "--json")
    body = json.loads(done.out)
    assert (done.code, body["ok"], body["model_id"], body["changed"]) == (0, True, "acme/tiny", True)
    where = Path(body["path"])
    assert where.parent == models_dir(clean_environ)
    assert (where / "config.json").read_bytes() == (tiny_model / "config.json").read_bytes()
    assert (tiny_model / "config.json").exists()

    (entry,) = listed(cli)
    assert (entry["model_id"], entry["valid"], entry["path"]) == ("acme/tiny", True, str(where))
    assert "acme/tiny" in cli("models", "list").out

    shown = json.loads(cli("models", "show", "acme/tiny", "--json").out)
    assert (shown["model_id"], shown["valid"]) == ("acme/tiny", True)
    assert shown["info"]
    assert "acme/tiny" in cli("models", "show", "acme/tiny").out

    assert json.loads(cli("models", "verify", "acme/tiny", "--json").out)["ok"]
    assert cli("models", "verify", "acme/tiny").code == 0

    done = cli("models", "remove", "acme/tiny", "--yes", "--json")
    assert (done.code, json.loads(done.out)["ok"]) == (0, True)
    assert not where.exists()
    assert listed(cli) == []


def test_import_twice_changes_nothing(cli: Any, tiny_model: Path) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    done = cli("models", "import", tiny_model, "--as", "acme/tiny")
    assert done.code == 0
    assert "already there" in done.out


def test_import_of_a_tar(cli: Any, tmp_path: Path, tiny_model: Path) -> None:
    with tarfile.open(tmp_path / "tiny.tar.gz", "w:gz") as archive:
        archive.add(tiny_model, "tiny")
    assert cli("models", "import", tmp_path / "tiny.tar.gz", "--as", "acme/tiny").code == 0
    assert [entry["model_id"] for entry in listed(cli)] == ["acme/tiny"]


def test_import_of_a_broken_one(cli: Any, tmp_path: Path, tiny_model: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    done = cli("models", "import", broken, "--as", "acme/broken")
    assert done.code == 11
    assert "model.safetensors" in done.err
    assert listed(cli) == []


def test_import_of_nothing(cli: Any, tmp_path: Path) -> None:
    done = cli("models", "import", tmp_path / "nope")
    assert done.code != 0
    assert str(tmp_path / "nope") in done.err


def test_move(cli: Any, tmp_path: Path, tiny_model: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(tiny_model, mine)
    assert cli("models", "import", mine, "--as", "acme/tiny", "--move").code == 0
    assert not mine.exists()


def test_verify_finds_a_changed_file(cli: Any, clean_environ: Any, tiny_model: Path) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    cli("models", "verify", "acme/tiny")
    weights = models_dir(clean_environ) / "tiny" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = cli("models", "verify", "acme/tiny")
    assert done.code == 11
    assert "✗ changed   model.safetensors" in done.out
    body = json.loads(cli("models", "verify", "acme/tiny", "--json").out)
    assert not body["ok"]
    assert [file["name"] for file in body["files"] if file["state"] == "changed"] == ["model.safetensors"]


def test_a_broken_one_is_listed_with_its_reason(cli: Any, clean_environ: Any, tiny_model: Path) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    (models_dir(clean_environ) / "tiny" / "model.safetensors").unlink()
    (entry,) = listed(cli)
    assert not entry["valid"]
    assert entry["reason"]
    assert entry["reason"][:20] in cli("models", "list").out


@pytest.mark.parametrize("command", ["show", "verify", "remove"])
def test_not_there(cli: Any, command: str) -> None:
    done = cli("models", command, "acme/nope", *(["--yes"] if command == "remove" else []))
    assert done.code == 10
    assert "acme/nope" in done.err


@pytest.mark.parametrize("name", ["..", "../..", "/", "/etc", "hub", ".staging", ""])
def test_nothing_outside_is_removed(cli: Any, clean_environ: Any, tiny_model: Path, name: str) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    assert cli("models", "remove", name, "--yes").code in (1, 10)
    assert (models_dir(clean_environ) / "tiny" / "config.json").exists()


@pytest.mark.system
@pytest.mark.parametrize("answer", ["", "n\n", "y\n"], ids=["nothing", "no", "yes"])
def test_remove_without_a_terminal_and_without_yes_does_nothing(
    cli: Any, run: Any, clean_environ: Any, tiny_model: Path, answer: str
) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    done = run("-m", "garrison.cli.main", "models", "remove", "acme/tiny", input=answer)
    assert (done.code, done.out) == (64, "")
    assert "--yes" in done.err
    assert (models_dir(clean_environ) / "tiny" / "config.json").exists()


ANSWERS = {"y": True, "yes": True, "Y": True, "n": False, "": False, "maybe": False}


@pytest.mark.parametrize(("answer", "removed"), ANSWERS.items(), ids=[*map(repr, ANSWERS)])
def test_remove_asks_at_a_terminal(
    cli: Any, clean_environ: Any, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, answer: str, removed: bool
) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    person, terminal = pty.openpty()
    os.write(person, f"{answer}\n".encode())
    with open(terminal, encoding="utf-8") as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        done = cli("models", "remove", "acme/tiny")
    os.close(person)
    assert done.code == (0 if removed else 41)
    assert done.err.startswith("\nRemove acme/tiny, ")
    assert done.out.startswith("removed acme/tiny") == removed
    assert (models_dir(clean_environ) / "tiny").exists() != removed


def test_an_imported_model_resolves_offline(cli: Any, clean_environ: Any, tiny_model: Path) -> None:
    cli("models", "import", tiny_model, "--as", "acme/tiny")
    done = cli("resolve", "acme/tiny", "--offline")
    assert (done.code, done.out) == (0, f"{models_dir(clean_environ) / 'tiny'}\n")
