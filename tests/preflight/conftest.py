"""Real processes for the tests: started here, watched with a deadline, ended here."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

SERVER = '''\
#!/usr/bin/env python3
"""Listens as vLLM does: the API server binds, its workers inherit the socket."""
import argparse, os, signal, socket, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("words", nargs="*")
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--port", type=int)
parser.add_argument("--ignore-term", action="store_true")
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--after", type=float, default=0)
parser.add_argument("--listen-after", type=float, default=0)
parser.add_argument("--note")
parser.add_argument("--api-key")
options = parser.parse_args()
if options.ignore_term:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(options.after)
family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
listening = socket.socket(family)
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind((options.host, options.port))
time.sleep(options.listen_after)
listening.listen()
for _ in range(options.workers):
    if os.fork() == 0:
        break
while True:
    signal.pause()
'''


def until(met: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Poll until `met()` is true, and give what it gave; the test fails at the deadline."""
    deadline = time.monotonic() + seconds
    while True:
        if found := met():
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


class Stage:
    """A directory every user can read, with a fake vLLM in it, and the processes a test started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.chmod(0o755)
        (root / "bin").mkdir(mode=0o755)
        self.vllm = self.script("bin/vllm", SERVER)
        self.plain = self.script("server.py", SERVER)
        self.started: list[subprocess.Popen[bytes]] = []
        self.python = os.path.realpath(sys.executable)

    def script(self, name: str, content: str) -> Path:
        path = self.root / name
        path.write_text(content)
        path.chmod(0o755)
        return path

    @property
    def nobodys_python(self) -> str:
        """A Python that the user nobody may run; the tests' own is often under a home directory."""
        for candidate in (self.python, shutil.which("python3", path="/usr/bin:/usr/local/bin")):
            if candidate and all(
                parent.stat().st_mode & stat.S_IXOTH for parent in Path(os.path.realpath(candidate)).parents
            ):
                return candidate
        raise AssertionError("no Python that the user nobody may run; install the system's python3")

    def start(self, argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(argv, **options)
        self.started.append(child)
        return child

    def serve(self, script: Path, port: int, *more: str, host: str = "127.0.0.1", user: str | None = None) -> int:
        """Start `script` as `python SCRIPT serve x --port N`; its pid, once it listens."""
        options: dict[str, Any] = {"user": user, "group": user and 65534, "extra_groups": []} if user else {}
        python = self.nobodys_python if user else self.python
        child = self.start(
            [python, str(script), "serve", "x", "--host", host, "--port", str(port), *more], cwd="/", **options
        )
        until(lambda: listens(port, host) or child.poll() is not None, f"{script} listens")
        assert child.poll() is None
        return child.pid

    def end(self) -> None:
        """End what was started and everything below it, so that no worker is left as an orphan."""
        below = [pid for child in self.started if child.poll() is None for pid in descendants_of(child.pid)]
        for child in reversed(self.started):
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
        for pid in below:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for child in self.started:
            child.wait(20)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()


def descendants_of(pid: int) -> list[int]:
    return [found for child in children_of(pid) for found in (child, *descendants_of(child))]


def listens(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts there; a wildcard is asked through loopback."""
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    try:
        socket.create_connection((target, port), timeout=1).close()
    except OSError:
        return False
    return True


def children_of(pid: int) -> set[int]:
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                content = Path(entry.path, "stat").read_text()
            except OSError:
                continue
            if int(content[content.rindex(")") + 2 :].split()[1]) == pid:
                found.add(int(entry.name))
    return found


def gone(pid: int) -> bool:
    """No such process, or a zombie that its parent has yet to take away."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return content[content.rindex(")") + 2] in "ZX"


@pytest.fixture
def stage() -> Iterator[Stage]:
    with tempfile.TemporaryDirectory() as directory:
        made = Stage(Path(directory))
        try:
            yield made
        finally:
            made.end()


@pytest.fixture
def port() -> int:
    """A port nothing listens on, on any address."""
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def polled() -> Callable[..., Any]:
    return until


@pytest.fixture
def is_gone() -> Callable[[int], bool]:
    return gone


@pytest.fixture
def is_listening() -> Callable[..., bool]:
    return listens


@pytest.fixture
def children() -> Callable[[int], set[int]]:
    return children_of
