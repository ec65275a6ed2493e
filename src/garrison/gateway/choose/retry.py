"""Whether a request that failed is sent once more, and where. A decision as a value."""

from dataclasses import dataclass
from enum import StrEnum

from garrison.gateway.choose.failure import Failure
from garrison.gateway.choose.retry_budget import RetryBudget

__all__ = ["Attempt", "GiveUp", "Retry", "WhyNot", "blames_target", "decide"]

_MOST_ATTEMPTS = 3
_MOST_ACCEPTED = 2
_FIRST_DELAY = 0.05
_LONGEST_DELAY = 1.0


class WhyNot(StrEnum):
    CANCELLED = "cancelled"
    """The client does not wait any more."""
    ANSWERED = "answered"
    """The client has part of an answer."""
    TIMED_OUT = "timed out"
    """The client has waited long enough, and the target may still be at it."""
    MAY_KILL = "may kill"
    """Two targets at most may be lost while they work on the same request."""
    ATTEMPTS = "attempts"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An attempt that failed.

    Attributes:
        number: 1 for the first.
        failure: how.
        answered: bytes of an answer went to the client.
        cancelled: the client has gone.
        reused: the connection had carried another request before.
        accepted: the target may have the whole request, so it may have begun with it.
    """

    number: int
    failure: Failure
    answered: bool = False
    cancelled: bool = False
    reused: bool = False
    accepted: bool = False

    @property
    def stale(self) -> bool:
        """Whether the target closed an idle connection just when it was used again, which is nobody's failure."""
        return self.reused and not self.accepted and not self.answered and self.failure is Failure.LOST


@dataclass(frozen=True, slots=True)
class Retry:
    """Send it again after `delay` seconds: to another target, or to the same over a new connection."""

    other_target: bool
    delay: float = 0.0


@dataclass(frozen=True, slots=True)
class GiveUp:
    reason: WhyNot


def decide(attempt: Attempt, budget: RetryBudget, now: float, *, draw: float = 1.0) -> Retry | GiveUp:
    """Decide, and take a retry from the budget if there is to be one.

    A stale connection costs none, nor does a target without a connection: nobody has worked on the request yet, so
    asking another target does not multiply the load.

    Args:
        draw: a random number from 0 to 1 that spreads the delays.
    """
    if attempt.cancelled:
        return GiveUp(WhyNot.CANCELLED)
    if attempt.answered:
        return GiveUp(WhyNot.ANSWERED)
    if attempt.failure is Failure.TIMEOUT:
        return GiveUp(WhyNot.TIMED_OUT)
    if attempt.number >= _MOST_ATTEMPTS:
        return GiveUp(WhyNot.ATTEMPTS)
    if attempt.stale:
        return Retry(other_target=False)
    if attempt.failure is Failure.LOST and attempt.accepted and attempt.number >= _MOST_ACCEPTED:
        return GiveUp(WhyNot.MAY_KILL)
    if attempt.failure is not Failure.CONNECT and not budget.take(now):
        return GiveUp(WhyNot.BUDGET)
    return Retry(other_target=True, delay=_delay(attempt.number, draw))


def blames_target(attempt: Attempt) -> bool:
    """Return whether the breaker of the target counts the failure."""
    return not attempt.cancelled and not attempt.stale


def _delay(number: int, draw: float) -> float:
    """Return 0 for the first retry, as its target has not failed; then what doubles, half of it spread by `draw`."""
    if number < 2:
        return 0.0
    return min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** (number - 2)) * (1 + draw) / 2
