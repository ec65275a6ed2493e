"""The gateway of the server of this data directory, for commands beside it that change adapters."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from garrison.base.errors import GarrisonError
from garrison.fleet.values.demand import Demand
from garrison.net.thread_pool import ThreadPool

if TYPE_CHECKING:
    from garrison.cli.server.client import ServerClient

__all__ = ["TrafficOfServer"]

_ELSEWHERE = Demand(elsewhere=True)


class TrafficOfServer:
    """`AdapterTraffic` through a server. What is loaded on demand, and what makes room, its own agent decides.

    Args:
        open_client: opens a client of it.
        pool: threads for calls, which block.
    """

    def __init__(self, open_client: "Callable[[], ServerClient]", pool: ThreadPool) -> None:
        self._open, self._pool = open_client, pool

    def demand(self) -> Demand:
        """As `AdapterTraffic.demand`."""
        return _ELSEWHERE

    def tries(self, target: str, name: str) -> int:
        """As `AdapterTraffic.tries`."""
        return 0

    @asynccontextmanager
    async def leaving(self, target: str, name: str, seconds: float) -> AsyncIterator[bool]:
        """As `AdapterTraffic.leaving`. Where the server cannot be asked, the adapter may be in use."""
        path = f"/targets/{quote(target, safe='')}/holds"
        try:
            held = await self._call("POST", path, {"adapter": name, "seconds": seconds})
        except GarrisonError:
            yield False
            return
        try:
            yield bool(held["unused"])
        finally:
            with suppress(GarrisonError):
                await self._call("DELETE", f"{path}/{held['id']}")

    async def _call(self, method: str, path: str, body: Any = None) -> Any:
        def call() -> Any:
            with self._open() as client:
                return client.call(method, path, body=body)

        return await self._pool.run(call, f"{method} {path}")
