"""The twin of llama-servers that are routers: the calls about their models, without sockets. They take no time."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from garrison.net.endpoint import Server
from garrison.net.errors import TransportCause
from garrison.net.transport import Answer, Connection, TransportError

__all__ = ["MemoryRouter", "MemoryRouters"]

_NO_MODEL = {"error": {"message": "model is not found", "type": "not_found_error", "code": 404}}


@dataclass(slots=True)
class MemoryRouter:
    """One router. A test may change every attribute at any time.

    Attributes:
        models: their states: `unloaded`, `loading`, `loaded`, `sleeping` or `failed`.
        loaded: the state of a model that was told to load.
        refuses: what it says to every load and unload, instead of doing it.
        down: it does not answer.
        page: what it answers instead of a list.
        requests: method, path and body of each.
        loads: the models that it began to load, in order.
    """

    models: dict[str, str] = field(default_factory=dict)
    loaded: str = "loaded"
    refuses: str = ""
    down: bool = False
    page: bytes | None = None
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """Return what llama-server would. Raises TransportError."""
        self.requests.append((method, path, body))
        if self.down:
            raise TransportError(TransportCause.TIMEOUT, "no answer in time")
        if (method, path) == ("GET", "/models"):
            if self.page is not None:
                return Answer(200, self.page, {"content-type": "text/html"})
            return _json(200, {"object": "list", "data": [_entry(name, state) for name, state in self.models.items()]})
        if method == "POST" and self.refuses:
            return _refused(self.refuses)
        name = body.get("model") if isinstance(body, dict) else None
        runs = self.models.get(str(name)) in ("loaded", "loading", "sleeping")
        if (method, path) == ("POST", "/models/load"):
            if name not in self.models:
                return _json(404, _NO_MODEL)
            if runs:
                return _refused("model is already running")
            self.loads.append(str(name))
            self.models[str(name)] = self.loaded
        elif (method, path) == ("POST", "/models/unload"):
            if name not in self.models:
                return _refused("model is not found")
            if not runs:
                return _refused("model is not running")
            self.models[str(name)] = "unloaded"
        else:
            return _json(404, _NO_MODEL)
        return _json(200, {"success": True})


class MemoryRouters:
    """`Dialer` to routers.

    Args:
        find: returns the router at a base URL.
        key: what they ask for.
    """

    def __init__(self, find: Callable[[str], MemoryRouter], *, key: str = "key") -> None:
        self._find = find
        self._key = key

    @asynccontextmanager
    async def open(self, endpoint: Server, /) -> AsyncIterator[Connection]:
        """As `Dialer.open`."""
        yield _Connection(self._find(endpoint.base_url), endpoint.headers.get("authorization") == f"Bearer {self._key}")


@dataclass(frozen=True, slots=True)
class _Connection:
    router: MemoryRouter
    known: bool

    async def request(
        self, method: str, path: str, *, json: Any = None, timeout: float, limit: int = 4 * 1024 * 1024
    ) -> Answer:
        """As `Connection.request`."""
        if not self.known:
            return _json(401, {"error": {"message": "Invalid API Key", "type": "authentication_error", "code": 401}})
        return self.router.answer(method, path, json)


def _entry(name: str, state: str) -> dict[str, Any]:
    status = {"value": "unloaded", "failed": True, "exit_code": 1} if state == "failed" else {"value": state}
    return {"id": name, "object": "model", "owned_by": "llamacpp", "status": status | {"args": ["llama-server"]}}


def _refused(message: str) -> Answer:
    return _json(400, {"error": {"code": 400, "message": message, "type": "invalid_request_error"}})


def _json(status: int, body: Any) -> Answer:
    return Answer(status, json.dumps(body).encode(), {"content-type": "application/json"})
