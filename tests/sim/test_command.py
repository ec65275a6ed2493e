"""`garrison sim` as a process: start, phases, signals, exit codes; and its flags."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison.base.errors import GarrisonError, InvalidError, UsageError
from garrison.sim.command import _parse, config_from, main
from garrison.sim.config import LoraModule, SimConfig
from garrison.sim.faults import Faults, Rule
from garrison.sim.unbindable import cannot_listen

from .client import DEADLINE, write_adapter

# --- flags


def read(*argv: str, **environ: str) -> tuple[SimConfig, list[str]]:
    args, unknown = _parse(argv)
    return config_from(args, environ), unknown


def test_defaults() -> None:
    assert read()[0] == SimConfig()


FLAGS: list[tuple[list[str], dict[str, Any]]] = [
    (["acme/tiny"], {"model": "acme/tiny"}),
    (["serve", "acme/tiny", "--port", "9"], {"model": "acme/tiny", "port": 9}),
    (["--port", "9", "acme/tiny"], {"model": "acme/tiny", "port": 9}),
    (["--port=9", "acme/tiny", "--seed", "-1"], {"model": "acme/tiny", "port": 9, "seed": -1}),
    (["--enable-lora", "acme/tiny"], {"model": "acme/tiny", "enable_lora": True}),
    (["--no-enable_prefix-caching", "acme/tiny", "--api-key", "a", "b"],
     {"model": "acme/tiny", "prefix_caching": False, "api_keys": ("a", "b")}),
    (["serve", "--dtype", "bfloat16", "--max-loras", "2", "acme/tiny"], {"model": "acme/tiny", "max_loras": 2}),
    (["--model", "acme/tiny", "--host=0.0.0.0"], {"model": "acme/tiny", "host": "0.0.0.0"}),
    (["--served-model-name", "a", "b"], {"served_names": ("a", "b")}),
    (["--max-loras", "4", "--max-cpu-loras", "8"], {"max_loras": 4, "max_cpu_loras": 8}),
    (["--max_lora_rank", "64"], {"max_lora_rank": 64}),
    (["--enable-lora", "--lora-modules", "a=/x", '{"name": "b", "path": "/y", "base_model_name": "z"}'],
     {"enable_lora": True, "lora_modules": (LoraModule("a", "/x"), LoraModule("b", "/y", "z"))}),
    (["--api-key", "k1", "k2"], {"api_keys": ("k1", "k2")}),
    (["--max-model-len", "32k"], {"max_model_len": 32000}),
    (["--max-model-len=32K"], {"max_model_len": 32768}),
    (["--no-enable-prefix-caching", "--block-size", "16"], {"prefix_caching": False, "block_size": 16}),
    (["--enable-sleep-mode", "--dev-mode"], {"enable_sleep_mode": True, "dev_mode": True}),
    (["--ttft", "0.5", "--disguise", "redirect"], {"faults": Faults(ttft=0.5, disguise="redirect")}),
    (["--hang"], {"faults": Faults(hang=True)}),
    (["--root-path", "/serve", "--uds", "/run/v.sock"], {"root_path": "/serve", "uds": "/run/v.sock"}),
    (["--headless"], {"headless": True}),
    (["--ssl-certfile", "c", "--ssl-keyfile=k", "--ssl-ca-certs", "ca", "--ssl-cert-reqs", "2"],
     {"ssl_certfile": "c", "ssl_keyfile": "k", "ssl_ca_certs": "ca", "ssl_cert_reqs": 2}),
    (["--script", '[{"path": "/health", "status": 503}]'],
     {"faults": Faults(script=(Rule(path="/health", action="status", status=503),))}),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "expected"), FLAGS, ids=[" ".join(argv) for argv, _ in FLAGS])
def test_flags(argv: list[str], expected: dict[str, Any]) -> None:
    assert read(*argv)[0] == SimConfig(**expected)


def test_flags_of_vllm_that_are_not_known() -> None:
    config, unknown = read("m", "--dtype", "bfloat16", "--port", "9", "-tp", "2", "--enforce-eager", "--config=x.yaml")
    assert (config.model, config.port) == ("m", 9)
    assert unknown == ["--dtype", "-tp", "--enforce-eager", "--config"]


@pytest.mark.parametrize("argv", [["a", "b"], ["a", "--port", "9", "b"]], ids=" ".join)
def test_two_models_are_refused(argv: list[str]) -> None:
    with pytest.raises(UsageError, match="two models: 'a' and 'b'"):
        _parse(argv)


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "runtime_lora"),
        ("VLLM_SERVER_DEV_MODE", "dev_mode"),
        ("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", "survive_engine_death"),
    ],
)
@pytest.mark.parametrize(("value", "on"), [("1", True), ("True", True), ("0", False), ("", False)])
def test_variables(name: str, field: str, value: str, on: bool) -> None:
    assert getattr(read(**{name: value})[0], field) is on


def test_the_api_key_is_not_shown() -> None:
    config = read(VLLM_API_KEY="secret")[0]
    assert config.api_keys == ("secret",)
    assert "secret" not in repr(config)


@pytest.mark.parametrize(
    ("argv", "kind"),
    [
        (["--port", "x"], UsageError),
        (["--port", "65536"], UsageError),
        (["--port", "-1"], UsageError),
        ([""], InvalidError),
        (["--model", " "], InvalidError),
        (["--served-model-name", "a", ""], InvalidError),
        (["--max-model-len", "many"], UsageError),
        (["--max-lora-rank", "17"], InvalidError),
        (["--enable-lora", "--lora-modules", "nonsense"], InvalidError),
        (["--enable-lora", "--lora-modules", "{}"], InvalidError),
        (["--script", "{"], InvalidError),
        (["--failure-rate", "2"], InvalidError),
    ],
)
def test_bad_command_lines(argv: list[str], kind: type[GarrisonError], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(kind):
        read(*argv)
    assert main(argv) == int(kind.exit_code)
    assert "hint: " in capsys.readouterr().err


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--max-cpu-loras" in capsys.readouterr().out


# --- as a process

Spawn = Callable[..., "Process"]


class Process:
    def __init__(self, port: int, *argv: str, **environ: str) -> None:
        self.port = port
        command = [sys.executable, "-m", "garrison.sim", "acme/tiny", "--port", str(port), *argv]
        self.child = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | environ, text=True
        )

    def get(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        asked.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(asked, timeout=DEADLINE) as reply:
            return bytes(reply.read())

    def ready(self) -> "Process":
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if self.child.poll() is not None:
                raise AssertionError(self.child.communicate())
            with contextlib.suppress(OSError):
                self.get("/health")
                return self
            time.sleep(0.02)
        raise AssertionError("not ready in time")

    def end(self) -> tuple[int, str, str]:
        out, err = self.child.communicate(timeout=DEADLINE)
        return self.child.returncode, out, err


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def spawn(port: int) -> Iterator[Spawn]:
    children: list[Process] = []

    def run(*argv: str, **environ: str) -> Process:
        children.append(Process(port, *argv, **environ))
        return children[-1]

    yield run
    for process in children:
        if process.child.poll() is None:
            process.child.kill()
        process.child.communicate()


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_start_and_stop(spawn: Spawn, number: signal.Signals) -> None:
    process = spawn("--dtype", "bfloat16", "-tp", "2", "-tp=1").ready()
    process.child.send_signal(number)
    code, out, err = process.end()
    assert code == 0
    wanted = [
        "version 0.32.0",
        "Starting to load model",
        "Loading weights took",
        "init engine",
        "Starting vLLM server on",
    ]
    places = [out.index(words) for words in wanted]
    assert places == sorted(places)
    assert out.count("ignoring --dtype, -tp: ") == 1
    assert "Application startup complete." in err


@pytest.mark.system
def test_sigterm_drains(spawn: Spawn, until: Callable[..., Any]) -> None:
    process = spawn("--ttft", "0.5").ready()
    with socket.create_connection(("127.0.0.1", process.port), timeout=DEADLINE) as client:
        body = b'{"prompt": "hi", "max_tokens": 2}'
        client.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + b"Content-Length: %d\r\n\r\n" % len(body)
            + body
        )
        until(lambda: json.loads(process.get("/_sim"))["counters"]["running"] == 1, what="the request")
        process.child.terminate()
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert process.end()[0] == 0


@pytest.mark.system
def test_sigterm_during_the_start(spawn: Spawn) -> None:
    process = spawn("--startup-delay", "600")
    assert process.child.stdout is not None
    process.child.stdout.readline()
    process.child.terminate()
    assert process.end()[0] == 0


@pytest.mark.system
def test_the_port_refuses_until_the_start_is_over(spawn: Spawn) -> None:
    process = spawn("--startup-delay", "600")
    assert process.child.stdout is not None
    process.child.stdout.readline()
    with pytest.raises(OSError, match="refused"):
        process.get("/health")


@pytest.mark.system
def test_port_taken(spawn: Spawn, port: int) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        code, _, err = spawn().end()
    assert code == 2
    assert f"error: port {port} of 127.0.0.1 is taken: Address already in use" in err
    assert f"hint: `garrison preflight --port {port}`" in err


@pytest.mark.system
@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--host", "192.0.2.1"], 1, "host '192.0.2.1' is not an address of this machine"),
        (["--host", "none.invalid"], 1, "host 'none.invalid' cannot be resolved"),
        (["--uds", "/tmp/" + "x" * 120], 1, "the path of the socket has 125 bytes, and the system allows 107"),
        (["--uds", "/none/of/this.sock"], 1, "cannot make the socket file /none/of/this.sock: no such file"),
        (["--uds", __file__], 2, "the socket file"),
    ],
)
def test_what_cannot_be_bound(argv: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*argv, "--port", "0"]) == code
    err = capsys.readouterr().err
    assert err.startswith(f"error: {said}")
    assert "\nhint: " in err
    assert "Errno" not in err


def test_a_port_that_is_reserved() -> None:
    refused = cannot_listen(SimConfig(port=80), PermissionError(errno.EACCES, "Permission denied"))
    assert (refused.message, int(refused.exit_code)) == ("port 80 is reserved: this user may not bind it", 1)
    other = cannot_listen(SimConfig(port=8000), PermissionError(errno.EACCES, "Permission denied"))
    assert other.message == "cannot listen on 127.0.0.1, port 8000: permission denied"


@pytest.mark.system
def test_a_module_that_cannot_be_loaded(spawn: Spawn, tmp_path: Path) -> None:
    code, _, err = spawn("--enable-lora", "--lora-modules", f"sql={tmp_path}/none").end()
    assert code == 1
    assert "No adapter found" in err


@pytest.mark.system
def test_death_of_the_engine_ends_the_process(spawn: Spawn, tmp_path: Path) -> None:
    process = spawn("--enable-lora", VLLM_ALLOW_RUNTIME_LORA_UPDATING="1").ready()
    path = write_adapter(tmp_path / "sql")
    process.get("/v1/load_lora_adapter", {"lora_name": "sql", "lora_path": str(path)})
    process.get("/_sim/kill", {})
    assert process.end()[0] == 0
