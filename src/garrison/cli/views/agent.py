"""The view of `garrison agent`: one line per event of the history, with its time, or for many that are alike. It never
waits for its reader; see `live_stream`."""

import asyncio
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TextIO, cast

from garrison.base.clock import Clock
from garrison.base.output.live_stream import LiveStream
from garrison.cli.json_answer import line
from garrison.cli.views.age import ago, utc
from garrison.cli.views.alike import MANY, alike
from garrison.cli.views.history import likeness, show_alike_events, show_event
from garrison.cli.views.page import Page, counted, plain, sentence
from garrison.fleet.hooks.queues import event_json
from garrison.fleet.report.agents import AgentStatus
from garrison.fleet.values import events as kinds
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.view import NoteLevel, SilentView
from garrison.store.records import Event

__all__ = ["AgentView", "SilentAgentView", "at_work"]

_DRAIN_SECONDS = 1.0
_GATHER_SECONDS = 0.5
"""Events within this time that are alike become one line: servers that share a cable come and go together."""
_FAILURES = (kinds.UNREACHABLE, kinds.ACTION_FAILED)


def at_work(agent: AgentStatus, now: datetime) -> str:
    """Return what a single pass says of another agent, or the server, that keeps the fleet already."""
    looked = f"last look {ago(agent.looked_at, now)}" if agent.looked_at else "no look yet"
    kept = f"; keeps {sentence(agent.stacks)}" if agent.stacks is not None else ""
    who = f"a server or an agent of {plain(agent.holder)} (pid {agent.pid})"
    return f"{who} keeps the fleet and does what is due: {looked}{kept}"


class AgentView(SilentView):
    """Prints events and notes. With `json`, each is a line of JSON; a note has the kind `note` and a `text`.

    Args:
        once: a single pass is shown, at whose end failures that are alike become one line.
    """

    def __init__(self, clock: Clock, *, json: bool, once: bool = False) -> None:
        self._clock = clock
        self._out = LiveStream(sys.stdout)
        self._page = Page(out=cast("TextIO", self._out))
        self._json = json
        self._once = once and not json
        self._failures: dict[tuple[object, ...], list[Event]] = {}
        self._gathered: dict[tuple[object, ...], list[Event]] = {}
        self._awaited = 0
        self._seen: dict[str, Sighting] = {}

    @property
    def dropped(self) -> int:
        """Lines that nobody read and that were dropped."""
        return self._out.dropped

    def first_pass(self, targets: int) -> None:
        """Report the targets out of reach once `targets` of them have been observed.

        Those that were out of reach before make no event.
        """
        self._awaited = targets

    def observed(self, sighting: Sighting) -> None:
        if not self._awaited:
            return
        self._seen[sighting.target] = sighting
        if len(self._seen) < self._awaited:
            return
        said = {one.target: f"{one.cause}: {one.detail}" for one in self._seen.values() if not one.known}
        for group in alike(said, least=1):
            step = f"  → {group.step}" if group.step else ""
            number = f"{len(group.names):,} of {counted(self._awaited, 'target')}"
            why = group.said.removeprefix("not asked: ")
            self.note(f"{number} {group.kind}: {sentence(group.names)}  {why}{step}")
        self._awaited, self._seen = 0, {}

    def event(self, event: Event) -> None:
        if self._json:
            self._print_json(event_json(event))
            return
        if self._once and event.kind in _FAILURES:
            self._failures.setdefault(likeness(event), []).append(event)
            return
        if not self._gathered:
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._show_gathered)
        self._gathered.setdefault(likeness(event), []).append(event)

    def note(self, text: str, level: NoteLevel = "warning") -> None:
        now = self._clock.now()
        if self._json:
            self._print_json({"at": now.isoformat(), "kind": "note", "text": text})
            return
        self._show_gathered()
        self._page.line((f"{utc(now)}  ", "dim"), ("· ", "dim"), text)

    def end(self) -> None:
        """Print what is still held back, and give the reader a moment to take what is still waiting."""
        self._show_gathered()
        self._show(self._failures)
        self._failures = {}
        self._out.drain(_DRAIN_SECONDS)

    def _show_gathered(self) -> None:
        gathered, self._gathered = self._gathered, {}
        self._show(gathered)

    def _show(self, found: Mapping[tuple[object, ...], list[Event]]) -> None:
        for events in found.values():
            if len(events) >= MANY:
                show_alike_events(events, self._page)
            else:
                for event in events:
                    show_event(event, self._page)

    def _print_json(self, body: Mapping[str, Any]) -> None:
        self._out.write(line(body) + "\n")


class SilentAgentView(SilentView):
    """Nothing: where the log says it all."""

    dropped = 0

    def first_pass(self, targets: int) -> None: ...

    def event(self, event: Event) -> None: ...

    def end(self) -> None: ...
