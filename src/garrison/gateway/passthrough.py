"""A plain pass-through: one request to one upstream, streamed back as it arrives."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import httpx2

from garrison.base.errors import GarrisonError, InternalError, UnreachableError
from garrison.base.logs import logger
from garrison.gateway.activator import Activator, Hold
from garrison.gateway.answers import error_answer
from garrison.gateway.model_name import renamed
from garrison.net.https import http_client

__all__ = ["HOP_HEADER", "Asgi", "PassThrough", "Receive", "Scope", "Send", "send_answer"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Asgi = Callable[[Scope, Receive, Send], Awaitable[None]]

_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization te trailer transfer-encoding upgrade".split()
)
_NOT_UP = _HOP | {b"host", b"authorization", b"x-api-key", b"cookie", b"content-length", b"forwarded", b"origin"}
_NOT_DOWN = _HOP | {b"date", b"server"}
HOP_HEADER = b"x-garrison-hop"
"""Says that another server passed a request on."""
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 3600.0
"""A long answer that is not streamed sends nothing until it is complete."""

_log = logger(__name__)


class PassThrough:
    """Forwards requests to the upstreams that an activator finds."""

    def __init__(self, activator: Activator) -> None:
        self._activator = activator
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=3.0)
        timeout = httpx2.Timeout(_SILENCE_SECONDS, connect=_CONNECT_SECONDS)
        self._client = http_client(timeout=timeout, limits=limits)

    async def close(self) -> None:
        await self._client.aclose()

    async def forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        model: str,
        path: str,
        body: bytes,
        name_in_body: bool = True,
        start: bool = True,
    ) -> None:
        """Answer one request whose body has been read.

        Args:
            model: the public name; the body gets the name that the upstream knows, where that is another one.
            path: at the upstream.
            start: whether an instance that does not run is started.
        """
        work = asyncio.create_task(self._forward(scope, send, model, path, body, name_in_body, start))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait([work, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait([work, gone])
        if not work.cancelled():
            work.result()

    async def _forward(
        self, scope: Scope, send: Send, model: str, path: str, body: bytes, name_in_body: bool, start: bool
    ) -> None:
        try:
            hold = await self._activator.acquire(model, start=start)
        except GarrisonError as error:
            await send_answer(send, *error_answer(error))
            return
        try:
            await self._exchange(scope, send, hold, model, path, body, name_in_body)
        finally:
            hold.release()

    async def _exchange(
        self, scope: Scope, send: Send, hold: Hold, model: str, path: str, body: bytes, name_in_body: bool
    ) -> None:
        upstream = hold.upstream
        kind = header(scope, b"content-type")
        if name_in_body and upstream.model and upstream.model != model:
            body = renamed(body, kind, upstream.model)
        query = scope.get("query_string", b"").decode("ascii", "replace")
        headers = [(name, value) for name, value in scope["headers"] if name not in _NOT_UP]
        if upstream.key is not None:
            headers.append((b"authorization", b"Bearer " + upstream.key.encode()))
        if upstream.hop:
            headers.append((HOP_HEADER, b"1"))
        request = self._client.build_request(
            scope["method"], upstream.url + path + (f"?{query}" if query else ""), headers=headers, content=body
        )
        begun = False
        try:
            answer = await self._client.send(request, stream=True)
            try:
                start = {"type": "http.response.start", "status": answer.status_code, "headers": _down(answer)}
                await send(start)
                begun = True
                async for piece in answer.aiter_raw():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            finally:
                with contextlib.suppress(httpx2.HTTPError):
                    await answer.aclose()
        except httpx2.HTTPError as error:
            _log.warning("an upstream failed", model=model, path=path, error=repr(error), answered=begun)
            if begun:  # the client sees that the answer is incomplete
                raise _BrokenUpstreamError(f"the answer of {model} broke off: {error!r}") from None
            failed = UnreachableError(f"{model} did not answer: {type(error).__name__}", hint="Ask again.")
            await send_answer(send, *error_answer(failed))


class _BrokenUpstreamError(InternalError):
    """The answer cannot be completed; the server closes the connection."""


async def send_answer(send: Send, status: int, headers: dict[str, str], body: bytes) -> None:
    """Send a whole answer."""
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    raw.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


def header(scope: Scope, name: bytes) -> str:
    """The value of a header; empty where it is missing."""
    found: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode("latin-1") for key, value in found if key == name), "")


def _down(answer: httpx2.Response) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _NOT_DOWN]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
