"""Lines of an engine's log, for people."""

import sys
from collections.abc import Iterable
from typing import Any

from garrison.base.output.plain_text import plain
from garrison.base.redaction import without_colours

__all__ = ["log_line", "show_tail"]


def log_line(text: str) -> str:
    """A line without colours and control characters."""
    return plain(without_colours(text))


def show_tail(details: Any) -> None:
    """Print the last lines of the log that an error's details have as `log_tail`, on standard error."""
    found = details.get("log_tail") if isinstance(details, dict) else None
    lines: Iterable[Any] = found if isinstance(found, list) else ()
    if not lines:
        return
    print("\nlast lines of the engine's log:", file=sys.stderr)
    for line in lines:
        print(f"  │ {log_line(str(line))}", file=sys.stderr)
    print(file=sys.stderr)
