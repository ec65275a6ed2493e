"""The client: small requests to many servers, whole or as a stream, over HTTP/1.1.

    dialer = HttpDialer()
    async with dialer.open(Server(base_url="http://10.0.0.2:8000")) as connection:
        answer = await connection.request("GET", "/v1/models", timeout=5.0)
        async with connection.stream("POST", "/v1/chat/completions", json=body, timeout=600.0) as response:
            async for piece in response:
                ...

It does what observing thousands of servers needs and no more: one connection, with requests in order; a deadline for
each phase (name, connect and TLS: the endpoint's `timeout`; one exchange: the request's); bounded heads and bodies; and
every failure as a `TransportError` with its cause. It follows no redirects and ignores proxy variables, so a secret is
only sent to the declared origin.
"""

import hashlib
import json as json_codec
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Self

from garrison.net.connect import Connector
from garrison.net.endpoint import Endpoint, Secret
from garrison.net.errors import TransportCause, TransportError
from garrison.net.exchange import Exchange
from garrison.net.http1.writing import HeaderError, header_line
from garrison.net.origin import Origin, origin_of, request_target
from garrison.net.pool import IDLE_SECONDS, Pool, PoolKey
from garrison.net.resolver import Resolver
from garrison.net.secrets import SecretError, Secrets
from garrison.net.tls import TlsContexts
from garrison.net.transport import Answer

__all__ = ["HttpConnection", "HttpDialer", "Origin", "Response", "origin_of"]

_IDLE_SECONDS = IDLE_SECONDS
_MANAGED = frozenset({"content-length", "content-type", "transfer-encoding", "connection", "accept", "accept-encoding"})
_ENCODE = json_codec.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode

_Reach = Callable[[Exchange], Awaitable[None]]
"""How far to read before a request counts as answered: `Exchange.whole` or `Exchange.head`."""


class HttpDialer:
    """The `Dialer` of real servers, for one event loop. Caches TLS contexts, secrets and resolved names.

    Args:
        secrets: reads referenced secrets.
        resolver: resolves names.
        pool: keeps connections from one `open` to the next; without one, each ends with its `open`.
    """

    def __init__(
        self, *, secrets: Secrets | None = None, resolver: Resolver | None = None, pool: Pool | None = None
    ) -> None:
        self.secrets = secrets or Secrets()
        self.resolver = resolver or Resolver()
        self.contexts = TlsContexts()
        self.connector = Connector(self.resolver, self.contexts)
        self.pool = pool

    def keeping(self, pool: Pool) -> "HttpDialer":
        """Return a dialer over the same secrets, names and TLS contexts that keeps connections in `pool`."""
        other = HttpDialer(secrets=self.secrets, resolver=self.resolver, pool=pool)
        other.contexts, other.connector = self.contexts, self.connector
        return other

    def open(self, endpoint: Endpoint, /, *, uds: str | None = None) -> "HttpConnection":
        """Return a connection, which connects at the first request.

        Args:
            uds: path of the unix socket on which the server listens; the base URL then only determines the scheme, the
                `Host` header and the path prefix.

        Raises:
            TransportError: `local`: the base URL cannot be used.
        """
        return HttpConnection(self, endpoint, uds)


