"""`garrison up` as people run it: on a terminal, twice, in the background, into a pipe that nobody reads."""

import contextlib
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from full_pipe import full_pipe
from server_lab import ServerLab, wait_for
from tests_environment import environment

from garrison.base.errors import ConflictError, DiskFullError, EngineDiedError, PortForeignError
from garrison.cli.server.detach import ended_early

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]
_SECONDS = 90.0
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
UP = [sys.executable, "-m", "garrison.cli.main", "up"]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[ServerLab]:
    made = ServerLab(tmp_path, environment(tmp_path))
    yield made
    made.close()


@pytest.fixture
def here(cli: Any, lab: ServerLab, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in lab.environ.items():
        if name.startswith("GARRISON_"):
            monkeypatch.setenv(name, value)
    return cli


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, argv: list[str], environ: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.process = subprocess.Popen(
            argv, env=environ | {"TERM": "xterm"}, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self._text = b""
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                if select.select([self._master], [], [], 0.2)[0]:
                    self._text += os.read(self._master, 65536)

    def text(self) -> str:
        return _ESCAPE.sub("", self._text.decode("utf-8", "replace")).replace("\r\n", "\n")

    def close(self) -> None:
        self._thread.join(5)
        os.close(self._master)


def in_the_background(lab: ServerLab) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*UP, "--detach"], env=lab.environ, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def test_on_a_terminal_and_a_second_one(lab: ServerLab, here: Any, tiny_model: Path, until: Any) -> None:
    screen = Terminal(UP, lab.environ)
    lab.process = screen.process
    address = f"http://127.0.0.1:{lab.port}"
    until(lambda: "Ctrl-C ends" in screen.text(), seconds=_SECONDS, what="ready")
    assert f"ready on {address}" in screen.text()
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    until(lambda: "a  running  ready" in screen.text(), what="the steps")
    assert "[info" not in screen.text(), "a terminal gets no log"

    for words in (["up"], ["up", "--detach"]):
        second = here(*words)
        assert second.code == 33
        assert f"already (pid {screen.process.pid}) at {address}" in second.err or f"already at {address}" in second.err
    assert lab.is_ready()

    screen.process.send_signal(signal.SIGINT)
    assert screen.process.wait(_SECONDS) == 0
    screen.close()
    assert "ended; 1 instance goes on serving: a" in screen.text()
    assert "garrison down --all" in screen.text()
    assert "Traceback" not in screen.text()


def test_in_the_background(lab: ServerLab, here: Any, tiny_model: Path, until: Any) -> None:
    done = in_the_background(lab)
    assert done.returncode == 0, done.stderr
    assert f"http://127.0.0.1:{lab.port}, pid " in done.stdout
    assert (lab.data_dir / "server.log").stat().st_mode & 0o777 == 0o600
    assert here("instance", "create", "a", "-e", "sim", "-m", tiny_model, "--start").code == 0
    down = here("down", "--all")
    assert down.out == "the server and its instances ended\n"
    status = json.loads((lab.data_dir / "instances" / "a" / "status").read_text())
    assert status["state"] == "ended", "`down` returns when that is true"
    assert not (lab.data_dir / "server.sock").exists()
    assert here("down").out == "no server runs\n"

    with socket.create_server(("127.0.0.1", lab.port)):
        taken = in_the_background(lab)
    assert taken.returncode == 2, "the exit code is that of the server"
    assert "is taken" in taken.stderr
    assert "server.log" in taken.stderr


def test_ctrl_c_while_it_starts_in_the_background(lab: ServerLab, here: Any, until: Any) -> None:
    process = subprocess.Popen([*UP, "--detach"], env=lab.environ, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    lock = lab.data_dir / "server.lock"
    until(lambda: lock.exists() and lock.read_text().strip(), seconds=_SECONDS, what="the server begins")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=_SECONDS)
    assert process.returncode == 130, (out, err)
    assert b"the server was ended again" in err
    assert in_the_background(lab).returncode == 0, "nothing is left of the first"
    assert here("down").code == 0


def test_output_that_nobody_reads(lab: ServerLab, tiny_model: Path, until: Any) -> None:
    readable, writable = full_pipe()
    environ = lab.environ | {"GARRISON_LOG_LEVEL": "debug"}
    lab.process = subprocess.Popen(UP, env=environ, stdin=subprocess.DEVNULL, stdout=writable, stderr=writable)
    os.close(writable)
    until(lab.is_ready, seconds=_SECONDS, what="ready")
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait(_SECONDS) == 0
    os.close(readable)


def test_flags_that_belong_to_others(cli: Any) -> None:
    assert cli("up", "--user").code == 64
    assert cli("up", "--dry-run").code == 64


@pytest.mark.parametrize(
    ("code", "expected"), [(2, PortForeignError), (33, ConflictError), (-9, EngineDiedError), (99, EngineDiedError)]
)
def test_a_server_that_ends_early(code: int, expected: type, tmp_path: Path) -> None:
    error = ended_early(code, "x\nerror: a server runs there", tmp_path / "server.log")
    assert type(error) is expected
    assert "a server runs there" in error.message


def test_a_server_in_the_background_says_what_it_applies(lab: ServerLab, tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "garrison.yaml"
    path.write_text(f"stack: box\ninstances: {{one: {{model: {tiny_model}, engine: sim}}}}\n")
    words = [*UP, "--detach", "-f", str(path)]
    done = subprocess.run(words, env=lab.environ, capture_output=True, text=True, timeout=_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "it applies stack box; `garrison status` shows how far it is"
    wait_for(lambda: lab.http.get("/api/v1/instances/one").is_success, 20, "applied")
    lab.api("POST", "/shutdown", {"instances": True})


def test_a_server_whose_log_could_not_be_written() -> None:
    with pytest.raises(DiskFullError, match=r"no space left on disk \(/dev/full\)"):
        ended_early(1, "", Path("/dev/full"))
    assert "error: x" in ended_early(1, "error: x", Path("/dev/full")).message


def test_a_server_that_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "server.log").touch()
    assert (
        ended_early(99, "", tmp_path / "server.log").message == "the server ended with 99, and its log does not say why"
    )


def test_commands_that_end_it_at_once(lab: ServerLab) -> None:
    lab.start()
    argv = [sys.executable, "-m", "garrison.cli.main", "down", "--all", "--json"]
    downs = [subprocess.Popen(argv, env=lab.environ, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [json.loads(one.communicate(timeout=_SECONDS)[0]) for one in downs]
    assert [one["exit_code"] for one in said] == [0, 0, 0]
    assert sum(one["ended"] for one in said) >= 1
