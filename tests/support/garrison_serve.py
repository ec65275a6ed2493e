"""A `garrison serve` of the tests, and the engine that it starts: a program whose behaviour a test plans."""

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["ENGINE", "Garrison", "Start", "alive"]

ENGINE = r"""
import json, os, signal, socket, subprocess, sys, time
from pathlib import Path

if "--version" in sys.argv:
    print("0.32.0")
    sys.exit()
plan = json.loads(os.environ["FAKE"])
record = Path(plan["record"])

def note(name, text):
    (record / (name + ".part")).write_text(str(text))
    (record / (name + ".part")).rename(record / name)

CHILD = '''
import os, signal, sys
from pathlib import Path
kind, name = sys.argv[1:]
if kind == "orphan" and os.fork():
    os._exit(0)
if kind == "setsid":
    os.setsid()
if kind != "polite":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
part = Path(name + ".part")
part.write_text(str(os.getpid()))
part.rename(name)
if kind != "short":
    while True:
        signal.pause()
'''
signal.signal(signal.SIGUSR1, lambda *_: note("usr1", "1"))
if plan.get("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
children = plan.get("children", [])
for number, kind in enumerate(children):
    subprocess.Popen([sys.executable, "-I", "-c", CHILD, kind, str(record / f"child{number}.pid")])
while not all((record / f"child{number}.pid").exists() for number in range(len(children))):
    time.sleep(0.01)
note("argv", json.dumps(sys.argv[1:]))
note("environment", json.dumps(dict(os.environ)))
note("engine.pid", os.getpid())
for line in plan.get("lines", []) * plan.get("times", 1):
    print(line, flush=True)
while plan.get("waits") and not (record / "go").exists():
    time.sleep(0.01)
if "exit" in plan:
    sys.stderr.write(plan.get("last", ""))
    sys.stderr.flush()
    os._exit(plan["exit"])
host, port = (sys.argv[sys.argv.index(flag) + 1] for flag in ("--host", "--port"))
server = socket.create_server((host, int(port)))
while True:
    try:
        client, _ = server.accept()
    except InterruptedError:
        continue
    with client:
        request = client.recv(65536)
        note("asked", request.decode("latin-1"))
        if plan.get("mute"):
            kept = globals().setdefault("kept", [])
            kept.append(client.dup())
            continue
        status = 503 if plan.get("loading") and not (record / "go").exists() else plan.get("status", 200)
        client.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
"""


@dataclass
class Garrison:
    """One `garrison serve` and what its engine recorded."""

    process: subprocess.Popen[bytes]
    out: Path
    record: Path
    home: Path
    port: int
    until: Callable[..., Any]

    @property
    def text(self) -> str:
        return self.out.read_text(errors="replace")

    def noted(self, name: str) -> str:
        path = self.record / name
        self.until(path.exists, what=f"{name}; the output is {self.text!r}")
        return path.read_text()

    def engine_pid(self) -> int:
        return int(self.noted("engine.pid"))

    def ready(self) -> None:
        self.until(lambda: "ready after" in self.text or self.process.poll() is not None, what="ready")
        assert self.process.poll() is None, self.text

    def end(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)

    def pids(self) -> list[int]:
        return [int(path.read_text()) for path in self.record.glob("*.pid")]

    def left(self) -> list[int]:
        return [pid for pid in self.pids() if alive(pid)]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


Start = Callable[..., Garrison]
