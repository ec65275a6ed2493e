"""One line about work in progress: its name, a clock that runs, memory, and the last line of its output."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.text import Text

from garrison.base.output.plain_text import plain
from garrison.base.values import size_text

__all__ = ["Spinning", "spinning"]

_CLOCK_WIDTH = 22
"""Columns for the clock and the memory."""


class Spinning:
    """What a spinner says. It is drawn anew several times a second, so that the clock runs between two reports.

    Attributes:
        name: of the phase.
        line: the last line of output; empty for none.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.name = self.line = ""
        self._now = now
        self._since: float | None = None
        self._memory = 0

    def saw(self, seconds: float, memory_bytes: int) -> None:
        """So many seconds after the beginning, this much memory is used."""
        self._since = self._now() - seconds
        self._memory = memory_bytes

    def text(self, width: int | None = None) -> Text:
        """Return the line as it is now. Of a name that is too long for `width` the end goes, and not the clock."""
        name = plain(self.name)
        if width is not None and len(name) > (most := max(1, width - _CLOCK_WIDTH)):
            name = name[:most]
        found = Text(f"{name} …", no_wrap=True, overflow="ellipsis")
        if self._since is not None:
            found.append(f" {self._now() - self._since:.0f} s", "bold")
        if self._memory:
            found.append(f"  {size_text(self._memory)}")
        if self.line:
            found.append(f"  {plain(self.line)}", "dim")
        return found

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text(options.max_width)

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


@contextlib.contextmanager
def spinning(name: str, where: str = "", out: TextIO | None = None) -> Iterator[None]:
    """Show on standard error that something takes time: a clock on a terminal, a line elsewhere.

    Args:
        where: the path or address, which stands behind the clock.
    """
    out = out or sys.stderr
    if not out.isatty():
        print(f"garrison: {plain(name)}: {plain(where)}" if where else f"garrison: {plain(name)}", file=out, flush=True)
        yield
        return
    shown = Spinning()
    shown.name, shown.line = name, where
    shown.saw(0.0, 0)
    with Console(file=out).status(shown, spinner="dots"):
        yield
