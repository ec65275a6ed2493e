"""Options of the commands that talk to a server."""

from garrison.cli.options import ServerUrl, settings
from garrison.cli.server.client import ServerClient

__all__ = ["ServerUrl", "client"]


def client(server: str | None) -> ServerClient:
    """Return the server that a command talks to."""
    return ServerClient(settings("server", server_url=server))
