"""The shim of a detached engine, as a process: its protocol, its files, and what it leaves behind."""

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from garrison_serve import ENGINE, alive

from garrison.launch.shim.control import Control
from garrison.launch.shim.stop import Stop
from garrison.preflight.engine_records import read_records

pytestmark = pytest.mark.system

MOST_MIB = 20


class Detached:
    """A shim, the starter's end of its connection, and where its files are."""

    def __init__(self, root: Path, plan: Mapping[str, Any], until: Callable[..., Any], **spec: Any) -> None:
        self.until = until
        self.record, self.directory, self.log = root / "record", root / "qwen", root / "logs" / "qwen.log"
        self.record.mkdir(exist_ok=True)
        ours, theirs = socket.socketpair()
        self.starter = ours
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "garrison.launch.shim", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.starter.settimeout(20)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        argv = [sys.executable, "-I", "-c", ENGINE, "serve", "x", "--host", "127.0.0.1", "--port", str(port)]
        environment = {"FAKE": json.dumps({"record": str(self.record), **plan})}
        told = {"v": 1, "argv": argv, "env": environment, "stop_timeout": 3, "detached": True}
        told |= {"directory": str(self.directory), "log": str(self.log), **spec}
        self.starter.sendall(json.dumps(told).encode() + b"\n")
        self.first = read_line(self.starter)

    def engine_pid(self) -> int:
        self.until((self.record / "engine.pid").exists, what="the engine")
        return int((self.record / "engine.pid").read_text())

    def pids(self) -> list[int]:
        return [int(path.read_text()) for path in self.record.glob("*.pid")]

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        try:
            client.connect(str(self.directory / "shim.sock"))
        except OSError:
            client.close()
            raise
        return client

    def ask(self, **request: Any) -> dict[str, Any]:
        return self.say(json.dumps({"v": 1, **request}).encode() + b"\n")

    def say(self, data: bytes) -> dict[str, Any]:
        with self.connect() as client:
            client.sendall(data)
            return read_line(client)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / "status").read_text())
        return found


def read_line(connection: socket.socket) -> dict[str, Any]:
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(65536)
        assert piece, "the connection was closed"
        data += piece
    found: dict[str, Any] = json.loads(data)
    return found


Start = Callable[..., Detached]


@pytest.fixture
def detached(tmp_path: Path, until: Callable[..., Any]) -> Iterator[Start]:
    made: list[Detached] = []

    def start(plan: Mapping[str, Any] | None = None, **spec: Any) -> Detached:
        made.append(Detached(tmp_path, plan or {}, until, **spec))
        return made[-1]

    yield start
    for one in made:
        one.starter.close()
        one.process.terminate()
        try:
            one.process.wait(15)
        finally:
            for pid in [*one.pids(), one.process.pid]:
                if alive(pid):
                    os.kill(pid, signal.SIGKILL)
            one.process.wait(10)


def test_it_outlives_its_starter_and_is_stopped_through_its_socket(detached: Start) -> None:
    shim = detached({"children": ["setsid", "orphan", "stubborn"]})
    engine = shim.engine_pid()
    assert shim.first == {"v": 1, "event": "started", "pid": engine, "start": shim.first["start"]}
    shim.starter.close()
    assert shim.ask(do="ping") == {"v": 1, "ok": True}
    status = shim.ask(do="status")
    assert (status["state"], status["main"]["pid"], status["shim"]["pid"]) == ("running", engine, shim.process.pid)
    assert alive(engine)
    assert shim.ask(do="stop") == {"v": 1, "ok": True}
    assert shim.process.wait(15) == 0
    assert not any(alive(pid) for pid in shim.pids())
    ended = shim.status()
    assert (ended["state"], ended["status"], ended["v"]) == ("ended", -signal.SIGTERM, 1)
    assert ended["peak_memory_bytes"] > 1024 * 1024
    assert ended["cpu_seconds"] > 0
    assert not (shim.directory / "shim.sock").exists()


def test_kill_does_not_ask(detached: Start) -> None:
    shim = detached({"stubborn": True, "children": ["stubborn"]}, stop_timeout=600)
    shim.engine_pid()
    shim.ask(do="stop")
    assert shim.ask(do="kill")["ok"] is True
    assert shim.process.wait(10) == 0
    assert not any(alive(pid) for pid in shim.pids())
    assert shim.status()["status"] == -signal.SIGKILL


def test_output_goes_to_the_log_and_the_exit_status_to_the_status_file(detached: Start) -> None:
    shim = detached({"lines": ["one", "two"], "exit": 3, "last": "api_key=sk-very-secret-0123456789\n"})
    assert shim.process.wait(15) == 0
    assert shim.status()["status"] == 3
    assert shim.log.read_text().startswith("one\ntwo\n")
    assert "sk-very-secret" not in shim.log.read_text()
    assert read_line(shim.starter)["event"] == "ended"


