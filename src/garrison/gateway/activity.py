"""The requests that have ended lately, newest first, up to a number of them. Pure."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from garrison.gateway.link.reports import FinishedValue

__all__ = ["Activity", "ActivityEntry", "ActivityFilter"]


@dataclass(frozen=True, slots=True)
class ActivityEntry:
    """A request and its place in the list; later ones have larger numbers."""

    number: int
    request: FinishedValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityFilter:
    """Which requests are listed; all of those that are set must match.

    Attributes:
        failed: with an outcome other than `ok`, or an error of the target as their answer.
        since: in Unix time, of their begin.
    """

    route: str | None = None
    key_id: int | None = None
    failed: bool = False
    since: float | None = None

    def matches(self, one: FinishedValue) -> bool:
        return (
            self.route in (None, one.route)
            and self.key_id in (None, one.key_id)
            and (not self.failed or one.outcome != "ok" or one.status >= 400)
            and (self.since is None or one.at >= self.since)
        )


class Activity:
    """The list.

    Args:
        most: requests that are kept.
    """

    def __init__(self, most: int) -> None:
        self._entries: deque[ActivityEntry] = deque(maxlen=most)
        self._last = 0

    def add(self, requests: Iterable[FinishedValue]) -> None:
        """Add requests, the latest last."""
        for one in requests:
            self._last += 1
            self._entries.append(ActivityEntry(self._last, one))

    def resize(self, most: int) -> None:
        """Keep another number of them."""
        if most != self._entries.maxlen:
            self._entries = deque(self._entries, maxlen=most)

    def page(
        self, chosen: ActivityFilter | None = None, *, before: int | None = None, limit: int
    ) -> list[ActivityEntry]:
        """Return those that match, newest first.

        Args:
            before: only those with a smaller number, for the next page.
        """
        wanted = chosen or ActivityFilter()
        found = (
            one
            for one in reversed(self._entries)
            if (before is None or one.number < before) and wanted.matches(one.request)
        )
        return list(islice(found, limit))

    def find(self, id: str) -> FinishedValue | None:
        """Return the request of that id; None if it is not kept any more."""
        return next((one.request for one in reversed(self._entries) if one.request.id == id), None)
