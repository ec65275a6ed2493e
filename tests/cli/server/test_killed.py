"""The server is killed, or ends, while commands wait for it: exit code 31, and no traceback."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_lab import ServerLab
from tests_environment import environment

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
_SECONDS = 40.0

Command = Callable[..., tuple["subprocess.Popen[bytes]", Callable[[], str]]]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerLab]:
    root = tmp_path_factory.mktemp("lab")
    made = ServerLab(root, environment(root))
    made.start()
    yield made
    made.close()


@pytest.fixture
def command(lab: ServerLab, tmp_path: Path) -> Iterator[Command]:
    """`command("instance", "logs", "a")`: its process, and what it has printed."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str) -> tuple["subprocess.Popen[bytes]", Callable[[], str]]:
        out = tmp_path / f"out{len(started)}"
        argv = [sys.executable, "-m", "garrison.cli.main", *words]
        with out.open("wb") as stream:
            started.append(
                subprocess.Popen(argv, env=lab.environ, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL)
            )
        return started[-1], out.read_text

    yield start
    for one in started:
        one.kill()
        one.wait()


def test_ctrl_c_ends_the_waiting_and_not_the_start(
    lab: ServerLab, tiny_model: Path, command: Command, until: Any
) -> None:
    lab.create("waited", tiny_model, backend_options={"startup_delay": 8})
    process, text = command("instance", "start", "waited")
    until(lambda: "waited: " in text(), seconds=_SECONDS, what="the start")
    process.send_signal(signal.SIGINT)
    assert process.wait(_SECONDS) == 130
    assert "waited goes on starting" in text()
    until(lambda: lab.instance("waited")["state"] == "running", seconds=_SECONDS, what="running")


def test_a_reader_that_leaves(lab: ServerLab, tiny_model: Path) -> None:
    """`garrison instance logs read -f | head -1`."""
    lab.create("read", tiny_model)
    assert lab.chat("read").is_success
    argv = [sys.executable, "-m", "garrison.cli.main", "instance", "logs", "read", "-f"]
    with subprocess.Popen(argv, env=lab.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()  # nothing more is logged: the next line would not tell it
        try:
            assert process.wait(_SECONDS) == 141
        finally:
            process.kill()
        assert process.stderr.read() == b""


def test_the_end_of_an_engine_whose_log_is_followed(
    lab: ServerLab, tiny_model: Path, command: Command, until: Any
) -> None:
    lab.create("ends", tiny_model)
    assert lab.chat("ends").is_success
    process, text = command("instance", "logs", "ends", "-f")
    until(lambda: "startup complete" in text(), seconds=_SECONDS, what="the last lines")
    lab.api("POST", "/instances/ends/stop")
    until(lambda: "the engine of ends has ended: stopped: " in text(), seconds=_SECONDS, what="its end")
    assert lab.chat("ends").is_success
    until(lambda: text().count("startup complete") > 1, seconds=_SECONDS, what="the lines of the next engine")
    lab.api("POST", "/instances/ends/stop")
    until(lambda: text().count("has ended: stopped") == 2, seconds=_SECONDS, what="its end")
    lab.api("DELETE", "/instances/ends")
    assert process.wait(_SECONDS) == 0
    assert text().endswith("the engine of ends has ended: deleted: the instance was deleted\n")


@pytest.mark.parametrize("graceful", [False, True])
def test_the_end_of_the_server(lab: ServerLab, tiny_model: Path, command: Command, until: Any, graceful: bool) -> None:
    a, b = f"a{graceful}", f"b{graceful}"
    assert lab.process is not None
    if lab.process.poll() is not None:
        lab.start()
    lab.create(a, tiny_model)
    lab.create(b, tiny_model, backend_options={"startup_delay": 60})
    watch, watched = command("instance", "list", "--watch")
    until(lambda: f"{a} " in watched(), seconds=_SECONDS, what="the list")
    assert lab.chat(a).is_success
    until(lambda: f"{a}  running  ready" in watched(), seconds=_SECONDS, what="the steps")
    logs, lines = command("instance", "logs", a, "-f")
    until(lambda: "startup complete" in lines(), seconds=_SECONDS, what="the last lines")
    lab.api("POST", f"/instances/{a}/restart")
    until(lambda: lines().count("startup complete") > 1, seconds=_SECONDS, what="the lines of the next engine")
    start, waited = command("instance", "start", b)
    until(lambda: f"{b}: " in waited(), seconds=_SECONDS, what="the start")
    if graceful:
        assert lab.end() == 0
    else:
        lab.kill()
    for process, text in ((watch, watched), (logs, lines), (start, waited)):
        assert process.wait(_SECONDS) == 31, text()
        assert "error: " in text()
        assert "Traceback" not in text()
    assert watched().index(f"{a}  starting") < watched().index(f"{a}  running  ready")
