"""How long to wait before another request, by what the server says about it. Pure."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["TRIES", "Retries", "asked_wait"]

TRIES = 5
_LONGEST = 8.0
_WAIT_BUDGET = 900.0
"""Seconds that one piece of work waits as it is told, all in all. The hub's limits are counted over five minutes."""
_SECONDS = re.compile(r"\s*(\d{1,9})(?:\.\d+)?\s*")
_LIMIT = re.compile(r";\s*(?P<key>[rt])\s*=\s*(?P<value>\d{1,9})")


@dataclass(slots=True)
class Retries:
    """What is left of the patience with one piece of work.

    Attributes:
        left: tries without an answer.
        waited: seconds, as told.
    """

    left: int = TRIES
    waited: float = 0.0

    def next_wait(self, asked: float | None) -> float | None:
        """Seconds until the next try; None if there is none.

        Args:
            asked: what the server asks for; such a wait is no lost try, but there is a budget for them.
        """
        if asked is not None:
            if self.waited + asked > _WAIT_BUDGET:
                return None
            self.waited += asked
            return asked
        self.left -= 1
        return min(_LONGEST, math.ldexp(0.5, max(0, TRIES - 1 - self.left))) if self.left > 0 else None

    @property
    def attempt(self) -> int:
        """The number of the next try, of `TRIES`."""
        return TRIES - self.left + 1

    def renew(self) -> None:
        """The work got further: all tries are there again, and the one that just ended does not count."""
        self.left = TRIES + 1


def asked_wait(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that the server asks to wait: `Retry-After`, a number or a date, and `RateLimit` where nothing remains.

    The longer one, at least a second; None if it asks for nothing.
    """
    lower = {key.lower(): value for key, value in headers.items()}
    found = [
        seconds
        for seconds in (_retry_after(lower.get("retry-after", ""), now), _until_reset(lower.get("ratelimit", "")))
        if seconds is not None
    ]
    return max(1.0, *found) if found else None


def _retry_after(value: str, now: datetime) -> float | None:
    if match := _SECONDS.fullmatch(value):
        return float(match[1])
    try:
        until = parsedate_to_datetime(value)
    except (ValueError, IndexError, OverflowError):
        return None
    return (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - now.timestamp()


def _until_reset(value: str) -> float | None:
    """Of `"api";r=0;t=55`: the seconds `t` until the limit is renewed, if `r` requests, none, remain."""
    found = {match["key"]: int(match["value"]) for match in _LIMIT.finditer(value[:1000])}
    return float(found["t"]) if found.get("r") == 0 and "t" in found else None
