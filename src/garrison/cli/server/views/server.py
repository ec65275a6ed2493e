"""What `garrison up` shows: where the server is, and each step of an instance. It never waits for its reader."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Protocol, TextIO, cast

from rich.text import Text

from garrison.api.feed import event_json
from garrison.base.output.live_stream import LiveStream
from garrison.cli.server.views.instances import ended_text
from garrison.cli.server.views.instances_watch import event_text
from garrison.cli.views.page import Page, counted
from garrison.store.records import Event

__all__ = ["ServerView", "SilentServerView", "UpView", "states_text"]

_DRAIN_SECONDS = 1.0


class UpView(Protocol):
    def note(self, text: str) -> None:
        """A sentence of the server, such as where it is ready."""

    def started(self, states: Sequence[str]) -> None:
        """It is ready; the states of its instances."""

    def event(self, event: Event) -> None:
        """An instance did a step."""

    def missed(self, count: int) -> None:
        """Events were lost, because there were too many at once."""

    def ended(self, names: Sequence[str]) -> None:
        """The server has ended; these instances go on serving."""

    def end(self) -> None:
        """Give the reader a moment to take what is still waiting."""


class SilentServerView:
    """Nothing: where the log says it all."""

    def note(self, text: str) -> None: ...
    def started(self, states: Sequence[str]) -> None: ...
    def event(self, event: Event) -> None: ...
    def missed(self, count: int) -> None: ...
    def ended(self, names: Sequence[str]) -> None: ...
    def end(self) -> None: ...


class ServerView:
    """One line per event."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = LiveStream(out or sys.stdout)
        self._page = Page(out=cast("TextIO", self._out))

    def note(self, text: str) -> None:
        self._page.line(("garrison  ", "bold"), text)

    def started(self, states: Sequence[str]) -> None:
        self._page.line(("· ", "dim"), states_text(states))
        self._page.line(("· ", "dim"), "Ctrl-C ends the server; its instances go on serving")

    def event(self, event: Event) -> None:
        self._page.entry(Text(), event_text(event.kind, event_json(event)))

    def missed(self, count: int) -> None:
        self._page.line(("· ", "dim"), f"{counted(count, 'event')} not shown")

    def ended(self, names: Sequence[str]) -> None:
        self._page.line(("garrison  ", "bold"), f"ended; {ended_text(names)}")
        if names:
            self._page.line(("· ", "dim"), "`garrison up` takes them over again; `garrison up --detach`, then")
            self._page.line(("· ", "dim"), "`garrison down --all`, stops them")

    def end(self) -> None:
        self._out.drain(_DRAIN_SECONDS)


def states_text(states: Sequence[str]) -> str:
    """`3 instances: 1 running, 2 stopped`."""
    if not states:
        return "no instances yet; `garrison instance create NAME -- vllm serve MODEL` makes one"
    each = ", ".join(f"{count} {state}" for state, count in sorted(Counter(states).items()))
    return f"{counted(len(states), 'instance')}: {each}"
