"""The event stream: what changes, with numbers to resume at. A bounded ring in memory."""

import asyncio
import secrets
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from garrison.base.events import EventBus
from garrison.store.records import Event

__all__ = ["Feed", "FeedEvent"]

_KEPT = 4096
_PING_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class FeedEvent:
    """One event.

    Attributes:
        id: `EPOCH-NUMBER`; the epoch is another one after each start of the server.
        kind: `snapshot`, `ping`, or the kind of what happened.
    """

    id: str
    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)


class Feed:
    """Numbers the events of several buses, and keeps the last 4,096 for readers that come back."""

    def __init__(self) -> None:
        self._epoch = secrets.token_hex(4)
        self._last = 0
        self._ring: deque[tuple[int, FeedEvent]] = deque(maxlen=_KEPT)
        self._news = asyncio.Event()
        self._closed = False

    def attach(self, bus: EventBus[Event], *, wants: Callable[[Event], bool] | None = None) -> None:
        """Take the events of `bus` from now on, those that are wanted."""
        bus.listen(self.add, missed=lambda count: self.push("missed", {"count": count}), wants=wants)

    def add(self, event: Event) -> None:
        """Append an event of the history."""
        self.push(event.kind, event_json(event))

    def push(self, kind: str, data: Mapping[str, Any]) -> None:
        """Append an event."""
        self._last += 1
        self._ring.append((self._last, FeedEvent(f"{self._epoch}-{self._last}", kind, data)))
        self._wake()

    def close(self) -> None:
        """End every reader."""
        self._closed = True
        self._wake()

    @property
    def position(self) -> str:
        """The id of the last event."""
        return f"{self._epoch}-{self._last}"

    @property
    def last(self) -> int:
        """How many events there were since the server began."""
        return self._last

    def can_resume(self, after: str) -> bool:
        """Whether every event after the one of this id is still here."""
        number = self._number(after)
        oldest = self._ring[0][0] if self._ring else self._last + 1
        return number is not None and oldest - 1 <= number <= self._last

    async def read(self, after: str) -> AsyncIterator[FeedEvent]:
        """Yield the events after that id, then those that come, with a `ping` after each quarter of a minute without
        one. A reader that is too slow gets `missed`."""
        last = self._number(after)
        seen = self._last if last is None else last
        while not self._closed:
            if self._ring and self._ring[0][0] > seen + 1:
                lost = self._ring[0][0] - seen - 1
                seen = self._ring[0][0] - 1
                yield FeedEvent(f"{self._epoch}-{seen}", "missed", {"count": lost})
            fresh = [one for number, one in self._ring if number > seen] if self._last > seen else []
            for one in fresh:
                yield one
            seen = max(seen, self._number(fresh[-1].id) or 0) if fresh else seen
            if seen < self._last:
                continue
            try:
                async with asyncio.timeout(_PING_SECONDS):
                    await self._news.wait()
            except TimeoutError:
                yield FeedEvent("", "ping")

    def _number(self, id: str) -> int | None:
        epoch, _, number = id.partition("-")
        return int(number) if epoch == self._epoch and number.isdigit() and len(number) < 19 else None

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


def event_json(event: Event) -> dict[str, Any]:
    """An event of the history as JSON."""
    return {
        "at": event.at.isoformat(),
        "kind": event.kind,
        "subject": {"kind": event.subject_kind, "name": event.subject_name},
        "stack": event.stack,
        "cause": event.cause,
        "before": event.before,
        "after": event.after,
    }
