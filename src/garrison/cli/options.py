"""Options shared by several commands, and the settings made from them."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from garrison.base.settings import Settings
from garrison.cli.outermost import warned

__all__ = ["Executable", "Host", "Insecure", "Json", "KeyEnv", "Log", "Offline", "Port", "ServerUrl", "app", "settings"]


def _program(text: str) -> Path:
    """A path, absolute if it is one and no name: a Path alone would make the name `vllm` of `./vllm`."""
    return Path(text).absolute() if "/" in text and not text.startswith("~") else Path(text)


Executable = Annotated[
    Path | None, typer.Option(metavar="PATH", parser=_program, help="Your own engine instead of an installed one.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
Host = Annotated[str | None, typer.Option("--host", help="Address to bind. Default: 127.0.0.1.", show_default=False)]
Port = Annotated[int | None, typer.Option("--port", "-p", min=1, max=65535, help="Port to listen on. Default: 8000.")]
Offline = Annotated[bool, typer.Option("--offline", help="Do not use the network.")]
Insecure = Annotated[bool, typer.Option("--insecure", "-k", help="Accept any certificate of an https server.")]
KeyEnv = Annotated[
    str | None, typer.Option("--key-env", metavar="NAME", help="The environment variable that holds the API key.")
]
ServerUrl = Annotated[
    str | None,
    typer.Option("--server", metavar="URL", help="Another server; GARRISON_SERVER_KEY is its key."),
]
Log = Annotated[
    Literal["json", "console"] | None,
    typer.Option(
        "--log",
        metavar="FORMAT",
        help="Log to standard error, json or console. Default: GARRISON_LOG_FORMAT, or no log.",
    ),
]


def app(help: str, **extra: Any) -> typer.Typer:
    """Create the Typer application of a command, without a completion installer and without Typer's error output."""
    return typer.Typer(
        help=help,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        **extra,
    )


def settings(*groups: str, **flags: Any) -> Settings:
    """Load settings: flags, then environment variables, then the config file, then defaults.

    Only `general` and `groups` are read and validated; other settings keep their defaults.
    """
    return warned(Settings.load(os.environ, groups=("general", *groups), flags=flags))
