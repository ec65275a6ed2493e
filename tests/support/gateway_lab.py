"""A gateway worker's plane in the loop of a test: raw clients before it, targets behind it that follow a script."""

import asyncio
import os
import socket
import ssl
import struct
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from garrison.base.clock import SystemClock
from garrison.base.errors import GarrisonError
from garrison.gateway.link import messages
from garrison.gateway.worker.connections.inbound import Inbound
from garrison.gateway.worker.exchange.exchange import Exchange
from garrison.gateway.worker.plane import Plane
from garrison.gateway.worker.table.stored_responses import StoredAt
from garrison.gateway.worker.table.targets import Target

__all__ = ["JSON", "OK", "Client", "Conn", "FakeLink", "GatewayLab", "Message", "Upstream", "chat", "read_message"]

JSON = b'{"model": "m", "messages": []}'
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_RESET = struct.pack("ii", 1, 0)
_LIMIT = 2**22


def chat(body: bytes = JSON, *headers: bytes, path: bytes = b"/v1/chat/completions") -> bytes:
    """Return a request to a model."""
    lines = [b"POST " + path + b" HTTP/1.1", b"Host: gateway", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


@dataclass
class Message:
    """A request or an answer, read without the gateway's own parser."""

    start: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes = b""
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)

    @property
    def status(self) -> int:
        return int(self.start.split(b" ")[1])

    def all(self, name: bytes) -> list[bytes]:
        return [value for one, value in self.headers if one.lower() == name]

    def get(self, name: bytes) -> bytes | None:
        found = self.all(name)
        assert len(found) <= 1, f"{name!r} is there {len(found)} times"
        return found[0] if found else None


async def _lines(reader: asyncio.StreamReader) -> list[bytes]:
    found = []
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        found.append(line[:-2])
    return found


