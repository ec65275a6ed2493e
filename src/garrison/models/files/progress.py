"""Progress of long work: steps, and bytes of a transfer.

One protocol and three implementations: a Rich bar for a terminal, one JSON line per step for programs, and a few plain
lines for logs. For several listeners, or slow ones, see `broadcast`.
"""

import json
import sys
import threading
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from garrison.base.clock import Clock, SystemClock
from garrison.base.values import size_text

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar
    from rich.progress import TaskID

__all__ = ["JsonLines", "Lines", "Progress", "RichProgress", "Silent", "choose"]

_TENTHS = 10
_WORTH_A_LINE = 256 * 1024 * 1024


class Progress(Protocol):
    """`advanced` may be called from several threads at once; the other methods from one.

    The work waits for each call, so none may block for long.
    """

    def step(self, name: str, **facts: Any) -> None:
        """Report a step. `facts` are JSON-ready; a `message` among them is a sentence for people."""

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        """Report the start of a transfer of `total` bytes, `done` of which are already there. `doing` is `downloading`,
        `copying`, `unpacking` or `hashing`."""

    def advanced(self, count: int) -> None:
        """Report `count` more bytes; negative if some must be transferred again."""

    def finished(self) -> None:
        """Report the end of the transfer, successful or not. Harmless if there is none."""


def choose(*, json_lines: bool, out: TextIO | None = None, err: TextIO | None = None) -> Progress:
    """Choose: JSON lines on request, a bar if standard error is a terminal, else plain lines."""
    if json_lines:
        return JsonLines(out or sys.stdout)
    err = err or sys.stderr
    return RichProgress(err) if err.isatty() else Lines(err)


class Silent:
    def step(self, name: str, **facts: Any) -> None: ...
    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None: ...
    def advanced(self, count: int) -> None: ...
    def finished(self) -> None: ...


class _Tenths:
    """Counts bytes, and tells when another tenth of them has arrived."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._total = 0

    def begin(self, files: int, total: int, done: int) -> None:
        self._files, self._total, self._done, self._first = files, total, done, done
        self._tenth = done * _TENTHS // total if total else _TENTHS
        self._since = self._clock.monotonic()

    def add(self, count: int) -> int | None:
        """The percentage, if it is worth a line."""
        if not self._total:
            return None
        with self._lock:
            self._done += count
            tenth = self._done * _TENTHS // self._total
            if tenth <= self._tenth:
                return None
            self._tenth = tenth
            return tenth * 100 // _TENTHS

    def facts(self) -> dict[str, Any]:
        seconds = self._clock.monotonic() - self._since
        rate = (self._done - self._first) / seconds if seconds > 0 else 0.0
        return {"files": self._files, "bytes": self._done, "total_bytes": self._total, "bytes_per_s": round(rate)}

    def end(self) -> dict[str, Any] | None:
        if not self._total:
            return None
        facts = self.facts()
        self._total = 0
        return facts


class JsonLines:
    """One JSON object per line: `{"step": name, ...facts}`; for a transfer, one per tenth."""

    def __init__(self, out: TextIO, clock: Clock | None = None) -> None:
        self._out = out
        self._doing = "downloading"
        self._tenths = _Tenths(clock or SystemClock())

    def step(self, name: str, **facts: Any) -> None:
        self._out.write(json.dumps({"step": name, **facts}) + "\n")
        self._out.flush()

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        self._tenths.begin(files, total, done)
        self._doing = doing
        self.step(doing, state="started", files=files, bytes=done, total_bytes=total)

    def advanced(self, count: int) -> None:
        if self._tenths.add(count) is not None:
            self.step(self._doing, state="running", **self._tenths.facts())

    def finished(self) -> None:
        if facts := self._tenths.end():
            self.step(self._doing, state="ended", **facts)


class Lines:
    """A few plain lines, for logs."""

    def __init__(self, out: TextIO, clock: Clock | None = None) -> None:
        self._out = out
        self._shown = True
        self._tenths = _Tenths(clock or SystemClock())

    def step(self, name: str, **facts: Any) -> None:
        if message := facts.get("message"):
            self._write(message)

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        self._tenths.begin(files, total, done)
        # Small local transfers finish before anybody reads about them.
        self._shown = doing == "downloading" or total >= _WORTH_A_LINE
        resumed = f", {size_text(done)} of it already here" if done else ""
        if self._shown:
            self._write(f"{doing} {files} file{'' if files == 1 else 's'}, {size_text(total)}{resumed}")

    def advanced(self, count: int) -> None:
        if (percent := self._tenths.add(count)) is not None and self._shown:
            rate = self._tenths.facts()["bytes_per_s"]
            self._write(f"{percent:3d} %  {size_text(rate)}/s")

    def finished(self) -> None:
        self._tenths.end()

    def _write(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()


class RichProgress:
    """A bar with bytes, rate and time left during a transfer; one line per step otherwise."""

    def __init__(self, err: TextIO) -> None:
        self._err = err
        self._bar: RichBar | None = None
        self._task: TaskID | None = None

    def step(self, name: str, **facts: Any) -> None:
        if not (message := facts.get("message")):
            return
        if self._bar is not None:
            self._bar.console.print(message, markup=False, highlight=False)
        else:
            self._err.write(message + "\n")
            self._err.flush()

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        from rich import progress as rich_progress  # slow to import, and needed only for a transfer on a terminal
        from rich.console import Console

        self.finished()
        self._bar = rich_progress.Progress(
            rich_progress.TextColumn("{task.description}"),
            rich_progress.BarColumn(),
            rich_progress.DownloadColumn(binary_units=True),
            rich_progress.TransferSpeedColumn(),
            rich_progress.TimeRemainingColumn(compact=True),
            console=Console(file=self._err),
        )
        self._task = self._bar.add_task(f"{doing} {files} file{'' if files == 1 else 's'}", total=total, completed=done)
        self._bar.start()

    def advanced(self, count: int) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)

    def finished(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