class Response:
    """A response that is read as it arrives.

    Attributes:
        status: of the final response; interim ones are skipped.
        headers: names in lower case.
    """

    __slots__ = ("_exchange", "headers", "status")

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.status = exchange.status
        self.headers = exchange.headers()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives. While no piece is requested, the server is slowed down.

        Raises:
            TransportError: the rest does not arrive, or not in time, or is larger than the limit.
        """
        while piece := await self._exchange.piece():
            yield piece

    async def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join([piece async for piece in self])


class HttpConnection:
    """One endpoint's connection. See `garrison.net.transport.Connection`."""

    __slots__ = ("_closed", "_dialer", "_endpoint", "_exchange", "_origin", "_sender", "_uds")

    def __init__(self, dialer: HttpDialer, endpoint: Endpoint, uds: str | None = None) -> None:
        self._dialer = dialer
        self._endpoint = endpoint
        self._uds = uds
        self._exchange: Exchange | None = None  # idle, for the next request
        self._sender = b""  # see `PoolKey`
        self._closed = False
        try:
            self._origin = origin_of(endpoint.base_url)
        except ValueError as error:
            raise TransportError(TransportCause.LOCAL, f"base_url: {error}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        if self._exchange is not None:
            self._put_away(self._exchange)
            self._exchange = None

    async def request(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 4 * 1024 * 1024
    ) -> Answer:
        body = _body(json)
        message = await self._message(method, path, body)
        answer = await self._whole(method, message, timeout, limit)
        if answer.status == 401 and (renewed := await self._renewed(method, path, body, message)):
            with suppress(TransportError):  # the refusal says more than a second attempt that failed
                answer = await self._whole(method, renewed, timeout, limit)
        return answer

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 64 * 1024 * 1024
    ) -> AsyncIterator[Response]:
        """Send a request and read its response as it arrives.

        Leaving before the end closes the connection, which tells the server to stop.

        Args:
            path: starts with a slash and follows the path prefix of the endpoint.
            json: a value, or the bytes of one.
            timeout: seconds until the last byte must have arrived, however slowly it is read.
            limit: bytes of the body.

        Raises:
            TransportError: no head arrived. For the body, reading raises it.
        """
        body = _body(json)
        message = await self._message(method, path, body)
        exchange = await self._sent(method, message, timeout, limit, Exchange.head)
        try:
            if exchange.status == 401 and (renewed := await self._renewed(method, path, body, message)):
                with suppress(TransportError):
                    again = await self._sent(method, renewed, timeout, limit, Exchange.head)
                    exchange.close()
                    exchange = again
            yield Response(exchange)
        finally:
            self._release(exchange)

    # --- one request

    async def _whole(self, method: str, message: bytes, timeout: float, limit: int) -> Answer:
        exchange = await self._sent(method, message, timeout, limit, Exchange.whole)
        answer = Answer(exchange.status, exchange.body(), exchange.headers())
        self._release(exchange)
        return answer

    async def _sent(self, method: str, message: bytes, timeout: float, limit: int, reach: _Reach) -> Exchange:
        """Send a message and wait for `reach`; send it again if the server had closed the connection in between.

        A request on which the server may have acted is not repeated, unless it is a GET that got no byte of a response.
        """
        idle = await self._idle(method) if self._exchange is not None or self._dialer.pool is not None else None
        if idle is not None:
            try:
                return await _send(idle, method, message, timeout, limit, reach)
            except TransportError as error:
                repeatable = method == "GET" or not error.sent
                if not repeatable or error.cause is not TransportCause.RESET or idle.answered_any:
                    raise
        return await _send(await self._connect(), method, message, timeout, limit, reach)

    async def _idle(self, method: str) -> Exchange | None:
        """Return an idle connection for the next request, this one's own or one from the pool."""
        pool, longest = self._dialer.pool, _IDLE_SECONDS
        exchange, self._exchange = self._exchange, None
        if exchange is not None and _sender_of(exchange) != self._sender:
            exchange.close()  # a secret changed between two requests
            exchange = None
        if pool is not None:
            if exchange is None:
                exchange = pool.take(self._key(await self._context()))
            if method == "GET":  # only a GET is sent again if the server has just closed the connection
                longest = max(longest, pool.idle_seconds)
        if exchange is not None and not (exchange.usable and time.monotonic() - exchange.idle_since < longest):
            exchange.close()
            exchange = None
        return exchange

    def _key(self, context: ssl.SSLContext | None) -> PoolKey:
        return PoolKey.of(self._origin, context, self._uds, self._sender)

    async def _connect(self) -> Exchange:
        context, left = None, self._endpoint.timeout
        if self._origin.tls:
            begun = time.monotonic()
            context = await self._context()
            left = max(0.0, left - (time.monotonic() - begun))
        exchange = await self._dialer.connector.connect(self._origin, context, left, self._uds)
        if self._dialer.pool is not None:
            exchange.key = self._key(context)
        return exchange

    async def _context(self) -> ssl.SSLContext | None:
        if not self._origin.tls:
            return None
        return await self._dialer.connector.context(self._endpoint.tls, self._endpoint.timeout)

    def _release(self, exchange: Exchange) -> None:
        """Keep an exchange whose response is complete for the next request."""
        if self._exchange is None and not self._closed and exchange.usable:
            self._exchange = exchange
        else:
            self._put_away(exchange)

    def _put_away(self, exchange: Exchange) -> None:
        if self._dialer.pool is None:
            exchange.close()
        else:
            self._dialer.pool.give(exchange)

    # --- what is sent

    async def _renewed(self, method: str, path: str, body: bytes, message: bytes) -> bytes | None:
        """Build the message again, and return it if a secret in it has changed since it was read."""
        secrets = _secrets(self._endpoint)
        for secret in secrets:
            self._dialer.secrets.doubt(secret)
        if not secrets:
            return None
        with suppress(TransportError):  # the refusal says more than a secret that cannot be read again
            renewed = await self._message(method, path, body)
            return renewed if renewed != message else None
        return None

    async def _message(self, method: str, path: str, body: bytes) -> bytes:
        endpoint = self._endpoint
        lines = [f"{method} {request_target(self._origin, path)} HTTP/1.1"]
        names = set()
        for name, value in endpoint.headers.items():
            lower = name.lower()
            if lower in _MANAGED:
                raise TransportError(TransportCause.LOCAL, f"the header {name!r} cannot be set")
            names.add(lower)
            lines.append(_line(name, await self._reveal(value, f"headers.{name}")))
        if "host" not in names:
            lines.insert(1, f"host: {self._origin.authority}")
        if endpoint.api_key is not None and "authorization" not in names:
            lines.append(_line("authorization", f"Bearer {await self._reveal(endpoint.api_key, 'api_key')}"))
        if self._dialer.pool is not None and self._dialer.pool.by_sender:
            self._sender = _digest(endpoint.base_url, *lines[1:])
        lines.append("accept: */*\r\naccept-encoding: identity")
        if body:
            lines.append(f"content-type: application/json\r\ncontent-length: {len(body)}")
        try:
            return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        except UnicodeEncodeError:
            detail = "a header holds characters that HTTP cannot carry"
            raise TransportError(TransportCause.LOCAL, detail) from None

    async def _reveal(self, value: str | Secret, what: str) -> str:
        if isinstance(value, str):
            return value
        try:
            return await self._dialer.secrets.text(value)
        except SecretError as error:
            raise TransportError(TransportCause.LOCAL, f"{what}: {error}") from None


