"""The seam to targets: one connection, requests on it in order. `http` is the real one, `MemoryTargets` the twin.

    async with dialer.open(target, deadline) as connection:
        answer = await connection.request("GET", "/v1/models", timeout=5.0)

A redirect is an answer like any other and is never followed, so credentials go to the declared origin alone.
"""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from garrison.base.redaction import redacted
from garrison.fleet.observation import Cause
from garrison.fleet.target import TargetSpec

__all__ = ["Answer", "Connection", "Dialer", "TransportError"]


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. Header names are lower case; the body is bounded by the transport."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class TransportError(Exception):
    """No whole answer came. `cause` is one of dns, refused, timeout, reset, tls, malformed, local.

    `sent`: whether any byte of the request had left: if so, the server may have acted on it.
    """

    def __init__(self, cause: Cause, detail: str, *, sent: bool = False) -> None:
        detail = redacted(detail)  # libraries put what was sent into their messages
        super().__init__(detail)
        self.cause = cause
        self.detail = detail
        self.sent = sent


class Connection(Protocol):
    async def request(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 4 * 1024 * 1024
    ) -> Answer:
        """Send and read one answer. `path` starts with a slash and comes after the target's own path prefix; `timeout`
        in seconds covers the whole exchange; `limit` bounds the body in bytes. Opens the connection anew when the
        server has closed it between two requests.

        Raises:
            TransportError: no whole answer.
        """


class Dialer(Protocol):
    def open(self, target: TargetSpec) -> AbstractAsyncContextManager[Connection]:
        """A connection with the target's TLS settings, API key and headers. It is made at the first request.

        Raises:
            TransportError: on entering or at the first request.
        """
