"""What keys have used: requests and tokens by day, key and route. Sums only; no request is kept here."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from datetime import date, datetime
from enum import StrEnum
from typing import Protocol

__all__ = ["NO_KEY", "Usage", "UsageBatch", "UsageBy", "UsageRow", "UsageStore"]

NO_KEY = 0
"""The `key_id` of requests without a stored key."""


class UsageBy(StrEnum):
    """What sums can be split by."""

    DAY = "day"
    KEY = "key"
    ROUTE = "route"


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Sums over requests.

    Attributes:
        failed: of `requests`, those that were answered with an error, stopped, or broken off by their target.
        client_left: of `requests`, those whose client left before the answer was complete.
        uncounted: of `requests`, those that succeeded without saying what they used.
        tokens_in, tokens_out: of prompts and of answers, as the engines say.
        tokens_cached: of `tokens_in`, those that an engine had in its cache.
        bytes_in, bytes_out: of bodies.
        seconds: from the request to the end of its answer.
    """

    requests: int = 0
    failed: int = 0
    client_left: int = 0
    uncounted: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    tokens_cached: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(**{one.name: getattr(self, one.name) + getattr(other, one.name) for one in fields(Usage)})


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageRow:
    """Sums of one day, key and route. What they are not split by is None.

    Attributes:
        day: in UTC.
        key_id: `NO_KEY` for requests without a stored key.
    """

    day: date | None
    key_id: int | None
    route: str | None
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class UsageBatch:
    """What a process has counted since its batch before.

    Attributes:
        source: a random name of the process.
        number: of its batches, from 1.
    """

    source: str
    number: int
    rows: Sequence[UsageRow]


class UsageStore(Protocol):
    def add_usage(self, batches: Sequence[UsageBatch], at: datetime) -> None:
        """Add batches to the sums, each once: one whose source has stored its number, or a later one, is left out.

        Args:
            at: when they are stored; see `prune_usage`.
        """

    def usage(
        self,
        first: date,
        last: date,
        *,
        by: Collection[UsageBy],
        key_id: int | None = None,
        route: str | None = None,
        limit: int = 1000,
    ) -> list[UsageRow]:
        """Return the sums of some days, `last` included, in the order of day, key and route.

        Args:
            by: what they are split by; nothing gives one row, or none for days without requests.
            limit: rows that are returned at most.
        """

    def prune_usage(self, before: datetime) -> int:
        """Delete the sums of days before that of `before`, and the numbers of batches that were stored before it.

        Returns:
            The number of deleted rows.
        """
