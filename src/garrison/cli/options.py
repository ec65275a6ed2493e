"""Options that several commands share, and how they become settings."""

import os
from typing import Annotated, Any

import typer

from garrison.base.settings import Settings
from garrison.cli.outermost import warned

__all__ = ["Host", "Insecure", "Json", "KeyEnv", "Offline", "Port", "app", "settings"]

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Host = Annotated[str | None, typer.Option("--host", help="Address to bind. Default: 127.0.0.1.", show_default=False)]
Port = Annotated[int | None, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on. Default: 8000.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not touch the network.")]
Insecure = Annotated[bool, typer.Option("--insecure", "-k", help="Accept any certificate of an https server.")]
KeyEnv = Annotated[str | None, typer.Option("--key-env", metavar="NAME", help="The variable that holds the API key.")]


def app(help: str, **extra: Any) -> typer.Typer:
    """A Typer application as every command here is made: no completion installer, our own error output."""
    return typer.Typer(
        help=help,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **extra,
    )


def settings(*groups: str, **flags: Any) -> Settings:
    """Flags over variables over the config file over defaults; only `groups` are read."""
    return warned(Settings.load(os.environ, groups=("general", *groups), flags=flags))
