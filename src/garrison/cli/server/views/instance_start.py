"""The start of an instance as it is waited for: one line a phase on a pipe, a spinner on a terminal."""

import sys
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

from garrison.base.output.plain_text import plain
from garrison.cli.views.age import duration

__all__ = ["LineStart", "SilentStart", "SpinnerStart", "StartProgress", "progress_text", "start_progress"]


class StartProgress(Protocol):
    def step(self, loading: Mapping[str, Any]) -> None:
        """Where the start is, as the API's `loading` says it. Called repeatedly."""

    def ready(self, seconds: float | None) -> None:
        """The instance answers; `seconds` after its start, where that is known."""

    def end(self) -> None:
        """Give the terminal back. May be called more than once."""


def start_progress(name: str, *, json: bool) -> StartProgress:
    """The view for the output at hand; nothing with `json`."""
    if json:
        return SilentStart()
    return SpinnerStart(name, sys.stderr) if sys.stderr.isatty() else LineStart(name, sys.stderr)


def progress_text(loading: Mapping[str, Any]) -> tuple[str, str]:
    """The phase of a start, and its times in words."""
    phase = loading.get("phase") or loading.get("reason") or loading.get("state") or "starting"
    times = []
    if (seconds := loading.get("seconds")) is not None:
        times.append(f"after {seconds:.1f} s")
    if remaining := loading.get("remaining"):
        times.append(f"about {duration(remaining)} left")
    return plain(str(phase)), ", ".join(times)


class SilentStart:
    def step(self, loading: Mapping[str, Any]) -> None: ...
    def ready(self, seconds: float | None) -> None: ...
    def end(self) -> None: ...


class LineStart:
    """A line for each new phase."""

    def __init__(self, name: str, out: TextIO) -> None:
        self._name = name
        self._out = out
        self._last = ""

    def step(self, loading: Mapping[str, Any]) -> None:
        phase, times = progress_text(loading)
        if phase != self._last:
            self._last = phase
            self._say(f"{phase} ({times})" if times else phase)

    def ready(self, seconds: float | None) -> None:
        self._say("ready" if seconds is None else f"ready after {seconds:.1f} s")

    def end(self) -> None:
        """Every line is complete already."""

    def _say(self, text: str) -> None:
        self._out.write(f"{plain(self._name)}: {text}\n")
        self._out.flush()


class SpinnerStart:
    """A spinner on the current phase, and a line for each that is over."""

    def __init__(self, name: str, out: TextIO) -> None:
        from rich.console import Console

        self._console = Console(file=out, highlight=False)
        self._status = self._console.status(f"{plain(name)}: starting …", spinner="dots")
        self._status.start()
        self._name = name
        self._phase = ""
        self._since = 0.0

    def step(self, loading: Mapping[str, Any]) -> None:
        from rich.text import Text

        phase, times = progress_text(loading)
        seconds = float(loading.get("seconds") or 0.0)
        if phase != self._phase:
            self._over(seconds)
            self._phase, self._since = phase, seconds
        self._status.update(Text(f"{plain(self._name)}: {phase} … {times}"))

    def ready(self, seconds: float | None) -> None:
        self._over(seconds or self._since)
        self.end()
        after = "" if seconds is None else f" after [bold]{seconds:.1f} s[/]"
        self._console.print(f"[bold green]✓ ready[/]{after}")

    def end(self) -> None:
        self._status.stop()

    def _over(self, seconds: float) -> None:
        from rich.text import Text

        if self._phase:
            took = f"{max(0.0, seconds - self._since):6.1f} s"
            self._console.print(Text.assemble(("✓ ", "green"), f"{self._phase:<24} ", (took, "dim")))
