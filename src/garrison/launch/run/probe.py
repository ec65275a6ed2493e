"""Asking a starting engine whether it is ready, in the way that its own flags demand."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from garrison.engines.engine import Endpoint, Readiness
from garrison.launch.run.ready import Answer, base_url, probe, reachable

if TYPE_CHECKING:
    import httpx2

__all__ = ["EngineProbe"]


class EngineProbe:
    """Questions to one endpoint, as an async context manager.

    Certificates are not checked: the engine is on this machine, no secret is sent to it, and a certificate for its
    public name does not fit the loopback address.

    Attributes:
        endpoint: how it was reached; what was wrongly read from the argv is corrected by what answered.
    """

    def __init__(self, endpoint: Endpoint, readiness: Readiness, *, timeout: float = 2.0) -> None:
        self.endpoint = endpoint
        self._readiness = readiness
        self._timeout = timeout
        self._clients: dict[str, httpx2.AsyncClient] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients.values():
            await client.aclose()

    async def ask(self) -> Answer:
        """Ask once; each way that is tried takes `timeout` seconds at most."""
        if self.endpoint.protocol == "grpc":
            return await self._knock()
        first: Answer | None = None
        for way in _ways(self.endpoint):
            if first is not None and first.http and (way.tls != self.endpoint.tls or not first.missing):
                break  # it speaks HTTP in the way it was asked; only a path that is not there may have another prefix
            answer = await probe(self._client(way), self._readiness.path, self._readiness.loading, self._readiness.dead)
            if not answer.unsure:
                if answer.heard:
                    self.endpoint = way
                return answer if answer.heard or first is None else first
            first = first or answer
        assert first is not None
        if not first.http and self.endpoint.tls and self.endpoint.client_cert:
            return replace(first, reason="it talks only to clients with a certificate")
        return first

    async def _knock(self) -> Answer:
        """No HTTP is spoken there: that it accepts a connection is all that can be seen."""
        where = self.endpoint
        try:
            async with asyncio.timeout(self._timeout):
                opening = (
                    asyncio.open_unix_connection(where.uds)
                    if where.uds
                    else asyncio.open_connection(reachable(where.host), where.port)
                )
                _, writer = await opening
        except (OSError, TimeoutError):
            return Answer(False, "nothing listens")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return Answer(True, "it accepts connections; gRPC is not asked further", heard=True)

    def _client(self, way: Endpoint) -> "httpx2.AsyncClient":
        import httpx2

        url = base_url(replace(way, port=way.health_port or way.port))
        if url not in self._clients:
            transport = httpx2.AsyncHTTPTransport(uds=way.uds, verify=False) if way.uds else None
            self._clients[url] = httpx2.AsyncClient(
                base_url=url,
                timeout=self._timeout,
                trust_env=False,
                transport=transport,
                verify=False,
            )
        return self._clients[url]


def _ways(endpoint: Endpoint) -> Iterator[Endpoint]:
    """What the argv says first. Then without the prefix, which a proxy may add; then with TLS, or without: a wrapper
    script may have added what the argv does not show."""
    for tls in (endpoint.tls, not endpoint.tls):
        for prefix in dict.fromkeys((endpoint.prefix, "")):
            yield replace(endpoint, tls=tls, prefix=prefix)
