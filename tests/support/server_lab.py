"""A real `garrison up` on a data directory of its own: started, killed, started again."""

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

Labs = Callable[..., "ServerLab"]
_START_SECONDS = 60.0
_POLL_SECONDS = 0.02


class ServerLab:
    """One data directory and its servers.

    Args:
        environ: the environment of the servers; the lab adds the data directory and the ports.
    """

    def __init__(self, root: Path, environ: Mapping[str, str], **settings: str) -> None:
        self.data_dir = root / "data"
        self.port = free_port()
        first = free_port()
        self.environ = {
            **environ,
            "GARRISON_DATA_DIR": str(self.data_dir),
            "GARRISON_SERVER_PORT": str(self.port),
            "GARRISON_INSTANCE_PORT_RANGE": f"{first}-{min(65535, first + 40)}",
            "GARRISON_REQUIRE_INFERENCE_AUTH": "0",
            "GARRISON_REQUIRE_MANAGEMENT_AUTH": "0",
            **{f"GARRISON_{name.upper()}": value for name, value in settings.items()},
        }
        self.log = root / "server.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=60)

    def start(self, *arguments: str) -> None:
        """Start a server and return when it is ready."""
        with self.log.open("ab") as log:
            argv = [sys.executable, "-m", "garrison.cli.main", "up", *arguments]
            self.process = subprocess.Popen(argv, env=self.environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        wait_for(self.is_ready, _START_SECONDS, f"ready: {self.log.read_text()[-2000:]}")

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        try:
            return self.http.get("/readyz").is_success
        except httpx2.HTTPError:
            return False

    def kill(self) -> None:
        """End the server as a crash does."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def end(self) -> int:
        """End the server with SIGTERM; the instances go on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def workers(self) -> list[int]:
        """The workers of the gateway, which outlive a server that is killed."""
        path = self.data_dir / "gateway.json"
        rows = json.loads(path.read_text()) if path.exists() else []
        return [one["pid"] for one in rows if _start(one["pid"]) == one["start"]]

    def kill_workers(self) -> None:
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)

    def kill_ollama(self) -> None:
        """End the process of Ollama's API, which outlives a server that is killed."""
        path = self.data_dir / "ollama.json"
        found = json.loads(path.read_text()) if path.exists() else None
        if found and _start(found["pid"]) == found["start"]:
            os.kill(found["pid"], signal.SIGKILL)

    def create(self, name: str, model: Path, engine: str = "sim", **options: Any) -> dict[str, Any]:
        """Create an instance; options of the engine are those in `backend_options`."""
        backend = {"model": str(model)} | options.pop("backend_options", {})
        body = {"backend_type": engine, "backend_options": backend, **options}
        made: dict[str, Any] = self.api("POST", f"/instances/{name}", body)
        return made

    def api(self, method: str, path: str, body: Any = None, *, status: int | None = None) -> Any:
        answer = self.http.request(method, f"/api/v1{path}", json=body)
        assert answer.status_code == status if status else answer.is_success, (answer.status_code, answer.text)
        if answer.content and answer.headers.get("content-type", "").startswith("application/json"):
            return answer.json()
        return answer.text

    def instance(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api("GET", f"/instances/{name}")
        return found

    def chat(self, model: str, *, most: int = 8, **fields: Any) -> httpx2.Response:
        return self.http.post("/v1/chat/completions", json=chat_body(model, most, **fields))

    def close(self) -> None:
        """Stop everything, also what a failing test left."""
        if self.process is not None and self.process.poll() is None:
            try:
                self.api("POST", "/shutdown", {"instances": True})
                self.process.wait(60)
            except (AssertionError, httpx2.HTTPError, subprocess.TimeoutExpired):
                self.kill()
        self.kill_workers()
        self.kill_ollama()
        for status in self.data_dir.glob("instances/*/status"):
            found = json.loads(status.read_text())
            for one in (found["shim"], found["main"]):
                if one["start"] is not None and _start(one["pid"]) == one["start"]:
                    os.kill(one["pid"], signal.SIGKILL)
        self.http.close()


def chat_body(model: str, most: int, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": most, **fields}


def wait_for(true: Callable[[], object], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(_POLL_SECONDS)


def lines_of(answer: httpx2.Response) -> Iterator[str]:
    yield from (line for line in answer.iter_lines() if line)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _start(pid: int) -> int | None:
    from garrison.base.identity import start_time

    return start_time(pid)
