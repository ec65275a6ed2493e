"""The steps of an installation: on a terminal the current one with a clock and its last line, elsewhere a line each."""

import sys
from typing import Self, TextIO

from garrison.engines.install.installer import Progress

__all__ = ["LineSteps", "LiveSteps", "install_steps"]

_SAID = ("notice", "wait")
"""Steps whose line is a sentence for people, and not what a program printed."""


def install_steps(engine: str, out: TextIO | None = None) -> "LineSteps | LiveSteps":
    """Choose by what standard error is."""
    out = out or sys.stderr
    return LiveSteps(out) if out.isatty() else LineSteps(engine, out)


class LineSteps:
    """A line for each step, complete, for journals."""

    def __init__(self, engine: str, out: TextIO) -> None:
        self._engine = engine
        self._out = out
        self._step = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Every line is complete already."""

    def __call__(self, progress: Progress) -> None:
        if progress.step != self._step or progress.step in _SAID:
            print(f"{self._engine}: {progress.step} {progress.line}".rstrip(), file=self._out, flush=True)
        self._step = progress.step


class LiveSteps:
    """The step in progress, and the time of each that is over."""

    def __init__(self, out: TextIO) -> None:
        from rich.console import Console

        from garrison.cli.views.spinning import Spinning

        self._console = Console(file=out, highlight=False)
        self._now = Spinning()
        self._now.name = "beginning"
        self._now.saw(0.0, 0)
        self._status = self._console.status(self._now, spinner="dots")
        self._step, self._since, self._elapsed = "", 0.0, 0.0

    def __enter__(self) -> Self:
        self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._status.stop()

    def __call__(self, progress: Progress) -> None:
        if progress.step in _SAID and progress.line:
            self._console.print(f"· {progress.line}", markup=False, soft_wrap=True)
        if progress.step != self._step:
            self._settle(progress)
        elif progress.line and progress.step not in _SAID:
            self._now.line = progress.line
        self._now.saw(progress.elapsed, 0)

    def _settle(self, progress: Progress) -> None:
        """A step is over, and the next begins."""
        if self._step and self._step not in _SAID:
            took = progress.elapsed - self._since
            self._console.print(f"[green]✓[/] {self._step} [dim]{took:.1f} s[/]")
        self._step, self._since = progress.step, progress.elapsed
        self._now.name = "waiting" if progress.step == "wait" else progress.step
        self._now.line = ""
