"""The server is killed while a command waits for it: exit code 31, and no traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from server_lab import Labs, ServerLab

pytestmark = pytest.mark.system


@pytest.fixture
def labs(tmp_path: Path, clean_environ: Any) -> Any:
    made: list[ServerLab] = []

    def make() -> ServerLab:
        made.append(ServerLab(tmp_path, dict(clean_environ)))
        made[-1].start()
        return made[-1]

    yield make
    for one in made:
        one.close()


def command(lab: ServerLab, out: Path, *words: str) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", "garrison.cli.main", *words]
    with out.open("wb") as stream:
        return subprocess.Popen(argv, env=lab.environ, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)


@pytest.mark.parametrize("graceful", [False, True])
def test_while_a_log_is_followed(labs: Labs, tiny_model: Path, tmp_path: Path, until: Any, graceful: bool) -> None:
    lab = labs()
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    out = tmp_path / "out"
    process = command(lab, out, "instance", "logs", "a", "-f")
    until(lambda: "startup complete" in out.read_text(), what="the last lines")
    assert lab.chat("a").is_success
    until(lambda: out.read_text().count("POST /v1/chat/completions") > 1 or process.poll() is not None, what="news")
    if graceful:
        assert lab.end() == 0
    else:
        lab.kill()
    assert process.wait(20) == 31, out.read_text()
    assert "error: the server at" in out.read_text()
    assert "Traceback" not in out.read_text()


def test_while_a_start_is_waited_for(labs: Labs, tiny_model: Path, tmp_path: Path, until: Any) -> None:
    lab = labs()
    lab.create("a", tiny_model, backend_options={"startup_delay": 60})
    out = tmp_path / "out"
    process = command(lab, out, "instance", "start", "a")
    until(lambda: "starting" in out.read_text(), what="the start")
    lab.kill()
    assert process.wait(20) == 31, out.read_text()
    assert "Traceback" not in out.read_text()


def test_ctrl_c_ends_the_waiting_and_not_the_start(labs: Labs, tiny_model: Path, tmp_path: Path, until: Any) -> None:
    lab = labs()
    lab.create("a", tiny_model, backend_options={"startup_delay": 3})
    out = tmp_path / "out"
    process = command(lab, out, "instance", "start", "a")
    until(lambda: "starting" in out.read_text(), what="the start")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert "a goes on starting" in out.read_text()
    until(lambda: lab.instance("a")["state"] == "running", what="running")


def test_a_watch_sees_the_steps_and_the_end(labs: Labs, tiny_model: Path, tmp_path: Path, until: Any) -> None:
    lab = labs()
    lab.create("a", tiny_model)
    out = tmp_path / "out"
    process = command(lab, out, "instance", "list", "--watch")
    until(lambda: "stopped" in out.read_text(), what="the list")
    assert lab.chat("a").is_success
    until(lambda: "running  ready" in out.read_text(), what="the steps")
    lab.kill()
    assert process.wait(20) == 31
    text = out.read_text()
    assert text.index("a  starting") < text.index("a  running  ready")
    assert "Traceback" not in text


def test_a_reader_that_leaves(labs: Labs, tiny_model: Path, until: Any) -> None:
    """`garrison instance logs a -f | head -1`."""
    lab = labs()
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    argv = [sys.executable, "-m", "garrison.cli.main", "instance", "logs", "a", "-f"]
    with subprocess.Popen(argv, env=lab.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        for _ in range(3):
            lab.chat("a")
        assert process.wait(20) == 141
        assert process.stderr.read() == b""
    assert os.path.exists(lab.data_dir)  # noqa: PTH110
