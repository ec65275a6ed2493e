"""The process of Ollama's API: killed, replaced, adopted, moved, and gone when it is not wanted."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from served import Certify
from server_lab import Labs, ServerLab, free_port, wait_for

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]
USER = [{"role": "user", "content": "hi"}]


class Lab:
    """A server with Ollama's API on `port`."""

    def __init__(self, labs: Labs, **settings: str) -> None:
        self.port = free_port()
        self.lab: ServerLab = labs(gateway_ollama_port=str(self.port), **settings)
        self.http = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=30)

    def record(self) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads((self.lab.data_dir / "ollama.json").read_text())
        except FileNotFoundError:
            return {"pid": None}
        return found

    def pid(self) -> int:
        """Of the process that is on record."""
        wait_for(lambda: self.record()["pid"], 30, "on record")
        pid: int = self.record()["pid"]
        return pid

    def chat(self, model: str = "a", **more: Any) -> httpx2.Response:
        body = {"model": model, "messages": USER, "stream": False, "options": {"num_predict": 2}}
        return self.http.post("/api/chat", json=body | more)


@pytest.fixture
def made(labs: Labs) -> Any:
    """`made(**settings)`: a lab whose server is not started yet."""
    found: list[Lab] = []

    def make(**settings: str) -> Lab:
        found.append(Lab(labs, **settings))
        return found[-1]

    yield make
    for one in found:
        one.http.close()


Made = Callable[..., Lab]


def test_requests_and_streams_go_on_while_the_server_is_killed_and_replaced(made: Made, tiny_model: Path) -> None:
    one = made()
    one.lab.start()
    one.lab.create("a", tiny_model, backend_options={"tokens_per_second": 8})
    assert one.chat().is_success
    pid = one.pid()
    body = {"model": "a", "messages": USER}
    with one.http.stream("POST", "/api/chat", json=body) as answer:
        lines = answer.iter_lines()
        next(lines)
        one.lab.kill()
        assert one.chat().is_success, "without a server"
        one.lab.start()
        assert one.pid() == pid, "it was adopted"
        last = json.loads(list(lines)[-1])
    assert (last["done"], last["done_reason"]) == (True, "stop")
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: one.pid() != pid and one.chat().is_success, 20, "the next server looks after it too")


def test_a_killed_process_is_replaced_and_connections_wait_for_the_next(made: Made, tiny_model: Path) -> None:
    one = made()
    one.lab.start()
    one.lab.create("a", tiny_model)
    assert one.chat().is_success
    pid = one.pid()
    os.kill(pid, signal.SIGKILL)
    with httpx2.Client(base_url=one.http.base_url, trust_env=False, timeout=30) as fresh:
        assert fresh.get("/api/version").is_success, "it waited"
    assert one.pid() != pid


def test_a_port_that_is_taken_is_an_error_of_the_start(made: Made) -> None:
    one = made()
    with socket.socket() as other:
        other.bind(("127.0.0.1", one.port))
        other.listen()
        argv = [sys.executable, "-m", "garrison.cli.main", "up"]
        done = subprocess.run(argv, env=one.lab.environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert f"port {one.port} of 127.0.0.1 is taken, so Ollama's API cannot be there" in done.stderr
    assert "GARRISON_GATEWAY_OLLAMA_PORT" in done.stderr


def test_it_is_off_by_default_and_what_a_server_before_left_ends(made: Made, tiny_model: Path) -> None:
    one = made()
    one.lab.start()
    pid = one.pid()
    one.lab.kill()
    del one.lab.environ["GARRISON_GATEWAY_OLLAMA_PORT"]
    one.lab.start()
    wait_for(lambda: not psutil.pid_exists(pid), 20, "it ended")
    with pytest.raises(httpx2.ConnectError):
        one.http.get("/")
    assert one.lab.http.get("/readyz").is_success


def test_another_port_after_a_crash(made: Made) -> None:
    one = made()
    one.lab.start()
    before, pid = one.port, one.pid()
    one.lab.kill()
    one.port = free_port()
    one.lab.environ["GARRISON_GATEWAY_OLLAMA_PORT"] = str(one.port)
    one.lab.start()
    wait_for(lambda: one.pid() != pid, 20, "another process")
    assert httpx2.get(f"http://127.0.0.1:{one.port}/", trust_env=False).is_success
    wait_for(lambda: not psutil.pid_exists(pid), 20, "the one before ended")
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"http://127.0.0.1:{before}/", trust_env=False)


