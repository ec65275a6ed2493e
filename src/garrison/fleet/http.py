"""The real way to targets: a small HTTP/1.1 client over asyncio and httptools.

It does what listing thousands of targets needs and no more: one connection, requests on it in order, a deadline for
each phase (name, connect and TLS: the target's `timeout`; one exchange: the request's), bounded heads and bodies, and
every failure as one `TransportError` with its cause. It follows no redirect and reads no proxy variables, so a secret
goes to the declared origin alone.
"""

import asyncio
import json as json_codec
import re
import ssl
import time
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from garrison.fleet.exchange import Exchange
from garrison.fleet.network_errors import transport_error
from garrison.fleet.observation import Cause
from garrison.fleet.resolver import Resolver
from garrison.fleet.secrets import SecretError, Secrets
from garrison.fleet.target import Secret, TargetSpec
from garrison.fleet.tls import TlsContexts, TlsFileError
from garrison.fleet.transport import Answer, Connection, TransportError

__all__ = ["HttpDialer", "Origin", "origin_of"]

_IDLE_SECONDS = 3.0
"""A connection idle for longer is opened anew: vLLM closes after 5 s, and what is sent into that moment is lost."""
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OURS = frozenset({"content-length", "content-type", "transfer-encoding", "connection", "accept", "accept-encoding"})
_ENCODE = json_codec.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a base URL points. `prefix` is its path, without a slash at its end."""

    tls: bool
    host: str
    port: int
    prefix: str
    authority: str


@lru_cache(maxsize=8192)
def origin_of(base_url: str) -> Origin:
    """Take a base URL apart.

    Raises:
        ValueError: no `http` or `https` URL with a host; a manifest has refused it earlier.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or _UNSENDABLE.search(base_url):
        raise ValueError("not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it holds a user name or a password; use api_key or headers")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if parts.port is None else f"{host}:{port}"
    return Origin(tls, parts.hostname, port, parts.path.rstrip("/"), authority)


class HttpDialer:
    """The `Dialer` of real targets. Keeps TLS contexts, secrets and resolved names between connections; one event loop.

    Args:
        secrets: how references become text.
        resolver: how names become addresses.
    """

    def __init__(self, *, secrets: Secrets | None = None, resolver: Resolver | None = None) -> None:
        self.secrets = secrets or Secrets()
        self.resolver = resolver or Resolver()
        self.contexts = TlsContexts()

    def open(self, target: TargetSpec) -> AbstractAsyncContextManager[Connection]:
        return HttpConnection(self, target)


