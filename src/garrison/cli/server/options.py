"""Options of the commands that talk to a server."""

from typing import Annotated

import typer

from garrison.cli.options import settings
from garrison.cli.server.client import ServerClient

__all__ = ["ServerUrl", "client"]

ServerUrl = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Another server; GARRISON_SERVER_KEY is its key."),
]


def client(server: str | None) -> ServerClient:
    """Return the server that a command talks to."""
    return ServerClient(settings("server", server_url=server))
