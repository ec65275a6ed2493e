"""When to try again, and when not to. Values in, values out; who calls draws the random number and does the waiting."""

import math
from dataclasses import dataclass

from garrison.fleet.failure import Failure

__all__ = ["RetryBudget", "RetryDecision", "decide_retry", "next_look"]

_FIRST_LOOK_SECONDS = 1.0
_LONGEST_DOUBLING = 30
"""Doublings after which nothing grows any more; keeps the power finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """What one step may spend.

    Attributes:
        attempts: in all, the first included.
        seconds: since the first began; no wait ends later than that.
        first: seconds, the upper bound of the first wait; it doubles with each attempt.
        longest: seconds, the upper bound of any wait.
        longest_asked: seconds; a server that asks for more is not waited for.
    """

    attempts: int = 4
    seconds: float = 60.0
    first: float = 0.5
    longest: float = 8.0
    longest_asked: float = 30.0


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """`wait`: seconds until the next attempt; None: there is none. `reason` says why, for people."""

    wait: float | None
    reason: str


def decide_retry(budget: RetryBudget, *, attempt: int, failure: Failure, elapsed: float, draw: float) -> RetryDecision:
    """What follows a failed attempt: exponential backoff with full jitter, never sooner than the server asked for.

    Args:
        attempt: which one failed, from 1.
        elapsed: seconds since the first began.
        draw: uniform in [0, 1).
    """
    if not failure.recoverable:
        return RetryDecision(None, "it would fail again")
    if attempt >= budget.attempts:
        return RetryDecision(None, f"{attempt} attempts")
    wait = draw * min(budget.longest, math.ldexp(budget.first, min(attempt - 1, _LONGEST_DOUBLING)))
    if failure.retry_after is not None:
        if failure.retry_after > budget.longest_asked:
            return RetryDecision(None, f"the server asks to be left alone for {failure.retry_after:g} s")
        wait += failure.retry_after
    if elapsed + wait > budget.seconds:
        return RetryDecision(None, f"{elapsed:.0f} s of {budget.seconds:g} s are spent")
    return RetryDecision(wait, f"attempt {attempt + 1} of {budget.attempts}")


def next_look(
    interval: float,
    draw: float,
    *,
    failures: int = 0,
    recovered: bool = False,
    retry_after: float | None = None,
    longest: float | None = None,
) -> float:
    """Seconds until the agent looks at a target again.

    A calm target is looked at once an interval, up to a tenth sooner, so that a fleet does not knock all at once. One
    that fails is looked at again soon, then less and less often; one that has just recovered, at once.

    Args:
        failures: looks in a row that could not be believed, the last included.
        recovered: the last look was believed and the one before was not.
        retry_after: seconds the server asked for; it gets them, up to ten intervals.
        longest: seconds; the interval when None, so that a server that comes back is whole within one.
    """
    if failures == 0:
        return 0.0 if recovered else interval * (1 - 0.1 * draw)
    ceiling = interval if longest is None else longest
    backoff = min(ceiling, math.ldexp(_FIRST_LOOK_SECONDS, min(failures - 1, _LONGEST_DOUBLING))) * (0.5 + 0.5 * draw)
    return max(backoff, min(retry_after or 0.0, 10 * interval))
