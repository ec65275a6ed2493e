"""Calls of commands to a server: over the unix socket of this data directory, or to a URL with a key."""

import json as json_codec
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2

from garrison.base.errors import (
    ConflictError,
    DeniedError,
    GarrisonError,
    InternalError,
    InvalidError,
    NotFoundError,
    NotReadyError,
    UnreachableError,
    all_errors,
)
from garrison.base.settings import Settings

__all__ = ["ServerClient", "part"]

_SOCKET_NAME = "server.sock"
_CONNECT_SECONDS = 5.0
_BY_STATUS: dict[int, type[GarrisonError]] = {
    401: DeniedError, 403: DeniedError, 404: NotFoundError, 409: ConflictError, 412: ConflictError, 503: NotReadyError,
}  # fmt: skip


class ServerClient:
    """One server.

    Args:
        settings: `server_url` and `server_key`, or the data directory.

    Attributes:
        place: where it is, for messages.
    """

    def __init__(self, settings: Settings) -> None:
        transport = None
        headers = {}
        if settings.server_url is not None:
            self.place = settings.server_url.rstrip("/")
            base = self.place
        else:
            path = settings.data_dir / _SOCKET_NAME
            self.place = str(path)
            base = "http://localhost"
            transport = httpx2.HTTPTransport(uds=str(path))
        if settings.server_key is not None:
            headers["Authorization"] = f"Bearer {settings.server_key}"
        self._local = settings.server_url is None
        timeout = httpx2.Timeout(None, connect=_CONNECT_SECONDS)
        self._client = httpx2.Client(
            base_url=base, transport=transport, headers=headers, timeout=timeout, trust_env=not self._local
        )

    def __enter__(self) -> "ServerClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def answers(self) -> bool:
        """Whether a server is there."""
        try:
            return self._client.get("/healthz", timeout=_CONNECT_SECONDS).is_success
        except httpx2.HTTPError:
            return False

    def is_ready(self) -> bool:
        """Whether a server is there and has started."""
        try:
            return self._client.get("/readyz", timeout=_CONNECT_SECONDS).is_success
        except httpx2.HTTPError:
            return False

    def call(
        self, method: str, path: str, *, body: Any = None, params: dict[str, Any] | None = None, timeout: float = 600.0
    ) -> Any:
        """Make a call and return its JSON, or its text where it is none.

        Args:
            path: below `/api/v1`.

        Raises:
            UnreachableError: no server answers.
            GarrisonError: what the server says, as the error of the same code.
        """
        try:
            answer = self._client.request(method, f"/api/v1{path}", json=body, params=params, timeout=timeout)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None
        if answer.is_error:
            raise _error_of(answer)
        if answer.headers.get("content-type", "").startswith("application/json"):
            return answer.json()
        return answer.text

    def events(self, path: str, *, params: dict[str, Any] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield kind and data of the events of a stream, until the server ends it."""
        try:
            with self._client.stream("GET", f"/api/v1{path}", params=params) as answer:
                if answer.is_error:
                    answer.read()
                    raise _error_of(answer)
                kind = ""
                for line in answer.iter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        kind = value
                    elif name == "data":
                        yield kind, json_codec.loads(value)
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> GarrisonError:
        if self._local:
            return UnreachableError(
                f"no server runs on this data directory ({self.place})",
                hint="`garrison up` starts one; `--server URL` or GARRISON_SERVER_URL names another.",
            )
        return UnreachableError(f"{self.place} does not answer: {error}", hint="Check the address and the server.")


def part(name: str) -> str:
    """A name as one element of a path."""
    return quote(name, safe="")


def _error_of(answer: httpx2.Response) -> GarrisonError:
    try:
        body = answer.json()
        code, message = body["error"], body["details"]
    except (ValueError, KeyError, TypeError):
        return InternalError(f"the server answered {answer.status_code}: {answer.text[:200]}")
    cls = next((one for one in all_errors() if one.code == code), None)
    cls = cls or _BY_STATUS.get(answer.status_code, InvalidError if answer.status_code < 500 else InternalError)
    facts = {name: one for name, one in body.items() if name not in ("error", "details", "hint")}
    return cls(message, hint=body.get("hint"), details=facts)
