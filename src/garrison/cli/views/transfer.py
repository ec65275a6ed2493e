"""What is shown of a resolve, an import or a verification: one JSON line per step for programs, a few plain lines for
logs, and for people a bar and a spinner, which are in `transfer_live`.
"""

import sys
import threading
from typing import Any, Protocol, Self, TextIO

from garrison.base.clock import Clock, SystemClock
from garrison.base.output.plain_text import plain
from garrison.base.values import size_text
from garrison.cli.json_answer import line
from garrison.models.files.progress import Progress

__all__ = ["JsonLines", "Lines", "ShownProgress", "choose"]

_TENTHS = 10
_WORTH_A_LINE = 256 * 1024 * 1024


class ShownProgress(Progress, Protocol):
    """`Progress` that may hold the terminal until it is closed."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def choose(*, json_lines: bool, out: TextIO | None = None, err: TextIO | None = None) -> ShownProgress:
    """Choose: JSON lines on request, a bar if standard error is a terminal, else plain lines."""
    if json_lines:
        return JsonLines(out or sys.stdout)
    err = err or sys.stderr
    if not err.isatty():
        return Lines(err)
    from garrison.cli.views.transfer_live import LiveTransfer  # rich is slow to import, and needs a terminal

    return LiveTransfer(err)


class _View:
    """Every line is complete already: there is nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


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


class JsonLines(_View):
    """One JSON object per line: `step` and its facts; for a transfer, one per tenth."""

    def __init__(self, out: TextIO, clock: Clock | None = None) -> None:
        self._out = out
        self._doing = "downloading"
        self._tenths = _Tenths(clock or SystemClock())

    def step(self, name: str, **facts: Any) -> None:
        self._out.write(line({"step": name, **facts}) + "\n")
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


class Lines(_View):
    """A few plain lines, for logs."""

    def __init__(self, out: TextIO, clock: Clock | None = None) -> None:
        self._out = out
        self._shown = True
        self._tenths = _Tenths(clock or SystemClock())

    def step(self, name: str, **facts: Any) -> None:
        if message := facts.get("message"):
            self._write(plain(message))

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

    def _write(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()
