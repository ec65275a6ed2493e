"""Where the documentation is on this machine: it is installed with the package. Standard library only."""

import sys
from pathlib import Path

from garrison.cli.table import Command

__all__ = ["page_of", "pages"]

_OF_A_GROUP = {
    "Serve": "serve.md",
    "Server": "server.md",
    "Artifacts": "resolve.md",
    "Engines": "engines.md",
    "Fleet": "fleet.md",
    "Settings": "reference/settings.md",
}
_OF_A_COMMAND = {
    "preflight": "preflight.md",
    "resolve": "resolve.md",
    "keys": "keys.md",
    "usage": "traffic.md",
    "requests": "traffic.md",
    "sim": "simulator.md",
    "parse": "backends.md",
    "completion": "reference/cli.md",
}


def pages() -> Path | None:
    """The directory of the pages: of a checkout, or of what was installed; None if neither is there."""
    checkout = Path(__file__).resolve().parents[3] / "docs"
    installed = Path(sys.prefix) / "share" / "doc" / "garrison"
    return next((one for one in (checkout, installed) if (one / "serve.md").is_file()), None)


def page_of(command: Command) -> str:
    """The page about a command, relative to the directory of the pages."""
    return _OF_A_COMMAND.get(command.name, _OF_A_GROUP[command.group])
