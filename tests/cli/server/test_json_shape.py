"""Every command on a server that has `--json` gives the shape that docs/json.md describes."""

import json
from pathlib import Path
from typing import Any

import pytest
from json_calls import SERVER, checked
from server_lab import ServerLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


def test_an_answer_of_each(here: Any, server: ServerLab, tiny_model: Path, tmp_path: Path) -> None:
    server.create("one", tiny_model)
    export = tmp_path / "export.json"
    export.write_text(json.dumps({"instances": {"carried": server.instance("one")["options"]}}))
    known = {"MODEL": tiny_model, "EXPORT": export, "NEW": "new"}
    for command, (words,) in SERVER.items():
        done = here(*(known.get(word, word) for word in words), "--json")
        assert done.code == 0, (command, done.err)
        assert checked(done)["ok"] is True, command


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
