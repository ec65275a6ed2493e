"""Decides when to retry, and when not to. Pure: the caller draws the random number and does the waiting."""

import math
from dataclasses import dataclass

from garrison.fleet.values.failure import Failure

__all__ = ["RetryBudget", "RetryDecision", "decide_retry", "next_look"]

_FIRST_LOOK_SECONDS = 1.0
_LONGEST_DOUBLING = 30
"""Maximum number of doublings; keeps the power finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """Limits for the attempts of one step. Durations are in seconds.

    Attributes:
        attempts: maximum number of attempts, including the first.
        seconds: time since the first attempt began after which no wait may end.
        first: upper bound of the first wait; it doubles with each attempt.
        longest: upper bound of any wait.
        longest_asked: longest `Retry-After` to honor; if the server asks for more, there is no retry.
    """

    attempts: int = 4
    seconds: float = 60.0
    first: float = 0.5
    longest: float = 8.0
    longest_asked: float = 30.0


@dataclass(frozen=True, slots=True)
class RetryDecision:
    """Seconds to wait until the next attempt, or None to stop; `reason` says why, for display."""

    wait: float | None
    reason: str


def decide_retry(budget: RetryBudget, *, attempt: int, failure: Failure, elapsed: float, draw: float) -> RetryDecision:
    """Decide what follows a failed attempt: exponential backoff with full jitter, plus what the server asked for.

    Args:
        attempt: number of the failed attempt, from 1.
        failure: why it failed.
        elapsed: seconds since the first attempt began.
        draw: uniform in [0, 1).
    """
    if not failure.recoverable:
        return RetryDecision(None, "it would fail again")
    if attempt >= budget.attempts:
        return RetryDecision(None, f"{attempt} attempts")
    wait = draw * min(budget.longest, math.ldexp(budget.first, min(attempt - 1, _LONGEST_DOUBLING)))
    if failure.retry_after is not None:
        if failure.retry_after > budget.longest_asked:
            return RetryDecision(None, f"the server asked to wait {failure.retry_after:g} s")
        wait += failure.retry_after
    if elapsed + wait > budget.seconds:
        return RetryDecision(None, f"{elapsed:.0f} s of {budget.seconds:g} s used")
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
    """Return the seconds until the agent observes a target again.

    A healthy target is observed once per interval, up to a tenth earlier, so that a fleet is not observed all at once.
    A failing one is observed again soon, then less and less often; one that has just recovered, immediately.

    Args:
        failures: consecutive observations that were not believed, including the last.
        recovered: the last observation was believed, and the one before was not.
        retry_after: seconds that the server asked to wait; honored up to ten intervals.
        longest: upper bound of the backoff in seconds; the interval when None, so that a server that comes back is
            complete within one interval.
    """
    if failures == 0:
        return 0.0 if recovered else interval * (1 - 0.1 * draw)
    ceiling = interval if longest is None else longest
    backoff = min(ceiling, math.ldexp(_FIRST_LOOK_SECONDS, min(failures - 1, _LONGEST_DOUBLING))) * (0.5 + 0.5 * draw)
    return max(backoff, min(retry_after or 0.0, 10 * interval))