class HttpConnection:
    """One target's connection; made at the first request."""

    __slots__ = ("_dialer", "_exchange", "_origin", "_target")

    def __init__(self, dialer: HttpDialer, target: TargetSpec) -> None:
        self._dialer = dialer
        self._target = target
        self._exchange: Exchange | None = None
        try:
            self._origin = origin_of(target.base_url)
        except ValueError as error:
            raise TransportError(Cause.LOCAL, f"base_url: {error}") from None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._drop()

    async def request(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 4 * 1024 * 1024
    ) -> Answer:
        body = b"" if json is None else _ENCODE(json).encode()
        message = await self._message(method, path, body)
        answer = await self._once_or_anew(method, message, timeout, limit)
        if answer.status == 401 and (secrets := _secrets(self._target)):
            for secret in secrets:
                self._dialer.secrets.doubt(secret)
            with suppress(TransportError):  # the refusal says more than a secret that cannot be read again
                if (renewed := await self._message(method, path, body)) != message:
                    answer = await self._once_or_anew(method, renewed, timeout, limit)
        return answer

    async def _once_or_anew(self, method: str, message: bytes, timeout: float, limit: int) -> Answer:
        """Send; once more where the server had closed between two requests. What may have acted is not repeated."""
        exchange = self._exchange
        if exchange is not None and exchange.usable and time.monotonic() - exchange.idle_since < _IDLE_SECONDS:
            try:
                return await self._send(exchange, message, timeout, limit)
            except TransportError as error:
                if method != "GET" or error.cause is not Cause.RESET or exchange.answered_any:
                    raise
        self._drop()
        self._exchange = exchange = await self._connect()
        return await self._send(exchange, message, timeout, limit)

    async def _send(self, exchange: Exchange, message: bytes, timeout: float, limit: int) -> Answer:
        try:
            async with asyncio.timeout(timeout):
                return await exchange.send(message, limit)
        except TimeoutError:
            self._drop()
            raise TransportError(Cause.TIMEOUT, f"no answer within {timeout:g} s", sent=True) from None
        except BaseException:
            self._drop()
            raise

    async def _connect(self) -> Exchange:
        origin, target, resolver = self._origin, self._target, self._dialer.resolver
        deadline = asyncio.get_running_loop().time() + target.timeout
        try:
            context = self._dialer.contexts.get(target.tls) if origin.tls else None
        except TlsFileError as error:
            raise TransportError(Cause.LOCAL, str(error)) from None
        addresses = resolver.fresh(origin.host) or await self._resolve(deadline)
        for at, address in enumerate(addresses, 1):
            try:
                exchange = await self._connect_to(address, context, deadline, len(addresses) - at)
            except TransportError:
                if at == len(addresses):
                    raise
            else:
                resolver.prefer(origin.host, address)
                return exchange
        raise AssertionError("a name that resolves has an address")

    async def _resolve(self, deadline: float) -> tuple[str, ...]:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._dialer.resolver.addresses(self._origin.host)
        except TimeoutError:
            raise TransportError(Cause.DNS, f"the name did not resolve within {self._target.timeout:g} s") from None
        except OSError as error:
            raise transport_error(error, sent=False) from None

    async def _connect_to(self, address: str, context: ssl.SSLContext | None, deadline: float, others: int) -> Exchange:
        """TCP and TLS, in the share of the time that is left when `others` addresses come after this one."""
        loop, origin = asyncio.get_running_loop(), self._origin
        share = (deadline - loop.time()) / (others + 1)
        try:
            async with asyncio.timeout(share):
                _, exchange = await loop.create_connection(
                    Exchange, address, origin.port, ssl=context, server_hostname=origin.host if context else None
                )
                return exchange
        except TimeoutError:
            raise TransportError(Cause.TIMEOUT, f"no connection within {share:.3g} s") from None
        except OSError as error:
            raise transport_error(error, sent=False) from None

    async def _message(self, method: str, path: str, body: bytes) -> bytes:
        origin, target = self._origin, self._target
        lines = [f"{method} {origin.prefix}{path} HTTP/1.1"]
        for name, value in target.headers.items():
            if not _TOKEN.match(name) or name.lower() in _OURS:
                raise TransportError(Cause.LOCAL, f"the header {name!r} cannot be set")
            lines.append(_header(name, await self._reveal(value, f"headers.{name}")))
        names = {name.lower() for name in target.headers}
        if "host" not in names:
            lines.insert(1, f"host: {origin.authority}")
        if target.api_key is not None and "authorization" not in names:
            lines.append(_header("authorization", f"Bearer {await self._reveal(target.api_key, 'api_key')}"))
        lines.append("accept: */*\r\naccept-encoding: identity")
        if body:
            lines.append(f"content-type: application/json\r\ncontent-length: {len(body)}")
        try:
            return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body
        except UnicodeEncodeError:
            raise TransportError(Cause.LOCAL, "a header holds characters that HTTP cannot carry") from None

    async def _reveal(self, value: str | Secret, what: str) -> str:
        if isinstance(value, str):
            return value
        try:
            return await self._dialer.secrets.text(value)
        except SecretError as error:
            raise TransportError(Cause.LOCAL, f"{what}: {error}") from None

    def _drop(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None


def _secrets(target: TargetSpec) -> list[Secret]:
    return [value for value in (target.api_key, *target.headers.values()) if isinstance(value, Secret)]


def _header(name: str, value: str) -> str:
    if _UNSENDABLE.search(value):
        raise TransportError(Cause.LOCAL, f"the value of the header {name!r} holds a line break or a control character")
    return f"{name}: {value}"
