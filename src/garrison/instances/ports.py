"""Ports for instances: free now, as a bind would find them, and never given to two."""

import asyncio
import itertools
from collections.abc import Container, Iterable

from garrison.base.errors import ConflictError
from garrison.net.thread_pool import ThreadPool
from garrison.preflight.listeners import ScanError, Sockets, conflicting
from garrison.preflight.machine import Machine

__all__ = ["Ports"]

_PROMISE_SECONDS = 60.0
"""How long a port that was given stays given before its instance has to be on record with it."""


class Ports:
    """The ports of one range. Belongs to one event loop.

    Args:
        ports: the first and the last.
        host: the address on which engines listen.
    """

    def __init__(
        self, ports: tuple[int, int], pool: ThreadPool, *, host: str = "127.0.0.1", sockets: Sockets | None = None
    ) -> None:
        self._first, self._last = ports
        self._pool = pool
        self._host = host
        self._sockets = sockets or Machine(lambda _: None).sockets
        self._promised: dict[int, float] = {}
        self._turn = asyncio.Lock()

    async def give(self, taken: Container[int], kept: int | None = None) -> int:
        """Return a port that is free now; it is not given to anybody else for the next minute.

        Args:
            taken: ports that belong to instances.
            kept: the one that the instance had, which it gets again if it is free.

        Raises:
            ConflictError: there is none.
        """
        async with self._turn:
            now = asyncio.get_running_loop().time()
            self._promised = {port: until for port, until in self._promised.items() if until > now}
            others = (
                port
                for port in range(self._first, self._last + 1)
                if port not in self._promised and port != kept and port not in taken
            )
            wanted = others if kept is None else itertools.chain((kept,), others)
            found = await self._pool.run(lambda: self._first_free(wanted), "look for a free port")
            if found is None:
                raise ConflictError(
                    f"no port from {self._first} to {self._last} is free",
                    hint="Set GARRISON_INSTANCE_PORT_RANGE to a larger range.",
                )
            self._promised[found] = now + _PROMISE_SECONDS
            return found

    def _first_free(self, ports: Iterable[int]) -> int | None:
        addresses = self._sockets.resolve(self._host)
        for port in ports:
            try:
                # A server that has bound its port and loads its model does not listen yet; a bind may then succeed.
                if conflicting(addresses, self._sockets.listeners(port)):
                    continue
            except ScanError:
                pass  # what a bind says has to do
            if self._sockets.bind_error(addresses, port) is None:
                return port
        return None
