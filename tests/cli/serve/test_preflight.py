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


def test_the_port_of_the_command_is_checked(cli: Any, port: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = str(listener.getsockname()[1])
        words = ["--dry-run", "--", "vllm", "serve", "m", "--port", number]
        assert cli("preflight", *words).code == 2
        assert cli("preflight", "--port", port(), *words).code == 0


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


HEADLESS = "import sys, time; sys.argv[1:2] == ['serve'] or sys.exit(9); time.sleep(1.5); sys.exit(7)"


@pytest.mark.parametrize("flags", [["--headless"], ["--uds", "x.sock"], ["--uds=x.sock"], ["--headles"]])
def test_a_vllm_that_takes_no_port_is_not_stopped_for_it(
    run: Any, clean_environ: Any, port: Any, tmp_path: Path, flags: list[str]
) -> None:
    """Neither is its port looked at, nor is it expected to bind one."""
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable} -I\n{HEADLESS}\n")
    program.chmod(0o755)
    environ = {**clean_environ, "GARRISON_START_BIND_TIMEOUT": "0.3"}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = str(listener.getsockname()[1])
        words = ["preflight", "--port", number, "--", program, "serve", "m", *flags]
        done = run("-m", "garrison.cli.main", *words, env=environ)
        assert done.code == 7, done.err


def test_one_that_takes_a_port_has_to_bind_it(run: Any, clean_environ: Any, port: Any, tmp_path: Path) -> None:
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable} -I\n{HEADLESS}\n")
    program.chmod(0o755)
    environ = {**clean_environ, "GARRISON_START_BIND_TIMEOUT": "0.3"}
    words = ["preflight", "--port", port(), "--", program, "serve", "m", "--help-me-not", "--api-key", "x"]
    assert run("-m", "garrison.cli.main", *words, env=environ).code == 5


def test_the_contract_of_vllm_preflight_clears_the_port_whatever_the_command_is(
    run: Any, clean_environ: Any, port: Any, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        environ = {**clean_environ, "VLLM_HOST": "127.0.0.1", "VLLM_PORT": str(listener.getsockname()[1])}
        done = run("-c", "from garrison.cli.scripts.vllm_preflight import main; raise SystemExit(main())",
                   "vllm", "serve", "m", "--headless", env=environ)  # fmt: skip
    assert done.code == 2
