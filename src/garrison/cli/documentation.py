"""Where the documentation is on this machine: it is installed with the package. Standard library only."""

import sys
from pathlib import Path

from garrison.cli.table import Command

__all__ = ["page_of", "page_of_error", "pages"]

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
_OF_AN_ERROR = {
    "gpu-threshold": "preflight.md",
    "port-foreign": "preflight.md",
    "port-other-user": "preflight.md",
    "port-unattributable": "preflight.md",
    "port-stuck": "preflight.md",
    "model-not-found": "resolve.md",
    "model-invalid": "resolve.md",
    "fetch-failed": "resolve.md",
    "engine-missing": "engines.md",
    "engine-died": "serve.md",
    "engine-timeout": "serve.md",
    "apply-failed": "offline.md",
    "unauthenticated": "keys.md",
}
"""Errors whose cause a page explains. Of the others the next step says enough."""


def pages() -> Path | None:
    """The directory of the pages: of a checkout, or of what was installed; None if neither is there."""
    own = Path(__file__).resolve().parents
    # PREFIX/lib/pythonX.Y/site-packages/garrison/cli: of a user's own installation PREFIX is not that of Python.
    prefixes = (*own[5:6], Path(sys.prefix))
    places = (own[3] / "docs", *(prefix / "share" / "doc" / "garrison" for prefix in prefixes))
    return next((one for one in places if (one / "serve.md").is_file()), None)


def page_of_error(code: str) -> Path | None:
    """The page about the cause of an error, by its code; None where there is none."""
    page, docs = _OF_AN_ERROR.get(code), pages()
    return None if page is None or docs is None else docs / page


def page_of(command: Command) -> str:
    """The page about a command, relative to the directory of the pages."""
    return _OF_A_COMMAND.get(command.name, _OF_A_GROUP[command.group])
