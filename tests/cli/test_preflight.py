import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.system


@pytest.fixture
def port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    monkeypatch.setenv("GARRISON_SKIP_GPU_CHECK", "1")
    monkeypatch.setenv("GARRISON_PREFLIGHT_LOCKFILE", str(tmp_path / "{port}.lock"))

    def free() -> str:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            return str(listener.getsockname()[1])

    return free


def test_free(cli: Any, port: Any) -> None:
    assert cli("preflight", "--port", port()).code == 0


def test_json(cli: Any, port: Any) -> None:
    number = port()
    body = json.loads(cli("preflight", "--port", number, "--json").out)
    assert body["ok"]
    assert (body["host"], body["port"], body["port_action"]) == ("127.0.0.1", int(number), "noop")
    assert body["gpu_check_source"] == "skipped"


@pytest.mark.parametrize("extra", [[], ["--dry-run"]], ids=["for real", "dry run"])
def test_foreign(cli: Any, port: Any, extra: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = str(listener.getsockname()[1])
        done = cli("preflight", "--port", number, "--json", *extra)
        listener.getsockname()
    body = json.loads(done.out)
    assert (done.code, body["code"], body["exit_code"]) == (2, "port-foreign", 2)
    assert body["pids"] == [os.getpid()]


@pytest.mark.parametrize("separator", [["--"], []], ids=["with --", "without --"])
@pytest.mark.parametrize("how", [[], ["--exec"]], ids=["proxy", "exec"])
def test_downstream(run: Any, cli: Any, port: Any, clean_environ: Any, separator: list[str], how: list[str]) -> None:
    number = port()
    words = ["preflight", "--port", number, *how, *separator, sys.executable, "-c", "import sys; sys.exit(7)", "--json"]
    assert run("-m", "garrison.cli.main", *words, env=dict(clean_environ)).code == 7


def test_downstream_that_is_not_there(cli: Any, port: Any) -> None:
    assert cli("preflight", "--port", port(), "--", "/nonexistent/program").code == 20


def test_dry_run_starts_nothing(cli: Any, port: Any, tmp_path: Path) -> None:
    done = cli("preflight", "--port", port(), "--dry-run", "--", "touch", tmp_path / "ran")
    assert done.code == 0
    assert not (tmp_path / "ran").exists()


def test_json_and_a_command_exclude_each_other(cli: Any, port: Any) -> None:
    assert cli("preflight", "--port", port(), "--json", "--", "true").code == 1