def test_other_settings_are_told_to_the_next_process(made: Made, tiny_model: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("drain_timeout: 20\n")
    one = made()
    one.lab.environ["GARRISON_CONFIG"] = str(config)
    one.lab.start()
    one.lab.create("a", tiny_model, backend_options={"tokens_per_second": 2})
    assert one.chat().is_success
    pid, page = one.pid(), {"Origin": "https://chat.example.com"}
    assert one.http.get("/api/tags", headers=page).status_code == 403
    body = {"model": "a", "messages": USER, "options": {"num_predict": 20}}
    last: list[dict[str, Any]] = []

    def stream() -> None:
        with httpx2.stream("POST", f"{one.http.base_url}/api/chat", json=body, trust_env=False, timeout=60) as answer:
            last.extend(json.loads(line) for line in answer.iter_lines())

    streaming = threading.Thread(target=stream)
    streaming.start()
    wait_for(lambda: one.lab.instance("a")["requests"] == 1, 10, "in progress")
    config.write_text("drain_timeout: 20\nallowed_origins: [https://chat.example.com]\n")
    wait_for(lambda: one.pid() != pid, 20, "another process")
    with httpx2.Client(base_url=one.http.base_url, trust_env=False, timeout=30) as fresh:
        assert fresh.get("/api/tags", headers=page).is_success
    streaming.join(60)
    assert last[-1]["eval_count"] == 20, "the one before finished what it had"
    wait_for(lambda: not psutil.pid_exists(pid), 20, "and ended")


def test_nothing_is_left_of_it_after_the_end(made: Made) -> None:
    one = made()
    one.lab.start()
    pid = one.pid()
    assert one.lab.end() == 0
    assert not psutil.pid_exists(pid)
    assert not (one.lab.data_dir / "ollama.json").exists()


def test_it_listens_beyond_this_machine_once_there_is_a_management_key(made: Made) -> None:
    one = made(gateway_ollama_host="0.0.0.0", require_management_auth="1", require_inference_auth="1")
    one.lab.start()
    assert one.pid()
    assert one.record()["told"]["address"] == f"127.0.0.1:{one.port}"
    made_key = [sys.executable, "-m", "garrison.cli.main", "keys", "create", "admin", "--manage"]
    subprocess.run(made_key, env=one.lab.environ, capture_output=True, timeout=60, check=True)
    wait_for(lambda: one.record().get("told", {}).get("address") == f"0.0.0.0:{one.port}", 20, "moved")
    with httpx2.Client(base_url=one.http.base_url, trust_env=False, timeout=30) as fresh:
        assert fresh.get("/api/version").is_success
        assert fresh.get("/api/tags").status_code == 401


def test_a_gateway_that_speaks_tls(made: Made, certify: Certify, tiny_model: Path) -> None:
    named = certify("models.example.com")
    one = made(tls_cert_file=str(named.cert), tls_key_file=str(named.key))
    one.lab.http = httpx2.Client(
        base_url=f"https://127.0.0.1:{one.lab.port}", trust_env=False, timeout=60, verify=False
    )
    one.lab.start()
    one.lab.create("a", tiny_model)
    assert one.chat().is_success, "its own port is on loopback, and plain"
    lines = [json.loads(line) for line in one.chat(stream=True).text.splitlines()]
    assert lines[-1]["done"] is True
