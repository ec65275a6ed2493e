"""A small HTTP/1.1 server on asyncio and httptools: listening, keeping track of connections, stopping."""

import asyncio
import contextlib
import socket
from email.utils import formatdate
from ssl import SSLContext

from garrison.sim.http.connection import App, Connection, Limits

__all__ = ["App", "HttpServer", "Limits"]


class HttpServer:
    """Listens on a bound socket and keeps track of its connections."""

    def __init__(self, app: App, limits: Limits) -> None:
        self.app = app
        self.limits = limits
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.aborted = 0
        self._server: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None
        self._date = (0, "")
        self._empty: asyncio.Event | None = None

    async def start(self, sock: socket.socket, ssl: SSLContext | None = None) -> None:
        loop = asyncio.get_running_loop()
        create = loop.create_unix_server if sock.family == socket.AF_UNIX else loop.create_server
        self._server = await create(lambda: Connection(self, loop), sock=sock, ssl=ssl, backlog=2048)

    async def stop(self, drain: float = 0.0) -> None:
        """Stop accepting, give busy connections `drain` seconds, close what is left."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in tuple(self.connections):
            connection.finish()
        if self.connections and drain > 0:
            self._empty = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), drain)
        self.drop_connections()
        for _ in range(3):  # transports report to their protocols one turn later
            await asyncio.sleep(0)
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    def drop_connections(self) -> None:
        """Close all connections at once; answers in progress stay incomplete, as at the end of a process."""
        for connection in tuple(self.connections):
            connection.abort()

    def opened(self, connection: Connection) -> None:
        self.accepted += 1
        self.connections.add(connection)
        if self._sweeper is None:
            self._sweep_later()

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if self._empty is not None and not self.connections:
            self._empty.set()

    def abandoned(self) -> None:
        self.aborted += 1

    def date(self, now: float) -> str:
        """Return the Date header, which is rendered once a second."""
        second = int(now)
        if self._date[0] != second or not self._date[1]:
            self._date = (second, formatdate(usegmt=True))
        return self._date[1]

    def _sweep_later(self) -> None:
        every = min(1.0, max(0.01, min(self.limits.idle_seconds, self.limits.head_seconds) / 2))
        self._sweeper = asyncio.get_running_loop().call_later(every, self._sweep)

    def _sweep(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in tuple(self.connections):
            connection.expire(now)
        self._sweeper = None
        if self.connections:
            self._sweep_later()
