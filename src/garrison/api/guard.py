"""What every request passes before its route: host, origin, content type, size. As ASGI middleware."""

import ipaddress
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from garrison.api.errors import error_response
from garrison.base.errors import DeniedError, GarrisonError, InvalidError
from garrison.base.settings import Settings

__all__ = ["Guard"]

_WRITES = ("POST", "PUT", "PATCH", "DELETE")


class Guard:
    """Refuses what a web page could send in somebody's name.

    A `Host` that is neither an address, nor localhost, nor configured belongs to a page that rebinds its DNS name to
    this machine. An `Origin` that is not this server's own needs to be configured.

    Args:
        settings: returns those in force, with the names of the server and the origins that may call it; `*` for all.
        most_bytes: of a body.
    """

    def __init__(self, app: ASGIApp, settings: Callable[[], Settings], most_bytes: int) -> None:
        self._app = app
        self._settings = settings
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (error := self._refusal(scope)) is not None:
            await error_response(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> GarrisonError | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if not scope.get("garrison.local") and not self._is_ours(host):
            return DeniedError(
                f"the host {host[:200]!r} is not one of this server",
                hint="Use its address, or add the name to GARRISON_ALLOWED_HOSTS.",
            )
        origin = headers.get("origin")
        if origin is not None and not self._may_call(origin, host):
            return DeniedError(
                f"pages of {origin[:200]!r} may not call this server", hint="GARRISON_ALLOWED_ORIGINS lists who may."
            )
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._most_bytes:
            return _TooLargeError(f"the body has {length} bytes; {self._most_bytes} are allowed")
        if scope["method"] in _WRITES and scope["path"].startswith("/api/") and "/proxy/" not in scope["path"]:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            has_body = length not in ("", "0") or "transfer-encoding" in headers
            if has_body and kind not in ("application/json", "application/merge-patch+json"):
                return _MediaTypeError(f"the content type is {kind or 'missing'}", hint="Send application/json.")
        return None

    def _is_ours(self, host: str) -> bool:
        name = (urlsplit(f"//{host}").hostname or "").lower()
        values = self._settings()
        if name in ("localhost", values.server_host, *(one.lower() for one in values.allowed_hosts)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _may_call(self, origin: str, host: str) -> bool:
        allowed = self._settings().allowed_origins
        return "*" in allowed or origin in allowed or urlsplit(origin).netloc.lower() == host.lower()


class _TooLargeError(InvalidError):
    """A body over the limit."""

    http_status = 413


class _MediaTypeError(InvalidError):
    """A body that is not JSON."""

    http_status = 415
