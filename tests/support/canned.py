"""An HTTP server whose every answer a test decides."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

__all__ = ["Canned", "StartCanned", "canned"]

_HANDSHAKE = b"\x16"
"""The first byte of a TLS client. This server speaks none."""
Decide = Callable[[str, Any], Any]
"""(path, parsed body) to the answer: a status; text or a JSON value with 200; (status, JSON value); None, which closes
the connection; or `...`, which never answers."""
StartCanned = Callable[[Decide], Awaitable["Canned"]]


@dataclass
class Canned:
    """`heads` are the heads of the requests, `paths` their paths."""

    port: int
    heads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]


@pytest.fixture
async def canned() -> AsyncIterator[StartCanned]:
    """`await canned(decide)`: a running `Canned`, on a free port."""
    servers: list[asyncio.Server] = []
    writers: list[asyncio.StreamWriter] = []

    async def start(decide: Decide) -> Canned:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while True:
                    first = await reader.readexactly(1)
                    if first == _HANDSHAKE:
                        break
                    head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                    found.heads.append(head)
                    length = [line for line in head.lower().split("\r\n") if line.startswith("content-length:")]
                    body = await reader.readexactly(int(length[0].split(":")[1])) if length else b"null"
                    answer = decide(head.split(" ")[1], json.loads(body))
                    if answer is ...:
                        await reader.read()
                    if answer is None or answer is ...:
                        break
                    writer.write(_response(answer))
                    await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        servers.append(server)
        found = Canned(server.sockets[0].getsockname()[1])
        return found

    yield start
    for server in servers:
        server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.01)


def _response(answer: Any) -> bytes:
    if isinstance(answer, bytes):
        return answer
    if isinstance(answer, int):
        status, body = answer, ""
    else:
        status, value = answer if isinstance(answer, tuple) else (200, answer)
        body = value if isinstance(value, str) else json.dumps(value)
    raw = body.encode()
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(raw)) + raw
