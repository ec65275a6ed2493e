"""One request of a client, and its answer, over ASGI."""

import asyncio
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from garrison.gateway.ollama.door import RefusedError

__all__ = ["JSON", "LINES", "Client", "ClientGoneError"]

JSON = "application/json; charset=utf-8"
LINES = "application/x-ndjson"
_BODY_SECONDS = 60.0
"""Between two pieces of a body."""
_HOP = ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade")  # fmt: skip
_OF_THE_BODY = ("accept", "accept-encoding", "content-length", "content-type", "expect")
_OF_PAGES = ("access-control-request-headers", "access-control-request-method", "cookie", "origin")
_OF_PROXIES = ("forwarded", "host", "x-forwarded-for", "x-forwarded-proto", "x-garrison-hop")
_NOT_PASSED = frozenset((*_HOP, *_OF_THE_BODY, *_OF_PAGES, *_OF_PROXIES))
_encoded = msgspec.json.Encoder().encode


class ClientGoneError(Exception):
    """The client closed its connection."""


class Client:
    """One request.

    Attributes:
        path: decoded; `raw_path` is as the client wrote it, without the query.
        headers: by name in lower case; of a repeated one, the last.
        passed: those that go on to the gateway, its credentials among them.
        more: headers of the answer, whatever it is.
        began: when it came.
        answered: the head of the answer was sent.
        complete: all of it was.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.raw_path: str = scope["raw_path"].decode("latin-1")
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self.passed = {name: value for name, value in self.headers.items() if name not in _NOT_PASSED}
        self.more: dict[str, str] = {}
        self.began = datetime.now(UTC)
        self.answered = self.complete = False
        self._receive, self._send = receive, send
        self._at = time.perf_counter()  # the loop's time is that of its last turn

    @property
    def elapsed(self) -> float:
        """Seconds since the request came."""
        return time.perf_counter() - self._at

    async def body(self, most_bytes: int) -> bytes:
        """Return the body.

        Raises:
            RefusedError: it is too long, or does not arrive.
            ClientGoneError: the client left.
        """
        length = self.headers.get("content-length", "")
        pieces: list[bytes] = []
        left = most_bytes - (int(length) if length.isdigit() and len(length) < 20 else 0)
        while left >= 0:
            message = await self._received()
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(pieces)
            left = most_bytes - sum(map(len, pieces))
        raise RefusedError(413, f"the body has more than {most_bytes} bytes, which is the limit")

    async def gone(self) -> None:
        """Return when the client has closed its connection, or has its whole answer."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def json(self, told: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON."""
        await self.whole(_encoded(told), JSON, status, headers)

    async def whole(
        self, body: bytes, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with a body."""
        sized = {**(headers or {}), "content-length": str(len(body))}
        await self.begin(content_type, status, sized)
        await self.write(body, last=True)

    async def begin(self, content_type: str, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send the head of an answer."""
        lines = {"content-type": content_type, **self.more, **(headers or {})}
        self.answered = True
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, data: bytes, *, last: bool = False) -> None:
        """Send more of a body; returns when the client keeps up."""
        self.complete = last
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def _received(self) -> Message:
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                message = await self._receive()
        except TimeoutError:
            raise RefusedError(408, f"the rest of the body did not arrive within {_BODY_SECONDS:g} s") from None
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        return message
