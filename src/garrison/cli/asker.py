"""Questions to a person at the terminal."""

import select
import sys
from collections.abc import Callable

from garrison.base.errors import DeclinedError, UsageError

__all__ = ["asked", "asker", "confirm"]

_POLL_SECONDS = 0.1


def asker(say: Callable[[str], None]) -> Callable[[str, str], bool] | None:
    """A function that says what a question is about, then asks it; None without a terminal to ask and answer at."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return None

    def ask(about: str, question: str) -> bool:
        say(about)
        return asked(question)

    return ask


def asked(question: str, stopped: Callable[[], bool] = lambda: False) -> bool:
    """Return whether a person says yes. False once `stopped`, so that a thread that waits here ends.

    The cursor is at the beginning of a line afterwards.

    Raises:
        UsageError: there is no terminal to ask at.
        KeyboardInterrupt: Ctrl-C, in the main thread.
    """
    if not sys.stdin.isatty():
        raise UsageError("confirmation required, but standard input is not a terminal", hint="Confirm with --yes (-y).")
    answer = ""
    try:
        # Inside: Ctrl-C may come as soon as the question is there.
        print(f"\n{question} [y/N] ", end="", file=sys.stderr, flush=True)
        while not stopped():
            ready, _, _ = select.select([sys.stdin], [], [], _POLL_SECONDS)
            if ready:
                answer = sys.stdin.readline()
                return answer.strip().lower() in ("y", "yes")
        return False
    finally:
        if not answer.endswith("\n"):  # Ctrl-C or Ctrl-D: nobody pressed Enter
            print(file=sys.stderr, flush=True)


def confirm(question: str) -> None:
    """Ask at the terminal, and return if the answer is yes.

    Raises:
        UsageError: standard input is not a terminal.
        DeclinedError: the answer is not yes.
        KeyboardInterrupt: Ctrl-C.
    """
    if not asked(question):
        raise DeclinedError("Nothing was done.")
