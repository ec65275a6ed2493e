"""`garrison serve --detach`: it returns when the engine answers, and what it started goes on."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]
GARRISON = [sys.executable, "-m", "garrison.cli.main"]


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


@pytest.fixture
def garrison(clean_environ: Mapping[str, str], tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs a command; at the end everything that serves is stopped."""
    environ = {**clean_environ, "GARRISON_DATA_DIR": str(tmp_path / "data"), "GARRISON_SKIP_GPU_CHECK": "1"}

    def run(*words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*GARRISON, *words], env=environ, capture_output=True, text=True, timeout=60, check=False)

    yield run
    for one in json.loads(run("ps", "--json").stdout)["runs"]:
        run("stop", str(one["name"]))


def test_it_serves_when_the_command_returns(garrison: Any, port: int) -> None:
    began = garrison("serve", "-e", "sim", "--port", str(port), "--detach", "--", "--startup-delay", "0.5")
    assert began.returncode == 0, began
    assert f"http://127.0.0.1:{port}/v1" in began.stdout
    assert "ready after" in began.stderr, "what happens until then is shown"
    assert "Loading weights" not in began.stderr, "the engine's log is in a file"
    assert httpx2.get(f"http://127.0.0.1:{port}/v1/models", trust_env=False).is_success
    (row,) = json.loads(garrison("ps", "--json").stdout)["runs"]
    stopped = garrison("stop", str(row["name"]))
    assert stopped.returncode == 0, stopped
    assert json.loads(garrison("ps", "--json").stdout)["runs"] == []


def test_what_does_not_start_is_told_with_its_exit_code(garrison: Any, port: int) -> None:
    done = garrison("serve", "/none/at/all", "-e", "sim", "--port", str(port), "--detach")
    assert done.returncode in (10, 11), done
    assert "/none/at/all" in done.stderr
    with socket.create_server(("127.0.0.1", port)):
        taken = garrison("serve", "-e", "sim", "--port", str(port), "--detach")
    assert taken.returncode == 2, taken


def test_ctrl_c_ends_what_was_started(
    garrison: Any, port: int, clean_environ: Mapping[str, str], tmp_path: Path
) -> None:
    environ = {**clean_environ, "GARRISON_DATA_DIR": str(tmp_path / "data"), "GARRISON_SKIP_GPU_CHECK": "1"}
    argv = [*GARRISON, "serve", "-e", "sim", "--port", str(port), "--detach", "--", "--startup-delay", "60"]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        deadline = time.monotonic() + 30
        log = tmp_path / "data" / "logs" / f"serve-{port}.log"
        while not (log.exists() and "weights" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.1)
        started.send_signal(signal.SIGINT)
        _, err = started.communicate(timeout=60)
    assert started.returncode == 130, err
    assert json.loads(garrison("ps", "--json").stdout)["runs"] == []


STUBBORN = """\
import signal, sys, time
if "--version" in sys.argv:
    sys.exit(print("0.32.0"))
signal.signal(signal.SIGTERM, lambda *_: print("not yet", flush=True))
print("loading", flush=True)
while True:
    time.sleep(1)
"""


@pytest.fixture
def starting(
    garrison: Any, port: int, clean_environ: Mapping[str, str], tmp_path: Path, tiny_model: Path, until: Any
) -> Iterator[Any]:
    """A detached command whose engine never is ready and does not end by SIGTERM; what it started; the log of that."""
    program = tmp_path / "vllm"
    program.write_text(f"#!{sys.executable}\n{STUBBORN}")
    program.chmod(0o755)
    environ = {**clean_environ, "GARRISON_DATA_DIR": str(tmp_path / "data"), "GARRISON_SKIP_GPU_CHECK": "1"}
    environ |= {"GARRISON_STOP_TIMEOUT": "60"}
    words = ["serve", str(tiny_model), "--executable", str(program), "--port", str(port), "--detach", "--logs"]
    process = subprocess.Popen([*GARRISON, *words], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    log = tmp_path / "data" / "logs" / f"serve-{port}.log"
    until(lambda: log.exists() and "loading" in log.read_text(), seconds=30, what="the start")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    yield process, int(children[0]), log
    if process.poll() is None:
        process.kill()
        process.communicate(timeout=30)


def test_one_that_is_killed_did_not_start(starting: Any, garrison: Any) -> None:
    process, child, _ = starting
    os.kill(child, signal.SIGKILL)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 21, err
    assert b"error: it was killed by SIGKILL before it was ready" in err
    assert out == b""


def test_a_second_ctrl_c_kills_an_engine_that_takes_its_time_to_stop(starting: Any, garrison: Any, until: Any) -> None:
    process, child, log = starting
    process.send_signal(signal.SIGINT)
    until(lambda: "not yet" in log.read_text(), what="the stop")
    assert process.poll() is None, "it waits for the engine"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert json.loads(garrison("ps", "--json").stdout)["runs"] == []
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize("flag", ["--dry-run", "--exec"])
def test_flags_that_do_not_go_with_it(garrison: Any, flag: str) -> None:
    assert garrison("serve", "-e", "sim", "--detach", flag).returncode == 64


def test_the_status_shows_what_serves_here(garrison: Any, port: int) -> None:
    assert "served on this machine" not in garrison("status").stdout
    assert garrison("serve", "-e", "sim", "--port", str(port), "--detach").returncode == 0
    shown = garrison("status").stdout
    assert "served on this machine" in shown
    assert str(port) in shown
    (row,) = json.loads(garrison("status", "--json").stdout)["serving"]
    assert (row["port"], row["kind"]) == (port, "serve")


def test_a_second_one_on_the_port_leaves_the_log_of_the_first(garrison: Any, port: int, tmp_path: Path) -> None:
    words = ("serve", "-e", "sim", "--port", str(port), "--detach")
    assert garrison(*words).returncode == 0
    log = tmp_path / "data" / "logs" / f"serve-{port}.log"
    before = log.read_text()
    assert "ready after" in before
    refused = garrison(*words)
    assert refused.returncode == 2, refused
    assert "ready after" not in refused.stderr, "only what is new is shown"
    assert log.read_text().startswith(before)
