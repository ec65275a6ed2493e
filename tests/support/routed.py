"""A plane of the gateway between clients and small servers, all on loopback sockets of one event loop."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any

import msgspec

from garrison.base.clock import SystemClock
from garrison.base.errors import GarrisonError
from garrison.gateway.link.messages import Keys, RouteValue, Settings, Tables, TargetValue
from garrison.gateway.worker.connections.inbound import Inbound
from garrison.gateway.worker.exchange.exchange import Exchange
from garrison.gateway.worker.plane import Plane
from garrison.gateway.worker.table.stored_responses import StoredAt
from garrison.gateway.worker.table.targets import Target

__all__ = ["Place", "Routed", "body_of"]

CHAT = "/v1/chat/completions"


def body_of(model: str, **fields: Any) -> bytes:
    return msgspec.json.encode({"model": model, "messages": [{"role": "user", "content": "hi"}], **fields})


class Place:
    """A server that answers as `how` says: a status, `lost` (it reads and closes), or `held` until `release`.

    Attributes:
        asked: the bodies of its requests.
        opened: connections.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.how: int | str = 200
        self.closes_after = 0
        self.asked: list[dict[str, Any]] = []
        self.opened = 0
        self.port = 0
        self.release = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._writers:
                writer.close()
            self._server = None

    @property
    def value(self) -> TargetValue:
        return TargetValue(id=f"instance:{self.name}", url=f"http://127.0.0.1:{self.port}")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        self._writers.add(writer)
        try:
            number = 0
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(one[16:]) for one in head.split(b"\r\n") if one.lower().startswith(b"content-length:")
                )
                self.asked.append(msgspec.json.decode(await reader.readexactly(length)))
                number += 1
                if self.how == "lost" or 0 < self.closes_after < number:
                    return
                if self.how == "half":
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
                    return
                if self.how == "held":
                    await self.release.wait()
                status = self.how if isinstance(self.how, int) else 200
                body = self.name.encode()
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (status, len(body), body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()


class _Link:
    """`ControlLink` that does what the test says about a cold target."""

    def __init__(self) -> None:
        self.activated: list[str] = []
        self.has_left: list[int] = []
        self.on_activate: Callable[[Target, Exchange], None] = lambda _target, _exchange: None

    def activate(self, target: Target, exchange: Exchange, seconds: float | None) -> int:
        self.activated.append(target.id)
        asyncio.get_running_loop().call_soon(self.on_activate, target, exchange)
        return len(self.activated)

    def abandon(self, number: int) -> None: ...
    def sync(self, then: Callable[[], None]) -> bool:
        return False

    def stored(self, id: str, at: StoredAt) -> None: ...
    def busy(self, target: Target) -> None: ...
    def idle(self, target: Target) -> None: ...
    def left(self, number: int) -> None:
        self.has_left.append(number)


class Routed:
    """The plane, its places by name, and a client. `passed`: seconds that its clock is ahead."""

    def __init__(self, *names: str) -> None:
        loop = asyncio.get_running_loop()
        self.plane = Plane(SystemClock(), loop)
        self.passed = 0.0
        self.plane.now = lambda: loop.time() + self.passed
        self.plane.set_settings(Settings(host="", port=0, control_socket="/", open_inference=True))
        self.plane.callers.set_keys(Keys(secret=b"s" * 32, config_keys=(), revision=1, rows=[]))
        self.link = self.plane.link = _Link()
        self.places = {name: Place(name) for name in names}
        self._server: asyncio.Server | None = None
        self._port = 0
        self.version = 0

    async def __aenter__(self) -> "Routed":
        for one in self.places.values():
            await one.open()
        self._server = await asyncio.get_running_loop().create_server(lambda: Inbound(self.plane), "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        self.tell(targets=[one.value for one in self.places.values()])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for one in self.places.values():
            one.release.set()
            await one.close()
        assert self._server is not None
        self._server.close()
        for client in list(self.plane.inbound):
            client.abort()
        for target in self.plane.table.targets.values():
            target.drop_idle()
        await asyncio.sleep(0.01)

    def tell(self, **told: Any) -> None:
        self.version += 1
        self.plane.table.apply(Tables(version=self.version, **told))

    def route(self, *names: str, policy: str = "round-robin", **more: Any) -> None:
        """Declare the route `r` over these places."""
        targets = tuple(f"instance:{name}" for name in names)
        self.tell(routes=[RouteValue(name="r", targets=targets, policy=policy, **more)])

    def target(self, name: str) -> Target:
        return self.plane.table.targets[f"instance:{name}"]

    async def ask(
        self, body: bytes | None = None, *, path: str = CHAT, headers: str = "", method: str = "POST"
    ) -> tuple[int, str, str]:
        """Send a request; return status, head and body. The status is 0 if the connection was closed without one."""
        reader, writer = await self.begin(body, path=path, headers=headers, method=method)
        try:
            async with asyncio.timeout(10):
                answer = await reader.read()
        except ConnectionError:
            answer = b""
        writer.close()
        head, _, rest = answer.partition(b"\r\n\r\n")
        return int(head[9:12] or b"0"), head.decode().lower(), rest.decode()

    async def begin(
        self, body: bytes | None = None, *, path: str = CHAT, headers: str = "", method: str = "POST"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send a request and return without its answer."""
        body = body_of("r") if body is None else body
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}content-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        return reader, writer

    async def answers(self, count: int, **how: Any) -> list[str]:
        """Ask so many times, one after the other, and return which place answered each time."""
        found = []
        for _ in range(count):
            status, _, name = await self.ask(**how)
            assert status == 200, (status, name)
            found.append(name)
        return found

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():
                await asyncio.sleep(0.002)

    def counted(self) -> dict[str, tuple[int, list[int]]]:
        """Requests in progress, as each counter has them."""
        targets = self.plane.table.targets.values()
        return {
            one.id: (one.running, [end.outstanding for end in (one.end, *one.ends)])
            for one in targets
            if one.running or any(end.outstanding for end in (one.end, *one.ends))
        }


def refuse(error: GarrisonError) -> Callable[[Target, Exchange], None]:
    return lambda _target, exchange: exchange.refused(error)
