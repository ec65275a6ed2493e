"""A model that an instance or a `garrison serve` needs is not removed."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_lab import ServerLab

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]


@pytest.fixture
def model(here: Any, tiny_model: Path) -> Path:
    done = here("models", "import", tiny_model, "--as", "acme/needed", "--json")
    return Path(json.loads(done.out)["path"])


@pytest.mark.parametrize("by_name", [True, False], ids=["name", "path"])
def test_of_an_instance(here: Any, server: ServerLab, model: Path, by_name: bool) -> None:
    server.create("needs", Path("acme/needed") if by_name else model)
    refused = here("models", "remove", "acme/needed", "--yes")
    assert refused.code == 33
    assert "instance needs (stopped) serves it: garrison instance delete needs" in refused.err
    server.api("POST", "/instances/needs/start")
    server.chat("needs")
    assert "instance needs (running) serves it: garrison instance delete needs --stop" in (
        here("models", "remove", "acme/needed", "--yes").err
    )
    assert here("instance", "delete", "needs", "--stop", "--yes").code == 0
    assert here("models", "remove", "acme/needed", "--yes").code == 0
    assert not model.exists()


def test_of_a_running_serve(here: Any, server: ServerLab, model: Path, tmp_path: Path, until: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = tmp_path / "serve"
    words = ["serve", str(model), "-e", "sim", "-p", str(port)]
    environ = server.environ | {"GARRISON_PREFLIGHT_LOCKFILE": str(tmp_path / "{port}.lock")}
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "garrison.cli.main", *words], env=environ, stderr=out)
    try:
        until(lambda: "ready after" in log.read_text(), seconds=60, what="ready")
        refused = here("models", "remove", "acme/needed", "--yes")
        assert refused.code == 33
        assert f"garrison serve sim-{port} (pid" in refused.err
        assert f"runs with it: garrison stop sim-{port}" in refused.err
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert here("models", "remove", "acme/needed", "--yes").code == 0


def test_of_instances_without_their_server(cli: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_model: Path):
    from tests_environment import environment

    lab = ServerLab(tmp_path, environment(tmp_path))
    lab.start()
    try:
        lab.create("offline", tiny_model)
        lab.end()
        monkeypatch.setenv("GARRISON_DATA_DIR", str(lab.data_dir))
        assert cli("models", "import", tiny_model, "--as", "tiny").code == 0
        path = json.loads(cli("models", "list", "--json").out)["models"][0]["path"]
        lab.start()
        lab.create("here", Path(path))
        lab.end()
        refused = cli("models", "remove", "tiny", "--yes")
        assert (refused.code, refused.err.count("serves it")) == (33, 1)
        assert "instance here (stopped) serves it" in refused.err
    finally:
        lab.close()


def test_a_node_that_is_removed_says_what_goes_on_there(here: Any, server: ServerLab) -> None:
    assert here("nodes", "add", "away", "http://127.0.0.1:1").code == 0
    done = here("nodes", "remove", "away")
    assert (done.code, done.out) == (0, "node away removed\n")