def test_when_the_main_process_dies_its_workers_follow(detached: Start) -> None:
    shim = detached({"children": ["stubborn", "setsid"]})
    engine = shim.engine_pid()
    shim.starter.close()
    os.kill(engine, signal.SIGKILL)
    assert shim.process.wait(15) == 0
    assert not any(alive(pid) for pid in shim.pids())


def test_when_the_shim_dies_the_engine_is_sent_sigterm(detached: Start) -> None:
    shim = detached()
    engine = shim.engine_pid()
    shim.process.kill()
    shim.until(lambda: not alive(engine), what="the engine's end")


def test_sigterm_stops_the_engine(detached: Start) -> None:
    shim = detached({"children": ["setsid"]})
    shim.engine_pid()
    shim.process.terminate()
    assert shim.process.wait(15) == 0
    assert not any(alive(pid) for pid in shim.pids())


def test_a_directory_is_one_engines(detached: Start) -> None:
    """Otherwise the first shim would remove the second one's socket when it ends."""
    first = detached()
    pid = first.engine_pid()
    second = detached()
    assert second.first == {
        "v": 1, "event": "failed", "errno": errno.EBUSY, "message": f"another engine runs in {first.directory}",
    }  # fmt: skip
    assert second.process.wait(10) == 1
    assert first.ask(do="status")["main"]["pid"] == pid
    assert first.status()["state"] == "running"
    first.ask(do="kill")
    assert first.process.wait(10) == 0
    third = detached()
    assert third.first["event"] == "started", "the kernel releases a directory with its shim"
    assert third.ask(do="ping")["ok"] is True


def test_its_files_are_for_this_user_alone(detached: Start) -> None:
    shim = detached()
    shim.engine_pid()
    assert shim.directory.stat().st_mode & 0o777 == 0o700
    for name in ("shim.sock", "status"):
        assert (shim.directory / name).stat().st_mode & 0o777 == 0o600


def test_it_is_small(detached: Start) -> None:
    shim = detached()
    shim.engine_pid()
    shim.ask(do="status")
    status = Path(f"/proc/{shim.process.pid}/status").read_text()
    assert int(status.partition("VmRSS:")[2].split()[0]) < MOST_MIB * 1024


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"{}\n", "malformed"),
        (b"\xff\xfe\n", "malformed"),
        (b"[1]\n", "malformed"),
        (b"null\n", "malformed"),
        (b"[" * 4000 + b"\n", "malformed"),
        (b'{"v": 2, "do": "stop"}\n', "version"),
        (b'{"v": 1, "do": "reboot"}\n', "unknown"),
        (b'{"v": 1, "do": ["stop"]}\n', "unknown"),
        (b'{"v": 1, "do": "stop", "timeout": -1}\n', "timeout"),
        (b'{"v": 1, "do": "stop", "timeout": NaN}\n', "timeout"),
        (b'{"v": 1, "do": "stop", "timeout": true}\n', "timeout"),
        (b'{"v": 1, "do": "stop", "timeout": "9"}\n', "timeout"),
    ],
)
def test_a_request_that_is_not_understood_changes_nothing(detached: Start, data: bytes, error: str) -> None:
    shim = detached()
    answer = shim.say(data)
    assert answer["ok"] is False
    assert error in answer["error"]
    assert shim.ask(do="status")["stopping"] is False


def test_strangers_to_the_protocol_are_dropped_and_others_served(detached: Start) -> None:
    shim = detached()
    with contextlib.ExitStack() as crowd:
        endless, silent = crowd.enter_context(shim.connect()), crowd.enter_context(shim.connect())
        with pytest.raises(OSError):
            _flood(endless)
        silent.sendall(b'{"v": 1')
        assert shim.ask(do="ping")["ok"] is True
        for _ in range(40):
            with contextlib.suppress(BlockingIOError):  # the queue of those that wait is full
                crowd.enter_context(shim.connect())
    shim.until(lambda: _answers(shim), what="an answer after the crowd")


def _flood(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"x" * 65536)


def _answers(shim: Detached) -> bool:
    try:
        return shim.ask(do="ping")["ok"] is True
    except (OSError, AssertionError):
        return False


