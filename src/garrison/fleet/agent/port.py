"""`GET /health` and `GET /metrics` of an agent, on loopback alone: nothing that is served here changes anything."""

import asyncio
import contextlib
import errno
import json
from collections.abc import Callable
from typing import Any

from garrison.base.errors import InvalidError, PortForeignError

__all__ = ["AgentPort"]

_HOST = "127.0.0.1"
_MOST_BYTES = 8192
_MOST_CONNECTIONS = 16
_SECONDS = 5.0
"""Deadline for a whole exchange."""
_LOCAL = ("127.0.0.1", "localhost")
"""Names that a request may call this address by: a page in a browser cannot read it under another name."""

_REASONS = {200: "OK", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
            503: "Service Unavailable"}  # fmt: skip


class AgentPort:
    """A listener for one request at a time on each connection.

    Args:
        health: returns whether the agent works, and what it says about itself.
        metrics: returns Prometheus' text.
    """

    def __init__(self, health: Callable[[], tuple[bool, dict[str, Any]]], metrics: Callable[[], bytes]) -> None:
        self._health = health
        self._metrics = metrics
        self._server: asyncio.Server | None = None
        self._open = 0

    @property
    def number(self) -> int:
        """The port that it listens on."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def listen(self, port: int) -> None:
        """Begin to listen; 0 chooses a free port.

        Raises:
            PortForeignError: the port is taken.
            InvalidError: it cannot be used.
        """
        try:
            self._server = await asyncio.start_server(self._exchange, _HOST, port, limit=_MOST_BYTES)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortForeignError(
                    f"port {port} of {_HOST} is taken", hint="Give --metrics-port another one."
                ) from None
            raise InvalidError(
                f"port {port} of {_HOST} cannot be used: {error.strerror}", hint="Give --metrics-port another one."
            ) from None

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= _MOST_CONNECTIONS:
                async with asyncio.timeout(_SECONDS):
                    writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asks badly gets no answer
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, head: bytes) -> bytes:
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        names = [value.strip() for name, _, value in (line.partition(":") for line in lines) if name.lower() == "host"]
        if len(names) != 1 or not rest.partition(" ")[2].startswith("HTTP/1."):
            return _response(400, "text/plain", b"bad request\n")
        if names[0].rpartition(":")[0].lower() not in _LOCAL and names[0].lower() not in _LOCAL:
            return _response(403, "text/plain", b"ask 127.0.0.1 or localhost\n")
        if path not in ("/health", "/metrics"):
            return _response(404, "text/plain", b"/health and /metrics are here\n")
        if method not in ("GET", "HEAD"):
            return _response(405, "text/plain", b"GET or HEAD\n")
        if path == "/metrics":
            return _response(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics(), bare=method == "HEAD")
        ok, body = self._health()
        text = json.dumps(body, ensure_ascii=False).encode() + b"\n"
        return _response(200 if ok else 503, "application/json", text, bare=method == "HEAD")


def _response(status: int, kind: str, body: bytes, *, bare: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if bare else body)
