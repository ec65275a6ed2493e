"""`GET /health` and `GET /metrics` of an agent, on loopback alone: nothing that is served here changes anything."""

import asyncio
import contextlib
import errno
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from garrison.base.errors import InvalidError, PortForeignError
from garrison.net.http1.limits import Limits
from garrison.net.http1.requests import Refusal, RequestReader

__all__ = ["AgentPort"]

_HOST = "127.0.0.1"
_MOST_BYTES = 8192
_MOST_CONNECTIONS = 16
_SECONDS = 5.0
"""Deadline for a whole exchange."""
_LOCAL = ("127.0.0.1", "localhost")
"""Names that a request may call this address by: a page in a browser cannot read it under another name."""


class _Asked:
    """The sink of one request: whether its head is complete, or why it is none."""

    def __init__(self) -> None:
        self.reader = RequestReader(self, Limits(head_bytes=_MOST_BYTES, body_bytes=_MOST_BYTES))
        self.complete = False
        self.refusal: Refusal | None = None

    def request_head(self) -> None:
        self.complete = True

    def request_body(self, piece: bytes) -> None: ...

    def request_end(self, keep_alive: bool) -> None: ...

    def request_refused(self, refusal: Refusal) -> None:
        self.refusal = refusal

    async def read(self, reader: asyncio.StreamReader) -> None:
        """Read until the head is there. Raises IncompleteReadError: the client has gone."""
        while not self.complete and self.refusal is None:
            if not (data := await reader.read(_MOST_BYTES)):
                raise asyncio.IncompleteReadError(b"", None)
            self.reader.feed(data)


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
                    asked = _Asked()
                    await asked.read(reader)
                    writer.write(self._answer(asked))
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError):
            pass  # whoever asks badly gets no answer
        finally:
            self._open -= 1
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _answer(self, asked: _Asked) -> bytes:
        if asked.refusal is not None:
            return _response(asked.refusal.status, "text/plain", b"bad request\n")
        method, path = asked.reader.method, asked.reader.target.partition(b"?")[0].decode("latin-1")
        names = [value.decode("latin-1") for name, value in asked.reader.headers if name.lower() == b"host"]
        if len(names) != 1:
            return _response(400, "text/plain", b"bad request\n")
        if names[0].rpartition(":")[0].lower() not in _LOCAL and names[0].lower() not in _LOCAL:
            return _response(403, "text/plain", b"ask 127.0.0.1 or localhost\n")
        if path not in ("/health", "/metrics"):
            return _response(404, "text/plain", b"/health and /metrics are here\n")
        if method not in (b"GET", b"HEAD"):
            return _response(405, "text/plain", b"GET or HEAD\n")
        if path == "/metrics":
            return _response(200, "text/plain; version=0.0.4; charset=utf-8", self._metrics(), bare=method == b"HEAD")
        ok, body = self._health()
        text = json.dumps(body, ensure_ascii=False).encode() + b"\n"
        return _response(200 if ok else 503, "application/json", text, bare=method == b"HEAD")


def _response(status: int, kind: str, body: bytes, *, bare: bool = False) -> bytes:
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (b"" if bare else body)
