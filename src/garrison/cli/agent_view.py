"""What the agent tells while it runs: a line an event of the history, with its time."""

import json as json_module

from garrison.base.clock import Clock
from garrison.cli.age import utc
from garrison.cli.history_view import show_event
from garrison.cli.not_asked import is_local
from garrison.cli.page import Page, counted, sentence
from garrison.fleet.hooks import event_json
from garrison.fleet.observation import Sighting
from garrison.fleet.view import SilentView
from garrison.store.records import Event

__all__ = ["AgentView"]


class AgentView(SilentView):
    """With `json`, a line of JSON an event; notes have the kind `note` and a `text`."""

    def __init__(self, clock: Clock, page: Page, *, json: bool) -> None:
        self._clock = clock
        self._page = page
        self._json = json
        self._awaited = 0
        self._seen: dict[str, Sighting] = {}

    def first_pass(self, targets: int) -> None:
        """Once that many targets were looked at, it is said which of them are out of reach: those that were so before
        make no event."""
        self._awaited = targets

    def observed(self, sighting: Sighting) -> None:
        if not self._awaited:
            return
        self._seen[sighting.target] = sighting
        if len(self._seen) < self._awaited:
            return
        for word, names in (
            ("out of reach", [one.target for one in self._seen.values() if not one.known and not is_local(one.cause)]),
            ("not asked", [one.target for one in self._seen.values() if is_local(one.cause)]),
        ):
            if names:
                self.note(f"{len(names):,} of {counted(self._awaited, 'target')} {word}: {sentence(sorted(names))}")
        self._awaited, self._seen = 0, {}

    def event(self, event: Event) -> None:
        if self._json:
            print(json_module.dumps(event_json(event), ensure_ascii=False), flush=True)
            return
        show_event(event, self._page)
        self._page.flush()

    def note(self, text: str) -> None:
        now = self._clock.now()
        if self._json:
            body = {"at": now.isoformat(), "kind": "note", "text": text}
            print(json_module.dumps(body, ensure_ascii=False), flush=True)
            return
        self._page.line((f"{utc(now)}  ", "dim"), ("· ", "dim"), text)
        self._page.flush()
