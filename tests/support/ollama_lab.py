"""The server of Ollama's API in the loop of a test, before a gateway that follows a script."""

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

from gateway_lab import Client, Conn, Message, Upstream

from garrison.gateway.ollama.door import Door
from garrison.gateway.ollama.process import make_server
from garrison.gateway.ollama.told import Told

__all__ = ["MODELS", "Cut", "OllamaLab", "Unfinished", "answer", "events", "post"]

MODELS = {"object": "list", "data": [
    {"id": "qwen", "object": "model", "created": 1, "state": "running", "engine": "vllm", "max_model_len": 4096},
    {"id": "route", "object": "model", "created": 1},
]}  # fmt: skip
Decide = Callable[[Message], bytes]
"""From a request to the gateway to the bytes of its answer."""


class Unfinished(bytes):
    """The beginning of an answer, which is never completed."""


class Cut(bytes):
    """The beginning of an answer, whose connection ends."""


def answer(body: Any, status: int = 200, *headers: str) -> bytes:
    """An answer of the gateway in JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} x", "content-type: application/json", f"content-length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def events(*pieces: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    """A streamed answer, each piece as a chunk."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces) + last


def post(path: str, body: Any, *headers: str) -> bytes:
    """A request of a client."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost:11434", f"Content-Length: {len(data)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


class OllamaLab:
    """The server, its clients, and the gateway behind it.

    Attributes:
        gateway: what it was asked is in `gateway.requests`.
        decide: its answers to all requests but those for the list of models.
    """

    def __init__(self) -> None:
        self.decide: Decide = lambda _: answer({})
        self.gateway = Upstream(self._serve)
        self.clients: list[Client] = []

    async def start(self, **told: Any) -> None:
        await self.gateway.start()
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        self.port: int = bound.getsockname()[1]
        values = {"version": "1", "data_dir": "/", "control_socket": "/", "address": "", "gateway": self.gateway.url}
        made = Told(**values | told)
        self.door = Door(made.gateway)
        self.server = make_server(made, self.door)
        self._task = asyncio.create_task(self.server._serve([bound]))
        await self.until(lambda: self.server.started)

    async def client(self) -> Client:
        made = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(made)
        return made

    async def ask(self, data: bytes) -> Message:
        """Send a request over a connection of its own, and return its answer."""
        return await (await self.client()).ask(data)

    async def until(self, true: Callable[[], object], seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while not true():
                await asyncio.sleep(0.002)

    async def close(self) -> None:
        for one in self.clients:
            one.close()
        self._task.cancel()
        for one in self.server.servers:
            one.close()
        await asyncio.wait([self._task], timeout=5)
        left = self.server.server_state.tasks
        try:
            await self.until(lambda: not left)
        finally:
            for task in tuple(left):
                task.cancel()
            self.door.close()
            await self.gateway.close()
        assert self.gateway.failures == []

    async def _serve(self, conn: Conn) -> None:
        while True:
            asked = await conn.request()
            listed = asked.start.startswith(b"GET /v1/models ")
            told = answer(MODELS) if listed else self.decide(asked)
            conn.send(told)
            if isinstance(told, Unfinished):
                await conn.ended()
            if isinstance(told, Unfinished | Cut):
                return
