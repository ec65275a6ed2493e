"""Asking an engine in the way its flags say, on simulators that really listen."""

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from garrison.engines.engine import Endpoint
from garrison.engines.registry import engine
from garrison.launch.run.probe import EngineProbe
from garrison.launch.run.ready import Answer
from garrison.sim.config import SimConfig
from garrison.sim.faults import Rule
from garrison.sim.simulator import Simulator

READINESS = engine("vllm").readiness


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for a public name, and its key."""
    cert, key = (str(tmp_path_factory.mktemp("tls") / name) for name in ("c.pem", "k.pem"))
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=node.example"
    subprocess.run([*make.split(), "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


async def ask(config: SimConfig, *, argv: str = "", **changes: object) -> tuple[Answer, Endpoint]:
    """What a probe of this simulator says, told what `argv` shows."""
    async with Simulator(config) as sim:
        default = Endpoint(config.host, sim.port, config.uds)
        endpoint = replace(engine("vllm").endpoint(argv.split(), default), uds=config.uds, **changes)
        async with EngineProbe(endpoint, READINESS, timeout=5) as probe:
            return await probe.ask(), probe.endpoint


def config(**fields: object) -> SimConfig:
    return SimConfig(**{"port": 0, **fields})


async def test_plain() -> None:
    answer, _ = await ask(config())
    assert answer == Answer(True, "/health answers 200")


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_tls(files: tuple[str, str], told: bool) -> None:
    """A wrapper script may add what the argv does not show; what answered is what is shown to people."""
    argv = "--ssl-certfile c --ssl-keyfile k" if told else ""
    answer, found = await ask(config(ssl_certfile=files[0], ssl_keyfile=files[1]), argv=argv)
    assert answer.ready
    assert found.tls


async def test_no_tls_where_it_was_told() -> None:
    answer, found = await ask(config(), argv="--ssl-certfile c")
    assert answer.ready
    assert not found.tls


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
async def test_both_ways(files: tuple[str, str], told: bool) -> None:
    """Without a certificate of our own nothing can be asked. That it listens is heard all the same."""
    argv = "--ssl-certfile c --ssl-keyfile k --ssl-cert-reqs 2" if told else ""
    both = config(ssl_certfile=files[0], ssl_keyfile=files[1], ssl_ca_certs=files[0], ssl_cert_reqs=2)
    answer, _ = await ask(both, argv=argv)
    assert (answer.ready, answer.heard, answer.unsure) == (False, True, True)
    if told:
        assert answer.reason == "it requires a client certificate"


@pytest.mark.parametrize("root", ["/serve", "/a/b", "/v1", "/health"])
async def test_root_path(root: str) -> None:
    answer, found = await ask(config(root_path=root), argv=f"--root-path {root}")
    assert answer.ready
    assert found.prefix == root


async def test_a_prefix_that_a_proxy_adds() -> None:
    answer, found = await ask(config(), argv="--root-path /serve")
    assert answer.ready
    assert found.prefix == ""


async def test_socket_file(tmp_path: Path) -> None:
    answer, _ = await ask(config(uds=str(tmp_path / "v.sock")))
    assert answer.ready


async def test_a_key_is_needed_for_models_alone() -> None:
    answer, _ = await ask(config(api_keys=("sk-x",)))
    assert answer.ready


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
async def test_host(host: str) -> None:
    assert (await ask(config(host=host)))[0].ready


STATUSES = [(401, True), (404, False), (307, True), (418, True), (500, False), (503, False)]


@pytest.mark.parametrize(("status", "unsure"), STATUSES)
async def test_other_answers(status: int, unsure: bool) -> None:
    """404 makes it look for the models, which are there."""
    async with Simulator(config()) as sim:
        sim.faults = replace(sim.faults, script=(Rule(path="/health", action="status", status=status),))
        async with EngineProbe(Endpoint("127.0.0.1", sim.port), READINESS, timeout=5) as probe:
            answer = await probe.ask()
    assert answer.heard
    assert answer.ready is (status == 404)
    assert answer.unsure is unsure


async def test_nothing_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for protocol in ("http", "grpc"):
        for tls in (False, True):
            endpoint = Endpoint("127.0.0.1", port, tls=tls, protocol=protocol)
            async with EngineProbe(endpoint, READINESS, timeout=5) as probe:
                assert await probe.ask() == Answer(False, "connection refused")


async def test_grpc_is_ready_when_it_accepts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = Endpoint("0.0.0.0", listener.getsockname()[1], protocol="grpc")
        async with EngineProbe(endpoint, READINESS, timeout=5) as probe:
            assert (await probe.ask()).ready


async def test_health_on_a_port_of_its_own() -> None:
    async with Simulator(config()) as sim:
        endpoint = Endpoint("127.0.0.1", 1, health_port=sim.port)
        async with EngineProbe(endpoint, READINESS, timeout=5) as probe:
            assert (await probe.ask()).ready
            assert probe.endpoint.port == 1


async def test_a_key_that_is_asked_for_everywhere_does_not_take_the_prefix_away() -> None:
    """llama-server asks for its key before it looks whether a path is there."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        endpoint = Endpoint("127.0.0.1", server.sockets[0].getsockname()[1], prefix="/llama")
        async with EngineProbe(endpoint, engine("llama_cpp").readiness, timeout=5) as probe:
            answer = await probe.ask()
    assert (answer.ready, answer.unsure, answer.reason) == (False, True, "/llama/health answers 401")
    assert probe.endpoint == endpoint


@pytest.fixture
def chatter() -> Iterator[int]:
    """Accepts, says something that is not HTTP, and closes."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        await writer.drain()
        writer.close()

    loop = asyncio.new_event_loop()

    server = loop.run_until_complete(asyncio.start_server(talk, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


async def test_what_speaks_no_http_is_heard(chatter: int) -> None:
    async with EngineProbe(Endpoint("127.0.0.1", chatter), READINESS, timeout=5) as probe:
        answer = await probe.ask()
    assert (answer.ready, answer.heard, answer.unsure) == (False, True, True)
