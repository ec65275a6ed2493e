"""How many requests a target may have outstanding before affinity no longer counts: a multiple of the mean load."""

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate, Candidates

__all__ = ["LoadBound"]

_FRESH_SECONDS = 0.1
_CHOICES_PER_COUNT = 8
"""A count of n targets is used for n/8 choices, so that each choice pays for eight of them, however many there are."""


class LoadBound:
    """The bound of one route. Between two counts it adds what was chosen, and does not see what has ended."""

    __slots__ = ("_factor", "_floor", "_load", "_of", "_until", "_uses", "_weight")

    def __init__(self, factor: float, floor: float = 0) -> None:
        """Set the bound.

        Args:
            factor: of the mean, above 1: with less, there would be times at which no target is within it.
            floor: requests that are within the bound whatever the mean is.
        """
        if not factor > 1:
            raise InvalidError(f"the load bound is {factor} of the mean", hint="Set it above 1, such as 1.25.")
        self._factor = factor
        self._floor = floor
        self._of: Candidates = ()
        self._until = 0.0
        self._uses = 0
        self._load = 0
        self._weight = 1.0

    def per_weight(self, candidates: Candidates, now: float) -> float:
        """Return the bound of a target of weight 1, for one choice."""
        if self._uses <= 0 or now >= self._until or candidates is not self._of:
            self._count(candidates, now)
        self._uses -= 1
        self._load += 1
        return self._factor * self._load / self._weight

    def allows(self, candidate: Candidate, per_weight: float, now: float) -> bool:
        """Return whether one more request keeps the target within its share, rounded up."""
        outstanding = candidate.outstanding
        return outstanding < per_weight * candidate.effective_weight(now) or outstanding < self._floor

    def _count(self, candidates: Candidates, now: float) -> None:
        load, weight = 0, 0.0
        for candidate in candidates:
            if candidate.warm and now >= candidate.breaker.passes_from:
                load += candidate.outstanding
                weight += candidate.effective_weight(now)
        self._of = candidates
        self._load = load
        self._weight = weight or 1.0
        self._uses = len(candidates) // _CHOICES_PER_COUNT
        self._until = now + _FRESH_SECONDS
