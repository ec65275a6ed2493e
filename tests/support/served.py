"""Fixtures for all tests: simulators and bare sockets that stop with their test, and certificates."""

import asyncio
import contextlib
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from garrison.sim.config import SimConfig
from garrison.sim.simulator import Simulator
from garrison.testing.adapter_reader import MemoryAdapters

StartSim = Callable[..., Awaitable[Simulator]]


class EveryAdapter(MemoryAdapters):
    """Every path that starts with `/models/` holds an adapter; its content is its path."""

    def read(self, path: str) -> Any:
        if path not in self.files and path.startswith("/models/"):
            self.put(path, f"weights of {path}")
        return super().read(path)


@pytest.fixture
async def start_sim() -> AsyncIterator[StartSim]:
    """`await start_sim(adapters=…, **SimConfig fields)`: a running vLLM simulator with LoRA routes, on a free port."""
    running: list[Simulator] = []

    async def run(*, adapters: Any = None, sleep: Any = asyncio.sleep, **options: Any) -> Simulator:
        settings = {"port": 0, "model": "acme/tiny", "enable_lora": True, "runtime_lora": True} | options
        sim = Simulator(SimConfig(**settings), adapters=adapters or EveryAdapter(), sleep=sleep)
        await sim.start()
        running.append(sim)
        return sim

    yield run
    for sim in running:
        await sim.stop()


@dataclass
class RawServer:
    """A server that says what it was told to say. `heard` holds each request, whole, in order."""

    port: int
    heard: list[bytes]
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


StartRaw = Callable[..., Awaitable[RawServer]]


@pytest.fixture
async def start_raw() -> AsyncIterator[StartRaw]:
    """`await start_raw(answer, …)`: each connection gets these answers to its requests in order, and is then closed.
    None closes instead of answering; `...` never answers. `tls`: an `ssl.SSLContext`."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def run(*answers: Any, tls: ssl.SSLContext | None = None) -> RawServer:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            found.connections += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                for answer in answers:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                    body = await reader.readexactly(int(length[0].split(b":")[1])) if length else b""
                    found.heard.append(head + body)
                    if answer is ...:
                        await reader.read()
                    if not isinstance(answer, bytes):
                        break
                    writer.write(answer)
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        servers.append(server)
        found = RawServer(server.sockets[0].getsockname()[1], [])
        return found

    yield run
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    async with asyncio.timeout(10):
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


@pytest.fixture
def refusing_port() -> int:
    """A port of this machine that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def black_hole() -> Iterator[int]:
    """A port whose connections are never completed: its queue is full, and the kernel drops what else comes."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


@dataclass(frozen=True)
class Certificate:
    """A self-signed one, which is its own CA. PEM files."""

    cert: str
    key: str

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert, self.key)
        return context


Certify = Callable[..., Certificate]


@pytest.fixture(scope="session")
def certify(tmp_path_factory: pytest.TempPathFactory) -> Certify:
    """`certify("good")`: a certificate of that name for 127.0.0.1 and localhost, or for other `names`."""
    directory: Path = tmp_path_factory.mktemp("certificates")

    def make(name: str, names: str = "IP:127.0.0.1,DNS:localhost") -> Certificate:
        made = Certificate(str(directory / f"{name}.pem"), str(directory / f"{name}.key"))
        if not Path(made.cert).exists():
            command = (
                f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name}"
            )
            extra = ["-addext", f"subjectAltName={names}", "-keyout", made.key, "-out", made.cert]
            subprocess.run([*command.split(), *extra], check=True, capture_output=True)
        return made

    return make
