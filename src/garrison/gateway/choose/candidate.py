"""One target of a route, as a worker of the gateway sees it."""

import math
from collections.abc import Sequence
from typing import TypeAlias

from garrison.base.errors import InvalidError
from garrison.gateway.choose.breaker import Breaker
from garrison.gateway.choose.slow_start import ramped

__all__ = ["Candidate", "Candidates"]

_SLOW_START_SECONDS = 30.0


class Candidate:
    """A target to choose. It is compared by identity, and may stand in several routes, which then see its whole load.

    Attributes:
        id: stays the same when the route table is replaced.
        weight: its share of the route, relative to the others.
        outstanding: requests that it has been sent and has not finished. The caller counts.
        warm: it can answer now; a cold one must be activated first.
        breaker: of the target.
        recovered_at: when its breaker closed; None if that is long ago.
        slow_start: seconds after a recovery until it has its whole weight again.
    """

    __slots__ = ("breaker", "id", "outstanding", "recovered_at", "slow_start", "warm", "weight")

    def __init__(
        self,
        id: str,
        weight: float = 1.0,
        *,
        warm: bool = True,
        breaker: Breaker | None = None,
        slow_start: float = _SLOW_START_SECONDS,
    ) -> None:
        if not 0 < weight < math.inf:
            raise InvalidError(
                f"target {id!r} has the weight {weight}, which is not a number above 0",
                hint="To send it nothing, leave it out of the route.",
            )
        self.id = id
        self.weight = weight
        self.outstanding = 0
        self.warm = warm
        self.breaker = breaker or Breaker()
        self.recovered_at: float | None = None
        self.slow_start = slow_start

    def effective_weight(self, now: float) -> float:
        """Return the weight, which is smaller for a while after a recovery."""
        if self.recovered_at is None:
            return self.weight
        since = now - self.recovered_at
        if since >= self.slow_start:
            self.recovered_at = None
        return ramped(self.weight, since, self.slow_start)

    def succeeded(self, now: float, generation: int) -> None:
        """Count an answer to a request that was let through in `generation` of the breaker."""
        if self.breaker.succeeded(now, generation):
            self.recovered_at = now

    def __repr__(self) -> str:
        return f"<Candidate {self.id}: {self.outstanding} outstanding>"


Candidates: TypeAlias = Sequence[Candidate]
