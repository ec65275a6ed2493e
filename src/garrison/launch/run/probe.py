"""Asking a starting engine whether it is ready, in the way that its own flags demand."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import Self

from garrison.engines.engine import Endpoint, Readiness
from garrison.launch.run.address import base_url, reachable
from garrison.launch.run.ready import Answer, no_answer, probe
from garrison.net.client import HttpConnection, HttpDialer
from garrison.net.endpoint import Server, Tls
from garrison.net.errors import transport_error
from garrison.net.origin import origin_of

__all__ = ["EngineProbe"]


class EngineProbe:
    """Questions to one endpoint, as an async context manager.

    Certificates are not checked: the engine is on this machine, it is sent no secret, and a certificate for its public
    name does not fit the loopback address.

    Args:
        timeout: seconds to connect, and again to answer, for each way that is tried.

    Attributes:
        endpoint: how it was reached; what the argv says wrongly is corrected by what answered.
    """

    def __init__(self, endpoint: Endpoint, readiness: Readiness, *, timeout: float = 2.0) -> None:
        self.endpoint = endpoint
        self._readiness = readiness
        self._timeout = timeout
        self._dialer = HttpDialer()
        self._connections: dict[str, HttpConnection] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection in self._connections.values():
            await connection.__aexit__(kind, error, trace)

    async def ask(self) -> Answer:
        """Ask once."""
        if self.endpoint.protocol == "grpc":
            return await self._knock()
        first: Answer | None = None
        for way in _ways(self.endpoint):
            if first is not None and first.http and (way.tls != self.endpoint.tls or not first.missing):
                break  # it speaks HTTP in the way it was asked; only a path that is missing may have another prefix
            answer = await self._ask(way)
            if not answer.unsure:
                if answer.heard:
                    self.endpoint = way
                return answer if answer.heard or first is None else first
            first = first or answer
        assert first is not None
        if not first.http and self.endpoint.tls and self.endpoint.client_cert:
            return replace(first, reason="it requires a client certificate")
        return first

    async def _ask(self, way: Endpoint) -> Answer:
        url = base_url(replace(way, port=way.health_port or way.port))
        if url not in self._connections:
            server = Server(base_url=url, tls=Tls(insecure=True), timeout=self._timeout)
            self._connections[url] = self._dialer.open(server, uds=way.uds)
        said = self._readiness
        return await probe(
            self._connections[url],
            origin_of(url),
            said.path,
            said.loading,
            said.dead,
            timeout=self._timeout,
            models=not said.declared,
        )

    async def _knock(self) -> Answer:
        """gRPC is not HTTP/1.1: that it accepts a connection is all that can be seen."""
        where = self.endpoint
        try:
            async with asyncio.timeout(self._timeout):
                opening = (
                    asyncio.open_unix_connection(where.uds)
                    if where.uds
                    else asyncio.open_connection(reachable(where.host), where.port)
                )
                _, writer = await opening
        except TimeoutError:
            return Answer(False, f"no answer within {self._timeout:g} s")
        except OSError as error:
            return no_answer(transport_error(error, sent=False), timeout=self._timeout, tls=False)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return Answer(True, "it accepts connections; gRPC is not asked further", heard=True)


def _ways(endpoint: Endpoint) -> Iterator[Endpoint]:
    """What the argv says first; then without the prefix, which a proxy may add; then with TLS, or without: a wrapper
    script may have added what the argv does not show."""
    for tls in (endpoint.tls, not endpoint.tls):
        for prefix in dict.fromkeys((endpoint.prefix, "")):
            yield replace(endpoint, tls=tls, prefix=prefix)
