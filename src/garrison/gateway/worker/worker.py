"""The worker: startup, main_loop, shutdown."""

import asyncio
import os
import signal
import socket
import ssl
from typing import Any

import garrison
from garrison.base.clock import SystemClock
from garrison.base.identity import start_time
from garrison.base.logs import logger
from garrison.gateway.link import messages
from garrison.gateway.worker.connections.inbound import Inbound
from garrison.gateway.worker.link import Link
from garrison.gateway.worker.plane import Plane

__all__ = ["Worker"]

_BACKLOG = 4096
_DRAIN_POLL_SECONDS = 0.05
_LAST_SECONDS = 1.5
"""For the control process to store what the last requests used."""

_log = logger(__name__)


class Worker:
    """One worker.

    Args:
        path: the socket of the control process.
    """

    def __init__(self, path: str) -> None:
        self.plane = Plane(SystemClock(), asyncio.get_running_loop())
        self.link = Link(self.plane, path, self._hello, self._ordered)
        self.plane.link = self.link
        self._server: asyncio.Server | None = None
        self._address: tuple[str, int] | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._opening: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._drain_seconds = 30.0

    async def startup(self) -> None:
        """Connect to the control process, which says where to listen."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: self._drain(self.plane.settings.drain_seconds))
        self._tasks = [
            asyncio.create_task(self.link.run(), name="link"),
            asyncio.create_task(self.plane.sweep(), name="sweep"),
        ]

    async def main_loop(self) -> None:
        """Serve until it is told to end."""
        await self._ended.wait()

    async def shutdown(self) -> None:
        """Accept no more, and finish what is in progress within the limit."""
        self.plane.draining = True
        if self._server is not None:
            self._server.close()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._drain_seconds
        for feed in list(self.plane.feeds):
            feed.end()
        for one in [one for one in self.plane.inbound if one.quiet()]:
            one.close()
        while self.plane.inbound and loop.time() < deadline:  # noqa: ASYNC110 - connections do not tell when they end
            await asyncio.sleep(_DRAIN_POLL_SECONDS)
        for one in list(self.plane.inbound):
            one.abort()
        await self.link.reporting.finish(_LAST_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    def _drain(self, seconds: float) -> None:
        self._drain_seconds = seconds
        self._ended.set()

    def _hello(self) -> messages.Hello:
        pid = os.getpid()
        targets = self.plane.table.targets.values()
        host, port = self._address or (None, None)
        return messages.Hello(
            protocol=messages.PROTOCOL, version=garrison.__version__, pid=pid, start=start_time(pid) or 0,
            host=host, port=port, running={one.id: one.running for one in targets if one.running},
        )  # fmt: skip

    def _ordered(self, message: messages.Settings | messages.Drain) -> None:
        if isinstance(message, messages.Drain):
            self._drain(message.seconds)
            return
        self.plane.set_settings(message)
        if self._ended.is_set():
            return  # it accepts no more connections, wherever the others listen now
        self._drain_seconds = message.drain_seconds
        if self._address != (message.host, message.port):
            self._opening = asyncio.create_task(self._listen(message), name="listen")

    async def _listen(self, told: messages.Settings) -> None:
        plane = self.plane
        try:
            context = _context(told)
            bound = _bound(told.host, told.port)
            server = await asyncio.get_running_loop().create_server(
                lambda: Inbound(plane), sock=bound, ssl=context, backlog=_BACKLOG
            )
        except (OSError, ssl.SSLError) as error:
            taken = error.errno in (98, 48)
            self.link.send(messages.Failed(message=str(error.strerror or error), taken=taken))
            return
        if self._ended.is_set():
            server.close()
            return
        before, self._server = self._server, server
        self._address = (told.host, told.port)
        if before is not None:
            before.close()
        self.link.send(messages.Listening(port=told.port))


def _context(told: messages.Settings) -> ssl.SSLContext | None:
    if told.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(told.tls_cert, told.tls_key)
    return context


def _bound(host: str, port: int) -> socket.socket:
    """Bind beside the other workers of this user, and nobody else."""
    family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    bound = socket.socket(family, kind, proto)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