def _pairs(lines: list[bytes]) -> list[tuple[bytes, bytes]]:
    return [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


async def read_message(reader: asyncio.StreamReader, *, method: bytes = b"") -> Message:
    """Read one message. Raises IncompleteReadError for one that is cut off, ConnectionResetError for a reset."""
    start, *lines = await _lines(reader)
    found = Message(start, _pairs(lines))
    if start.startswith(b"HTTP/") and (method == b"HEAD" or found.status < 200 or found.status in (204, 304)):
        return found
    length, coding = found.get(b"content-length"), found.get(b"transfer-encoding")
    assert length is None or coding is None, "a message with two framings"
    if length is not None:
        found.body = await reader.readexactly(int(length))
    elif coding is not None:
        assert coding.lower() == b"chunked"
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            found.body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        found.trailers = _pairs(await _lines(reader))
    elif start.startswith(b"HTTP/"):
        found.body = await reader.read(-1)
    return found


class Client:
    """One connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(data)

    async def answer(self, method: bytes = b"") -> Message:
        return await asyncio.wait_for(read_message(self.reader, method=method), 10)

    async def ask(self, data: bytes) -> Message:
        self.send(data)
        return await self.answer(data.split(b" ")[0])

    async def rest(self) -> bytes:
        """Return everything up to the end of the connection; `reset` is whether that was a reset."""
        found = bytearray()
        self.reset_seen = False
        try:
            while data := await asyncio.wait_for(self.reader.read(65536), 10):
                found += data
        except ConnectionResetError:
            self.reset_seen = True
        return bytes(found)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        _reset(self.writer)


class Conn:
    """One connection that a target has accepted."""

    def __init__(self, upstream: "Upstream", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._upstream = upstream
        self.reader, self.writer = reader, writer
        self.asked = 0

    async def request(self) -> Message:
        found = await read_message(self.reader)
        self.asked += 1
        self._upstream.requests.append(found)
        return found

    def send(self, data: bytes) -> None:
        if not self.writer.is_closing():  # uvloop raises for a transport that was closed
            self.writer.write(data)

    async def ended(self) -> None:
        """Wait until the gateway has closed it, and note when."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionResetError:
            pass
        self._upstream.ended_at.append(time.monotonic())

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        _reset(self.writer)


Script = Callable[[Conn], Awaitable[None]]


class Upstream:
    """A target. Its script runs for each connection.

    Attributes:
        requests: those that its scripts have read.
        ended_at: when the gateway closed connections, for scripts that wait for it.
        failures: what its scripts raised.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Message] = []
        self.ended_at: list[float] = []
        self.connections: list[Conn] = []
        self.failures: list[BaseException] = []
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""

    async def start(self, path: Path | None = None) -> None:
        if path is not None:
            self._server = await asyncio.start_unix_server(self._accepted, path, limit=_LIMIT)
            self.url = f"unix:{path}"
        else:
            self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0, limit=_LIMIT)
            self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conn = Conn(self, reader, writer)
        self.connections.append(conn)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.script(conn)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        except Exception as error:  # noqa: BLE001 - whatever a script raises fails its test
            self.failures.append(error)
        finally:
            self._tasks.discard(task)
            writer.close()

    def stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    async def close(self) -> None:
        self.stop_listening()
        for conn in self.connections:
            conn.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))


class FakeLink:
    """`ControlLink` of a test.

    Attributes:
        waiting: exchanges that wait for a cold target, by number.
        news: is called before a sync is answered.
        alive: syncs are answered.
        told_of: responses that the other workers were told of.
        loads: what was asked to be loaded (True) or unloaded, in order: target, and one of its models.
    """

    def __init__(self) -> None:
        self.waiting: dict[int, tuple[Target, Exchange]] = {}
        self.abandoned: list[int] = []
        self.syncs = 0
        self.news: Callable[[], None] = lambda: None
        self.alive = True
        self.loads: list[tuple[str, str, bool]] = []
        self.used: set[str] = set()
        self.told_of: list[tuple[str, StoredAt]] = []
        self._number = 0

    def activate(self, target: Target, exchange: Exchange, seconds: float | None) -> int:
        self._number += 1
        self.waiting[self._number] = (target, exchange)
        return self._number

    def abandon(self, number: int) -> None:
        del self.waiting[number]
        self.abandoned.append(number)

    def sync(self, then: Callable[[], None]) -> bool:
        if not self.alive:
            return False
        self.syncs += 1

        def answered() -> None:
            self.news()
            then()

        asyncio.get_running_loop().call_soon(answered)
        return True

    def load(
        self, target: str, *, load: bool, then: Callable[[GarrisonError | None], None], route: str = "", model: str = ""
    ) -> bool:
        self.loads.append((target, model, load))
        asyncio.get_running_loop().call_soon(then, None)
        return True

    def stored(self, id: str, at: StoredAt) -> None:
        self.told_of.append((id, at))

    def busy(self, target: Target) -> None:
        assert target.id not in self.used
        self.used.add(target.id)

    def idle(self, target: Target) -> None:
        self.used.remove(target.id)


class GatewayLab:
    """A plane, its clients and its targets."""

    KEY = "key-of-a-client"
    ENGINE_KEY = "key-of-the-engine"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server: asyncio.Server | None = None
        self._clients: list[Client] = []
        self._upstreams: list[Upstream] = []
        self._version = 0
        self._sweep: asyncio.Task[None] | None = None
        self.errors: list[dict[str, Any]] = []
        self.port = 0
        self.trusted: ssl.SSLContext | None = None

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.errors.append(context))
        # libuv opens one descriptor for itself when it listens for the first time.
        (await loop.create_server(asyncio.Protocol, "127.0.0.1", 0)).close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self._descriptors = _descriptors()
        self.plane = Plane(SystemClock(), loop)
        self.link = FakeLink()
        self.plane.link = self.link
        self.set()
        self.plane.callers.set_keys(
            messages.Keys(secret=b"s" * 32, config_keys=(self.KEY,), revision=1, rows=[])
        )  # fmt: skip
        self._server = await loop.create_server(lambda: Inbound(self.plane), "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]

    @property
    def control_path(self) -> Path:
        return self._folder / "control"

    def set(self, **settings: Any) -> None:
        told = {"host": "", "port": 0, "control_socket": str(self.control_path), "open_inference": True} | settings
        self.plane.set_settings(messages.Settings(**told))

    def sweep(self) -> None:
        """Have the limits of time watched."""
        self._sweep = asyncio.create_task(self.plane.sweep())

    async def upstream(self, script: Script, *, path: Path | None = None) -> Upstream:
        made = Upstream(script)
        await made.start(path)
        self._upstreams.append(made)
        return made

    async def control(self, script: Script) -> Upstream:
        """Run a control process in which `script` answers."""
        return await self.upstream(script, path=self.control_path)

    def tell(
        self,
        *urls: str | None,
        name: str = "m",
        policy: str = "least-outstanding",
        route: Mapping[str, Any] | None = None,
        **value: Any,
    ) -> None:
        """Say that a model is served at `urls`; None for a cold target. `route`: what else is said about its route."""
        self._version += 1
        targets = [
            messages.TargetValue(id=f"target:{name}{number}", url=url, key=self.ENGINE_KEY, **value)
            for number, url in enumerate(urls)
        ]
        told = messages.RouteValue(name=name, targets=tuple(one.id for one in targets), policy=policy, **(route or {}))
        self.plane.table.apply(messages.Tables(version=self._version, targets=targets, routes=[told]))

    async def serve(self, script: Script, **value: Any) -> Upstream:
        """Serve the model `m` at one target."""
        made = await self.upstream(script)
        self.tell(made.url, **value)
        return made

    async def client(self) -> Client:
        made = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=_LIMIT, ssl=self.trusted))
        self._clients.append(made)
        return made

    @property
    def targets(self) -> list[Target]:
        return [*self.plane.table.targets.values(), self.plane._control]

    def target(self, name: str = "m", number: int = 0) -> Target:
        return self.plane.table.targets[f"target:{name}{number}"]

    def in_progress(self) -> list[str]:
        """What is not over yet, in words."""
        plane = self.plane
        found = [f"{one.id}: {one.running} requests" for one in self.targets if one.running]
        found += [f"{len(plane._timed)} timed"] if plane._timed else []
        found += [f"{len(plane._connecting)} connecting"] if plane._connecting else []
        found += [f"{sum(not one.quiet() for one in plane.inbound)} busy clients"] * any(
            not one.quiet() for one in plane.inbound
        )
        found += [f"{len(self.link.waiting)} cold waits"] if self.link.waiting else []
        lines = [one.line for one in plane.table.routes.values()]
        found += [f"in line: {[(one.running, one.waiting, one.size) for one in lines]}"] * any(
            one.running or one.waiting or one.size for one in lines
        )
        found += [f"told as used: {self.link.used}"] if self.link.used else []
        return found

    async def quiet(self, seconds: float = 2.0) -> None:
        """Wait until nothing is in progress."""
        await self.until(lambda: not self.in_progress(), seconds, self.in_progress)

    async def until(
        self, condition: Callable[[], Any], seconds: float = 5.0, told: Callable[[], Any] = lambda: "the condition"
    ) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"after {seconds:g} s: {told()}"
            await asyncio.sleep(0.002)

    async def settled(self) -> None:
        """Close everything, and check that nothing of it is left."""
        await self.quiet()
        for client in self._clients:
            client.close()
        await self.until(lambda: not self.plane.inbound, told=lambda: f"{len(self.plane.inbound)} clients are there")
        await self.quiet()
        await self.close()
        await self.until(
            lambda: _descriptors() <= self._descriptors,
            told=lambda: f"{_descriptors()} descriptors, {self._descriptors} before",
        )
        assert not self.errors, self.errors
        failures = [one for upstream in self._upstreams for one in upstream.failures]
        assert not failures, failures

    async def close(self) -> None:
        if self._sweep is not None:
            self._sweep.cancel()
        for client in self._clients:
            client.close()
        for target in self.targets:
            target.drop_idle()
        if self._server is not None:
            self._server.close()
        for upstream in self._upstreams:
            await upstream.close()
        await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
