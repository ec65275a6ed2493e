"""Every command on a server that has `--json` gives the shape that docs/json.md describes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from json_calls import HEAD, SERVER, checked, documented
from server_lab import ServerLab
from tests_environment import environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerLab]:
    """A server that may be ended."""
    lab = ServerLab(tmp_path, environment(tmp_path))
    lab.start()
    monkeypatch.setenv("GARRISON_DATA_DIR", str(lab.data_dir))
    yield lab
    lab.close()


def test_an_answer_of_each(cli: Any, own: ServerLab, tiny_model: Path, tmp_path: Path) -> None:
    own.create("one", tiny_model)
    export = tmp_path / "export.json"
    export.write_text(json.dumps({"instances": {"carried": own.instance("one")["options"]}}))
    known = {"MODEL": tiny_model, "EXPORT": export, "NEW": "new"}
    for command, (words,) in SERVER.items():
        done = cli(*(known.get(word, word) for word in words), "--json")
        assert done.code == 0, (command, done.err)
        body = checked(done)
        assert body["ok"] is True, command
        if (keys := documented().get(command)) is not None:
            assert body.keys() == HEAD | keys, command


def test_a_list_in_json_can_be_imported(here: Any, server: ServerLab, tiny_model: Path, tmp_path: Path) -> None:
    server.create("listed", tiny_model)
    file = tmp_path / "list.json"
    file.write_text(here("instance", "list", "--json").out)
    assert "listed: exists, skipped" in here("instance", "import", file).out


def test_a_watch_is_a_stream(server: ServerLab, line: Any, clean_environ: Any, tiny_model: Path) -> None:
    import subprocess

    environ = {**clean_environ, "GARRISON_DATA_DIR": str(server.data_dir)}
    with subprocess.Popen(
        line("instance", "list", "--watch", "--json"), env=environ, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        process.terminate()
        process.stdout.read()
    assert (first["schema"], first["kind"]) == (1, "snapshot")
