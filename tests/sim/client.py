"""What the tests talk to simulators with: a raw HTTP client, and adapters on disk."""

import asyncio
import contextlib
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.sim.simulator import Simulator

DEADLINE = 10.0


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        lines = [line[6:] for line in self.body.decode().split("\n") if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


class Client:
    """One raw HTTP/1.1 connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, sim: Simulator, **options: Any) -> "Client":
        return cls(*await asyncio.open_connection(sim.config.host, sim.port, **options))

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(DEADLINE):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        lines = raw.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:] if line)}
        return int(lines[0].split()[1]), headers

    async def reply(self, *, method: str = "GET") -> Reply:
        status, headers = await self.head()
        if method == "HEAD":
            return Reply(status, headers, b"")
        async with asyncio.timeout(DEADLINE):
            if headers.get("transfer-encoding") == "chunked":
                pieces = [piece async for piece in self.chunks()]
                return Reply(status, headers, b"".join(pieces))
            if "content-length" in headers:
                return Reply(status, headers, await self.reader.readexactly(int(headers["content-length"])))
            return Reply(status, headers, await self.reader.read())

    async def chunks(self) -> AsyncIterator[bytes]:
        while True:
            size = int(await self.reader.readline(), 16)
            piece = await self.reader.readexactly(size + 2)
            if size == 0:
                return
            yield piece[:-2]

    async def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        await self.send(request_bytes(method, path, body, headers))
        return await self.reply(method=method)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


def request_bytes(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    payload = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"Host": "sim"} | ({"Content-Type": "application/json"} if body is not None else {}) | (headers or {})
    if body is not None or method == "POST":
        fields["Content-Length"] = str(len(payload))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + payload


async def call(
    sim: Simulator, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, **options: Any
) -> Reply:
    client = await Client.open(sim, **options)
    try:
        return await client.call(method, path, body, headers)
    finally:
        await client.close()


async def text(sim: Simulator, model: str, prompt: str, **more: Any) -> str:
    reply = await call(sim, "POST", "/v1/completions", {"model": model, "prompt": prompt, "max_tokens": 8} | more)
    assert reply.status == 200, reply.body
    return str(reply.json["choices"][0]["text"])


async def load(sim: Simulator, name: str, path: Path | str, **more: Any) -> Reply:
    return await call(sim, "POST", "/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(path)} | more)


async def until(condition: Callable[[], Any]) -> None:
    """Wait for something that other tasks bring about; fails after the deadline."""
    async with asyncio.timeout(DEADLINE):
        while not (found := condition()):
            await asyncio.sleep(0.002)
        if isinstance(found, Awaitable):
            raise TypeError("until takes a plain condition")


async def refused(sim: Simulator) -> None:
    """Wait until nothing listens."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                client = await Client.open(sim)
            except OSError:
                return
            await client.close()
            await asyncio.sleep(0.01)


def write_adapter(directory: Path, *, seed: int = 1, rank: int = 8, width: int = 64, truncate: int = 0) -> Path:
    """An adapter directory with one pair of matrices; `width` other than the base's is a wrong shape."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {"r": rank, "lora_alpha": 16, "target_modules": ["q_proj"], "peft_type": "LORA"}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    size = rank * width * 4
    entries = {
        f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": {
            "dtype": "F32",
            "shape": [rank, width],
            "data_offsets": [at * size, (at + 1) * size],
        }
        for at, side in enumerate("AB")
    }
    header = json.dumps(entries).encode()
    data = bytes((seed * 31 + at) % 251 for at in range(2 * size))
    content = struct.pack("<Q", len(header)) + header + data
    (directory / "adapter_model.safetensors").write_bytes(content[: len(content) - truncate])
    return directory
