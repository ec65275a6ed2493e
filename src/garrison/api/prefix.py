"""The path prefix below which a reverse proxy publishes the server, whether the proxy removes it or not."""

from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["WithoutPrefix"]


class WithoutPrefix:
    """Removes the prefix before anything looks at the path.

    Args:
        prefix: such as `/garrison`; empty for none.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._prefix and scope["path"].startswith(self._prefix + "/"):
            scope["path"] = scope["path"].removeprefix(self._prefix)
        await self._app(scope, receive, send)
