"""Questions to a person at the terminal."""

import sys
from collections.abc import Callable

__all__ = ["asker"]


def asker(say: Callable[[str], None]) -> Callable[[str, str], bool] | None:
    """A function that says what a question is about, then asks it; None without a terminal to ask and answer at."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(about: str, question: str) -> bool:
        from garrison.cli.fleet.question import asked
        from garrison.cli.fleet.wiring import Stop  # a start on a free port needs nothing of the fleet

        say(about)
        return asked(question, Stop())

    return ask
