"""A resolve, an import or a verification on a terminal: a bar during a transfer, and else a spinner with a clock."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self, TextIO

from rich import progress as bars
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from garrison.base.output.plain_text import plain
from garrison.cli.views.spinning import Spinning

__all__ = ["LiveTransfer"]

_REFRESHES_PER_SECOND = 8
_LOOKS = {
    "search": "looking in {source}",
    "check": "checking the files",
    "install": "moving it into place",
    "verify": "verifying",
}
"""What is said while a step takes time; `message` of a step goes before."""


@dataclass(frozen=True, slots=True)
class _Wait:
    """For another try, at `until` of the monotonic clock."""

    cause: str
    until: float
    attempt: int | None
    tries: int | None

    def text(self, now: float) -> str:
        which = "next try" if self.attempt is None else f"try {self.attempt} of {self.tries}"
        left = self.until - now
        return f"{which} in {left:.0f} s: {self.cause}" if left >= 0.5 else f"{which} now: {self.cause}"


class LiveTransfer:
    """`Progress` for people. Rich redraws from a thread of its own: `_lock` guards what it draws.

    Args:
        now: the monotonic clock.
    """

    def __init__(self, err: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._console = Console(file=err, highlight=False)
        self._now = now
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._bar: bars.Progress | None = None
        self._task = bars.TaskID(0)
        self._phase: Spinning | None = None
        self._wait: _Wait | None = None
        self._waiting = Spinning(now)
        self._spinner = Spinner("dots", style="green")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def step(self, name: str, **facts: Any) -> None:
        message: str = facts.get("message", "")
        if "seconds" in facts and name == "wait":
            self._await(facts)
            return
        if name in _LOOKS:
            self._look(message or _LOOKS[name].format_map(facts))
            return
        if name == "found":
            self._end()
        if message:
            self._console.print(plain(message), markup=False, soft_wrap=True)
        if name == "wait":
            self._look("waiting")

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        bar = bars.Progress(
            bars.TextColumn("{task.description}"),
            _ClockColumn(),
            bars.BarColumn(bar_width=None),
            bars.DownloadColumn(binary_units=True),
            bars.TransferSpeedColumn(),
            bars.TimeRemainingColumn(compact=True),
            console=self._console,
            expand=True,
        )
        # Of an archive nobody knows how much is in it.
        what = f"{doing} {files} file{'' if files == 1 else 's'}"
        task = bar.add_task(what, total=total or None, completed=done)
        with self._lock:
            self._bar, self._task, self._phase, self._wait = bar, task, None, None
        self._draw()

    def advanced(self, count: int) -> None:
        with self._lock:
            if count > 0 and self._wait is not None and self._wait.until <= self._now():
                self._wait = None  # before that, the bytes are those of other files
            if self._bar is not None:
                self._bar.advance(self._task, count)

    def finished(self) -> None:
        with self._lock:
            if self._bar is None:
                return
            bar, self._bar, self._wait = self._bar, None, None
        self._console.print(bar.make_tasks_table(bar.tasks))

    def _look(self, what: str) -> None:
        phase = Spinning(self._now)
        phase.name = what
        phase.saw(0.0, 0)
        with self._lock:
            self._phase, self._wait = phase, None
        self._draw()

    def _await(self, facts: dict[str, Any]) -> None:
        wait = _Wait(facts["cause"], self._now() + facts["seconds"], facts.get("attempt"), facts.get("tries"))
        with self._lock:
            if self._wait is None:
                self._waiting.name = "waiting"
                self._waiting.saw(0.0, 0)
            self._wait = wait
        self._draw()

    def _draw(self) -> None:
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._frame,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.start()

    def _frame(self) -> RenderableType:
        with self._lock:
            bar, wait = self._bar, self._wait
            spinning = self._waiting if wait is not None else self._phase
            if wait is not None:
                self._waiting.line = wait.text(self._now())
        lines: list[RenderableType] = [] if bar is None else [bar.make_tasks_table(bar.tasks)]
        if spinning is not None:
            lines.append(_row(self._spinner, spinning))
        return Group(*lines)

    def _end(self) -> None:
        with self._lock:
            self._bar = self._phase = self._wait = None
        if self._live is not None:
            self._live.stop()
            self._live = None


class _ClockColumn(bars.ProgressColumn):
    """Seconds since the transfer began."""

    def render(self, task: bars.Task) -> Text:
        return Text(f"{task.elapsed or 0:.0f} s", "bold")


def _row(spinner: Spinner, spinning: Spinning) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_row(spinner, spinning)
    return table
