"""The one ASGI application: data plane, proxies to instances, management API."""

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from garrison.api.errors import error_response
from garrison.base.errors import GarrisonError, NotReadyError
from garrison.gateway.gateway import Gateway, read_body
from garrison.gateway.passthrough import HOP_HEADER, header
from garrison.server.remote import Remote

__all__ = ["Application"]

_PROXY = "/api/v1/instances/"
_ALWAYS = ("/healthz", "/readyz")


class Application:
    """Sends each request where its path belongs.

    Args:
        gateway: for requests of clients.
        here: for those that another server passed on: only instances of this one answer.
        ready: why the server is not ready; empty when it is.
    """

    def __init__(
        self,
        api: ASGIApp,
        gateway: Gateway,
        here: Gateway,
        remote: Remote,
        *,
        ready: Callable[[], str],
        most_bytes: int,
    ) -> None:
        self._api = api
        self._gateway = gateway
        self._here = here
        self._remote = remote
        self._ready = ready
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        passed_on = bool(header(scope, HOP_HEADER))
        if path not in _ALWAYS and (why := self._ready()):
            error = NotReadyError(f"the server is not ready: {why}", details={"retry_after": 1})
            await error_response(error)(scope, receive, send)
        elif path.startswith(("/v1/", "/llama-cpp/")):
            await (self._here if passed_on else self._gateway)(scope, receive, send)
        elif not passed_on and (there := self._remote.place(path)) is not None:
            await self._remote.forward(scope, receive, send, there)
        elif path.startswith(_PROXY) and "/proxy/" in path:
            await self._proxy(scope, receive, send)
        else:
            if path.startswith("/api/") and path.endswith("/"):  # llamactl's documents write both
                scope["path"] = path.rstrip("/")
            await self._api(scope, receive, send)

    async def _proxy(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything that an instance answers, for managers. An instance that does not run is not started."""
        name, _, rest = scope["path"].removeprefix(_PROXY).partition("/proxy/")
        try:
            body = await read_body(scope, receive, self._most_bytes)
        except GarrisonError as error:
            await error_response(error)(scope, receive, send)
            return
        await self._gateway.passthrough.forward(
            scope, receive, send, model=name, path=f"/{rest}", body=body, name_in_body=False, start=False
        )  # fmt: skip