def test_another_users_requests_are_refused(detached: Start, tmp_path: Path) -> None:
    shim = detached()
    shim.engine_pid()
    client, server = socket.socketpair()
    with client, server:
        # The socket's mode keeps others out; the credentials do it again, where the mode is not looked at.
        for directory in (shim.directory, *shim.directory.parents[:4]):
            if str(directory).startswith("/tmp/"):
                directory.chmod(0o755)
        (shim.directory / "shim.sock").chmod(0o666)
        code = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(sys.argv[1]);"
            's.sendall(b\'{"v": 1, "do": "stop"}\\n\'); sys.exit(1 if s.recv(100) else 0)'
        )
        done = subprocess.run(
            ["/usr/bin/python3", "-c", code, str(shim.directory / "shim.sock")],
            user=65534, group=65534, extra_groups=[], capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    assert "PermissionError" not in done.stderr
    assert done.returncode == 0 or "ConnectionReset" in done.stderr or "BrokenPipe" in done.stderr, done.stderr
    assert shim.ask(do="status")["stopping"] is False


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
def test_a_directory_that_others_can_enter_is_refused(detached: Start, tmp_path: Path, mode: int) -> None:
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen").chmod(mode)
    shim = detached()
    assert shim.first["event"] == "failed"
    assert "mode 0700" in shim.first["message"]
    assert shim.process.wait(10) == 1
    assert shim.pids() == []


def test_a_directory_that_is_a_link_is_refused(detached: Start, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "qwen").symlink_to("elsewhere")
    assert detached().first["event"] == "failed"


def test_a_program_that_cannot_be_run(detached: Start) -> None:
    shim = detached(argv=["/nonexistent"])
    assert (shim.first["event"], shim.first["errno"]) == ("failed", 2)
    assert shim.process.wait(10) == 1


class Tree:
    def __init__(self, *, main: bool = True) -> None:
        self.sent: list[str] = []
        self.ended = not main

    def signal_main(self, number: int) -> bool:
        self.sent.append(f"main {signal.Signals(number).name}")
        return not self.ended

    def signal_all(self, number: int) -> None:
        self.sent.append(f"all {signal.Signals(number).name}")

    def main_ended(self) -> bool:
        return self.ended


class TestStages:
    def test_in_order_and_within_the_time(self) -> None:
        tree, now = Tree(), [0.0]
        stop = Stop(tree, 10.0, lambda: now[0])
        for at in (0.0, 5.9):
            now[0] = at
            assert stop.step()
        assert tree.sent == ["main SIGTERM"]
        now[0] = 6.0
        assert stop.step()
        assert tree.sent[1:] == ["all SIGTERM"]
        now[0] = 8.0
        assert stop.step()
        assert tree.sent[2:] == ["all SIGKILL"]
        now[0] = 10.0
        assert not stop.step()

    def test_workers_are_asked_as_soon_as_the_main_process_has_ended(self) -> None:
        tree, now = Tree(), [0.0]
        stop = Stop(tree, 10.0, lambda: now[0])
        tree.ended = True
        assert stop.step()
        assert tree.sent == ["main SIGTERM", "all SIGTERM"]

    def test_kill_skips_the_stages_that_ask(self) -> None:
        tree = Tree()
        stop = Stop(tree, 600.0, lambda: 0.0)
        stop.kill()
        assert stop.step()
        assert tree.sent == ["main SIGTERM", "all SIGKILL", "all SIGKILL"]


class TestRecord:
    """The shim records its engine for later preflights, for as long as anything of the engine is left."""

    def test_it_names_engine_and_shim_and_goes_with_them(self, detached: Start, tmp_path: Path) -> None:
        directory = tmp_path / "engines"
        shim = detached(record={"directory": str(directory), "engine": "llama_cpp", "port": 8000})
        assert "unrecorded" not in shim.first
        (record,) = read_records(directory).engines
        assert (record.engine, record.port) == ("llama_cpp", 8000)
        assert record.main.pid == shim.engine_pid() == shim.first["pid"]
        assert record.shim is not None
        assert record.shim.pid == shim.process.pid
        shim.ask(do="stop")
        shim.process.wait(20)
        assert list(directory.iterdir()) == []

    def test_one_that_cannot_be_written_does_not_end_the_engine(self, detached: Start, tmp_path: Path) -> None:
        directory = tmp_path / "engines"
        directory.mkdir(mode=0o755)
        shim = detached(record={"directory": str(directory), "engine": "llama_cpp", "port": 8000})
        assert "mode 0700" in shim.first["unrecorded"]
        assert alive(shim.engine_pid())

    def test_none_is_written_unasked(self, detached: Start, tmp_path: Path) -> None:
        detached()
        assert not (tmp_path / "engines").exists()


def test_without_a_free_descriptor_it_waits_and_does_not_spin(tmp_path: Path) -> None:
    class Full:
        def __init__(self, listener: socket.socket) -> None:
            self.fileno = listener.fileno

        def accept(self) -> Any:
            raise OSError(errno.EMFILE, "Too many open files")

    ours, theirs = socket.socketpair()
    with ours, theirs, selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as client:
        control = Control(selector, theirs, lambda _verb, _timeout: {}, lambda: None)
        (tmp_path / "qwen").mkdir(mode=0o700)
        control.listen(tmp_path / "qwen")
        client.connect(str(tmp_path / "qwen" / "shim.sock"))
        listener = control._listener
        assert listener is not None
        with listener:
            control._listener = Full(listener)  # type: ignore[assignment]  # the test's own
            for key, _ in selector.select(5):
                key.data()
            control.drop_idle()
            assert selector.select(0) == []
            control._listener = listener
            control._accept_again_at = time.monotonic()
            control.drop_idle()
            for key, _ in selector.select(5):
                key.data()
            client.sendall(b'{"v": 1, "do": "ping"}\n')
            for key, _ in selector.select(5):
                key.data()
            assert read_line(client)["ok"] is True
            client.shutdown(socket.SHUT_RDWR)
            for key, _ in selector.select(5):
                key.data()  # the shim's end of the connection is closed
