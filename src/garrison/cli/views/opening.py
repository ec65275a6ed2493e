"""What a fleet command shows on a terminal before it has a view: that it works, on what, and since when."""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

__all__ = ["Opening"]


class Opening:
    """A spinner with a clock, from second 0 until `end`. On anything but a terminal it shows nothing.

    Attributes:
        since: monotonic seconds when the command began; the clock of its view goes on from there.
        text: what it is at.
    """

    def __init__(self, text: str, *, json: bool, now: Callable[[], float] = time.monotonic) -> None:
        self.text = text
        self.since = now()
        self._now = now
        self._live: Any = None if json or not sys.stdout.isatty() else self._drawn()

    def __enter__(self) -> "Opening":
        if self._live is not None:
            self._live.start(refresh=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """Take the spinner away. May be called more than once."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _drawn(self) -> Any:
        from rich.live import Live

        from garrison.cli.views.page import Page
        from garrison.cli.views.progress import clock_line

        console = Page().console
        return Live(
            console=console,
            get_renderable=lambda: clock_line(self.text, self._now() - self.since),
            refresh_per_second=8,
            transient=True,
            redirect_stderr=sys.stderr.isatty(),
        )
