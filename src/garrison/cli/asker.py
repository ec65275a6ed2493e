"""Who can be asked: a person at a terminal, or nobody."""

import sys
from collections.abc import Callable

__all__ = ["asker"]


def asker() -> Callable[[str], bool] | None:
    """Asks the person at the terminal; None where nobody would see the question, or could answer it."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None
    return _ask


def _ask(question: str) -> bool:
    from garrison.cli.fleet.question import asked
    from garrison.cli.fleet.wiring import Stop  # who starts a server on a free port needs none of the fleet

    return asked(question, Stop())
