"""Events: the history."""

from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Protocol

from garrison.store.records import Event

__all__ = ["EventStore"]


class EventStore(Protocol):
    def add_events(self, events: Iterable[Event]) -> None:
        """Append to the history."""

    def events(
        self,
        *,
        stack: str | None = None,
        target: str | None = None,
        name: str | None = None,
        kinds: Collection[str] | None = None,
        subject: tuple[str, str] | None = None,
        since: datetime | None = None,
        after_id: int | None = None,
        limit: int = 200,
    ) -> list[Event]:
        """Return events that match all filters, newest first.

        Args:
            subject: kind and name.
            after_id: only later events, oldest first, for a follower.
        """

    def last_times(self, kind: str, targets: Collection[str]) -> dict[str, datetime]:
        """Return the time of the last event of this kind by target; targets without one are omitted."""
