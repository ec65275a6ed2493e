"""What a server that holds a port is at, with sockets that really listen."""

import contextlib
import http.server
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from garrison.base.identity import ProcessId
from garrison.engines.registry import engine
from garrison.launch.port_server import (
    MachineServers,
    endpoint_to_ask,
    engine_called,
    model_of,
)
from garrison.preflight.addresses import Address
from garrison.preflight.holders import PortVerdict
from garrison.preflight.listeners import Listener
from garrison.preflight.machine import Machine
from garrison.processes.process import Process
from garrison.testing.processes import MemoryProcesses

pytestmark = pytest.mark.system
LOOPBACK = Address(b"\x7f\0\0\1")
ARGV = ("vllm", "serve", "acme/tiny")


class Processes(MemoryProcesses):
    """Their CPU time grows by `busy` ticks at each look."""

    busy = 0

    def snapshot(self) -> "dict[int, Process]":  # type: ignore[override] - the twin gives a dict
        self.table = {pid: replace(one, cpu=one.cpu + self.busy) for pid, one in self.table.items()}
        return dict(super().snapshot())


def servers(
    port: int, *, busy: int = 0, argv: tuple[str, ...] = ARGV, seconds: float = 10
) -> tuple[MachineServers, PortVerdict]:
    process = Process(ProcessId(os.getpid(), 5), 1, os.getuid(), "/usr/bin/python3", argv)
    processes = Processes([process])
    processes.busy = busy
    machine = Machine(lambda _: None, processes=processes)
    verdict = PortVerdict("ours", (process,), (Listener(LOOPBACK, port, 77, 0),))
    return MachineServers(port, machine=machine, seconds=seconds), verdict


@pytest.fixture
def mute() -> Iterator[int]:
    """The port of a listener that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def state(found: tuple[MachineServers, PortVerdict]) -> str:
    servers, verdict = found
    return servers.look(verdict).state


def test_mute_and_idle_is_stuck(mute: int) -> None:
    assert state(servers(mute, seconds=0.3)) == "stuck"


def test_mute_and_at_work_is_no_reason_to_stop_it(mute: int) -> None:
    assert state(servers(mute, busy=50, seconds=0.3)) == "works"


def test_bound_and_not_listening_is_starting(mute: int) -> None:
    found, verdict = servers(mute)
    loading = replace(verdict, listeners=(replace(verdict.listeners[0], listening=False),))
    assert found.look(loading).state == "starts"


def test_of_two_listeners_one_that_answers_is_enough(mute: int) -> None:
    """One server on each of two addresses: neither is stopped while one of them serves."""
    with answering(200, host="127.0.0.2") as port, socket.create_server(("127.0.0.1", port)):
        found, verdict = servers(port, seconds=5)
        both = (verdict.listeners[0], replace(verdict.listeners[0], address=Address(b"\x7f\0\0\2")))
        assert found.look(replace(verdict, listeners=both)).state == "serves"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


@contextlib.contextmanager
def answering(status: int, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

    server = Quiet((host, 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.mark.parametrize("status", [200, 307, 401, 404, 500, 503])
def test_any_answer_is_serving(status: int) -> None:
    with answering(status) as port:
        assert state(servers(port)) == "serves"


@pytest.mark.parametrize("flags", [(), ("--ssl-certfile", "c")], ids=["not told", "told"])
@pytest.mark.parametrize("mutual", [False, True], ids=["one way", "both ways"])
def test_tls_is_serving(certificate: tuple[Path, Path], flags: tuple[str, ...], mutual: bool) -> None:
    """Whatever its argv shows: a wrapper or a config file may have turned TLS on."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(certificate[0])
    with answering(200, context) as port:
        assert state(servers(port, argv=(*ARGV, *flags))) == "serves"


def test_when_it_was_started(mute: int) -> None:
    before = time.time()
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        after = time.time()
        found, verdict = servers(mute, seconds=0.1)
        root = Process(ProcessId(process.pid, 5), 1, os.getuid(), "/bin/sleep", ARGV)
        since = found.look(replace(verdict, roots=(root,))).since
        process.kill()
    assert since is not None
    assert before - 0.1 < since.timestamp() < after + 0.1


@pytest.mark.parametrize(
    ("parent", "shown"),
    [
        (("python", "-P", "-m", "garrison.launch.shim", "9"), "pid 300: garrison serve m"),
        (("garrison", "serve", "m"), "pid 200: garrison serve m"),
        (("python", "-m", "garrison.launch.shim"), "pid 200: python -m garrison.launch.shim"),
    ],
)
def test_what_started_it_is_the_command_and_not_its_shim(mute: int, parent: tuple[str, ...], shown: str) -> None:
    root = Process(ProcessId(100, 5), 200, os.getuid(), "/usr/bin/python3", ARGV)
    above = Process(ProcessId(200, 4), 300, os.getuid(), "/usr/bin/python3", parent)
    command = Process(ProcessId(300, 3), 1, os.getuid(), "/usr/bin/python3", ("garrison", "serve", "m"))
    machine = Machine(lambda _: None, processes=MemoryProcesses([root, above, command]))
    verdict = PortVerdict("ours", (root,), (Listener(LOOPBACK, mute, 77, 0),))
    assert MachineServers(mute, machine=machine, seconds=0.1).look(verdict).parent == shown


def test_what_is_known_of_it(mute: int) -> None:
    found, verdict = servers(mute, argv=(*ARGV, "--api-key", "SECRET"), seconds=0.3)
    server = found.look(verdict)
    assert (server.pid, server.model, server.parent) == (os.getpid(), "acme/tiny", None)
    assert server.command == "vllm serve acme/tiny --api-key ***"
    assert server.since is not None


MODELS = [
    (ARGV, "acme/tiny"),
    ((*ARGV, "--served-model-name", "tiny", "alias"), "tiny"),
    (("python", "-m", "vllm.entrypoints.openai.api_server", "--model", "acme/tiny"), "acme/tiny"),
    (("python", "-m", "vllm.entrypoints.openai.api_server", "--model=acme/tiny"), "acme/tiny"),
    (("vllm", "serve", "--config", "x.yaml"), None),
    (("VLLM::EngineCore",), None),
    (("llama-server", "-m", "/m/x.gguf", "--alias", "x"), "x"),
    (("llama-server", "-m", "/m/x.gguf"), "/m/x.gguf"),
    (("python", "/e/bin/mlx_lm.server", "--model", "/m/x", "--port", "8000"), "/m/x"),
]


@pytest.mark.parametrize(("argv", "model"), MODELS)
def test_model(argv: tuple[str, ...], model: str | None) -> None:
    assert model_of(argv) == model


def test_it_is_asked_where_it_listens_and_as_its_own_flags_say() -> None:
    argv = (*ARGV, "--port", "1", "--ssl-certfile", "c", "--root-path", "/serve", "--headless")
    listener = Listener(Address(bytes(16)), 8000, 77, 1000)
    found = endpoint_to_ask(Process(ProcessId(1, 1), 1, 0, "/x", argv), listener, 8000, engine("vllm"))
    assert (found.host, found.port, found.tls, found.prefix, found.protocol) == ("::", 8000, True, "/serve", "http")


def test_an_engine_that_this_version_does_not_know_is_asked_as_vllm_is() -> None:
    assert engine_called("triton").name == "vllm"
    assert engine_called("llama_cpp").title == "llama.cpp"
