"""Requests to the gateway, with the credentials of whoever asks."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from garrison.gateway.ollama.certificate import OwnCertificate
from garrison.gateway.ollama.translation.errors import error_text
from garrison.net.client import HttpConnection, HttpDialer, Response
from garrison.net.connect import Connector
from garrison.net.endpoint import Server
from garrison.net.errors import TransportError
from garrison.net.pool import Pool
from garrison.net.transport import Answer

__all__ = ["Door", "RefusedError", "passed", "upstream_path"]

_ANSWER_SECONDS = 24 * 3600.0
"""For a whole answer. The gateway ends one that is silent for an hour."""
_CONNECT_SECONDS = 10.0
_MOST_ANSWER_BYTES = 256 * 1024 * 1024
_MOST_STREAM_BYTES = 4 * 1024**3
_MOST_ERROR_BYTES = 256 * 1024
_IDLE_SECONDS = 30.0
_PASSED = ("retry-after", "x-request-id", "www-authenticate")


class RefusedError(Exception):
    """A request that is answered with an error.

    Attributes:
        headers: of the answer, beside those of its body.
    """

    def __init__(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = dict(headers or {})


class Door:
    """The way to the gateway.

    Args:
        gateway: scheme, host and port.
        certificate: the file of its certificate, where it speaks TLS.
    """

    def __init__(self, gateway: str, certificate: Path | None = None) -> None:
        self._gateway = gateway
        self._pool = Pool(per_key=64, total=64, idle_seconds=_IDLE_SECONDS)
        self._dialer = HttpDialer(pool=self._pool)
        if certificate is not None:
            self._dialer.connector = Connector(self._dialer.resolver, OwnCertificate(certificate))

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], json: Any = None, *, seconds: float = _ANSWER_SECONDS
    ) -> Answer:
        """Send a request and return its answer.

        Args:
            headers: of whoever asks.
            json: a value, or the bytes of one.

        Raises:
            RefusedError: it was refused, or the gateway does not answer.
        """
        try:
            async with self._open(headers) as connection:
                answer = await connection.request(method, path, json=json, timeout=seconds, limit=_MOST_ANSWER_BYTES)
        except TransportError as error:
            raise _unreachable(error) from None
        if answer.status >= 400:
            raise RefusedError(answer.status, error_text(answer.status, answer.body), passed(answer.headers))
        return answer

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, headers: Mapping[str, str], json: Any = None, *, relay: bool = False
    ) -> AsyncIterator[Response]:
        """Send a request and read its answer as it arrives. Leaving early ends it, at the engine too.

        Args:
            json: as with `ask`.
            relay: an error of the gateway or the engine is an answer like any other.

        Raises:
            RefusedError: as with `ask`. Reading raises TransportError.
        """
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._open(headers))
                sent = connection.stream(method, path, json=json, timeout=_ANSWER_SECONDS, limit=_MOST_STREAM_BYTES)
                response = await stack.enter_async_context(sent)
            except TransportError as error:
                raise _unreachable(error) from None
            if response.status >= 400 and not relay:
                raise await _refused(response)
            yield response

    def _open(self, headers: Mapping[str, str]) -> HttpConnection:
        return self._dialer.open(Server(base_url=self._gateway, headers=headers, timeout=_CONNECT_SECONDS))


def upstream_path(model: str, path: str) -> str:
    """Return where the gateway has a path of the engine that serves a model."""
    return f"/upstream/{quote(model, safe='')}{path}"


def passed(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of an answer that go on to the client."""
    return {name: headers[name] for name in _PASSED if name in headers}


async def _refused(response: Response) -> RefusedError:
    body = b""
    try:
        async for piece in response:
            body += piece
            if len(body) > _MOST_ERROR_BYTES:
                break
    except TransportError:  # what has arrived says enough, or the status does
        pass
    return RefusedError(response.status, error_text(response.status, body), passed(response.headers))


def _unreachable(error: TransportError) -> RefusedError:
    return RefusedError(502, f"the gateway does not answer: {error.detail}", {"retry-after": "1"})