async def _send(exchange: Exchange, method: str, message: bytes, timeout: float, limit: int, reach: _Reach) -> Exchange:
    try:
        exchange.start(message, method=method, limit=limit, timeout=timeout, whole=reach is Exchange.whole)
        await reach(exchange)
    except BaseException:
        exchange.close()
        raise
    return exchange


def _sender_of(exchange: Exchange) -> bytes:
    return exchange.key.sender if isinstance(exchange.key, PoolKey) else b""


def _digest(*lines: str) -> bytes:
    """Return a digest of what is sent, so that no key of a pool contains a secret."""
    return hashlib.blake2b("\r\n".join(lines).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _body(json: Any) -> bytes:
    if isinstance(json, bytes):
        return json
    try:
        return b"" if json is None else _ENCODE(json).encode()
    except UnicodeEncodeError:  # as in the path of a directory whose name is not UTF-8
        raise TransportError(TransportCause.LOCAL, "the body holds characters that JSON cannot carry") from None


def _line(name: str, value: str) -> str:
    try:
        return header_line(name, value)
    except HeaderError as error:
        raise TransportError(TransportCause.LOCAL, str(error)) from None


def _secrets(endpoint: Endpoint) -> list[Secret]:
    return [value for value in (endpoint.api_key, *endpoint.headers.values()) if isinstance(value, Secret)]
