"""The seam to what the gateway carries: usage, and requests that have ended or are in progress."""

from collections.abc import Collection
from datetime import date
from typing import Protocol

from garrison.gateway.activity import ActivityEntry, ActivityFilter
from garrison.gateway.link.reports import CaptureValue, LiveValue
from garrison.store.usage_store import UsageBy, UsageRow

__all__ = ["Traffic"]


class Traffic(Protocol):
    async def usage(
        self,
        first: date,
        last: date,
        *,
        by: Collection[UsageBy],
        key_id: int | None = None,
        route: str | None = None,
        limit: int = 1000,
    ) -> list[UsageRow]:
        """Return what was used on some days, `last` included; see `UsageStore.usage`. Raises GarrisonError."""

    def recent(self, chosen: ActivityFilter, *, before: int | None, limit: int) -> list[ActivityEntry]:
        """Return requests that have ended, newest first; see `Activity.page`."""

    def capture(self, id: str) -> CaptureValue | None:
        """Return what is kept of a request and its answer; None if nothing is."""

    async def live(self, most: int) -> tuple[list[LiveValue], int, int]:
        """Return requests in progress, oldest first, how many more there are, and how many workers did not answer."""

    async def stop(self, id: str) -> bool:
        """End a request that is in progress; False if there is none of that id."""
