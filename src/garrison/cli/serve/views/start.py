"""The terminal's view of a start: one line per phase with time and memory, then how to call the endpoint."""

import sys
from typing import TextIO

from garrison.base.values import size_text
from garrison.cli.serve.views.call_line import address_line
from garrison.engines.argv import Endpoint

__all__ = ["LineView", "RichView", "start_view"]


def start_view(*, logs: bool | None, out: TextIO | None = None) -> "LineView | RichView":
    """Return a rich view on a terminal, and plain lines elsewhere.

    Args:
        logs: show the engine's own output. By default only without a terminal: a journal or a container's log wants
            it, a person wants the phases.
        out: standard error by default.
    """
    out = out or sys.stderr
    if out.isatty():
        return RichView(out, logs=bool(logs))
    return LineView(out, logs=logs is not False)


class LineView:
    """Plain lines, each complete, for journals."""

    def __init__(self, out: TextIO, *, logs: bool) -> None:
        self._out = out
        self.logs = logs

    def note(self, text: str) -> None:
        self._write(f"garrison: {text}")

    def starting(self, *, seconds: float, memory_bytes: int) -> None:
        """A journal has a line for each phase."""

    def phase(self, name: str, *, seconds: float, memory_bytes: int) -> None:
        self._write(f"garrison: {name} (after {seconds:.1f} s, {size_text(memory_bytes)})")

    def line(self, text: str) -> None:
        if self.logs:
            self._write(text)

    def ready(self, *, seconds: float, memory_bytes: int) -> None:
        self._write(f"garrison: ready after {seconds:.1f} s, {size_text(memory_bytes)}")

    def running(self, why: str, *, seconds: float, memory_bytes: int) -> None:
        self._write(f"garrison: running after {seconds:.1f} s, {size_text(memory_bytes)} ({why})")

    def reached(self, endpoint: Endpoint) -> None:
        if (line := address_line(endpoint)) is not None:
            self.note(line)

    def stopping(self, reason: str) -> None:
        self._write(f"garrison: stopping ({reason})")

    def stopped(self, *, seconds: float) -> None:
        self._write(f"garrison: stopped in {seconds:.1f} s, no process left")

    def end(self) -> None:
        """Every line is complete already."""

    def _write(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class RichView:
    """For people: the current phase, with a clock, memory and the engine's last line; the time of each that is over."""

    def __init__(self, out: TextIO, *, logs: bool) -> None:
        from rich.console import Console
        from rich.status import Status

        from garrison.cli.views.spinning import Spinning

        self._console = Console(file=out, highlight=False)
        self._status: Status | None = None
        self.logs = logs
        self._name, self._since = "starting", 0.0
        self._now = Spinning()

    def note(self, text: str) -> None:
        # The terminal breaks a long line, so that a command or a path in it can still be copied whole.
        self._console.print(f"[dim]·[/] {_escaped(text)}", soft_wrap=True)

    def starting(self, *, seconds: float, memory_bytes: int) -> None:
        self._now.saw(seconds, memory_bytes)
        if self._status is None and self._name == "starting":
            self._spin("starting")

    def phase(self, name: str, *, seconds: float, memory_bytes: int) -> None:
        self._settle(seconds, memory_bytes)
        self._name, self._since = name, seconds
        self._now.saw(seconds, memory_bytes)
        self._spin(name)

    def line(self, text: str) -> None:
        if self.logs:
            self._console.print(f"[dim]{_escaped(text)}[/]")
        else:
            self._now.line = text

    def ready(self, *, seconds: float, memory_bytes: int) -> None:
        self._settle(seconds, memory_bytes)
        self._name = "serving"
        self._console.print(
            f"[bold green]✓ ready[/] after [bold]{seconds:.1f} s[/], {size_text(memory_bytes)} of memory"
        )

    def running(self, why: str, *, seconds: float, memory_bytes: int) -> None:
        self._settle(seconds, memory_bytes)
        self._name = "serving"
        self._console.print(
            f"[bold green]✓ running[/] after [bold]{seconds:.1f} s[/], {size_text(memory_bytes)} of memory"
        )
        self._console.print(f"[dim]·[/] {_escaped(why)}")

    def reached(self, endpoint: Endpoint) -> None:
        if (line := address_line(endpoint)) is not None:
            self.note(line)

    def stopping(self, reason: str) -> None:
        self._halt()
        self._now.line = ""
        self._now.saw(0.0, 0)
        self._spin(f"stopping ({reason})")

    def stopped(self, *, seconds: float) -> None:
        self._halt()
        self._console.print(f"[green]✓[/] stopped in {seconds:.1f} s, no process left")

    def end(self) -> None:
        self._halt()

    def _settle(self, seconds: float, memory_bytes: int) -> None:
        self._halt()
        took = f"{seconds - self._since:6.1f} s"
        self._console.print(f"[green]✓[/] {self._name:<12} [dim]{took}  {size_text(memory_bytes):>9}[/]")

    def _spin(self, name: str) -> None:
        self._halt()
        self._now.name = name
        self._status = self._console.status(self._now, spinner="dots")
        self._status.start()

    def _halt(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
