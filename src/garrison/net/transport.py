"""The seam to HTTP servers: one connection, with requests in order.

    async with dialer.open(endpoint) as connection:
        answer = await connection.request("GET", "/v1/models", timeout=5.0)

`client` holds the real one; a fleet's `MemoryTargets` is its in-memory twin. A redirect is an answer like any other and
is never followed, so credentials go to the declared origin alone.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from garrison.net.endpoint import Endpoint
from garrison.net.errors import TransportError

__all__ = ["Answer", "Connection", "Dialer", "TransportError"]

EndpointT = TypeVar("EndpointT", bound=Endpoint, contravariant=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response. Header names are in lower case; the body is bounded by the transport."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Connection(Protocol):
    async def request(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 4 * 1024 * 1024
    ) -> Answer:
        """Send a request and read its complete response. Reconnects if the server closed the connection in between.

        Args:
            path: starts with a slash and follows the path prefix of the endpoint.
            json: a value, or the bytes of one.
            timeout: seconds for the whole exchange.
            limit: bytes of the body.

        Raises:
            TransportError: no complete response arrived.
        """


class Dialer(Protocol[EndpointT]):
    def open(self, endpoint: EndpointT, /) -> AbstractAsyncContextManager[Connection]:
        """Return a connection with the endpoint's TLS settings, API key and headers; it connects at the first request.

        Raises:
            TransportError: on entering or at the first request.
        """
