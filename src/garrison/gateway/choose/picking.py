"""What all policies have in common: who can be chosen at all, and the one place that lets a request through.

A cold target is chosen only when no warm one can be, and then it is the first: requests that come while it starts
wait for the same one, instead of waking another each. `pin` and `spill` wake targets in their own order.
"""

import math
from abc import ABC, abstractmethod
from random import random

from garrison.gateway.choose.candidate import Candidate, Candidates

__all__ = ["Picking", "first_passing", "first_ready", "is_ready", "least_loaded"]


class Picking(ABC):
    """A policy. A subclass says which is the best of several candidates."""

    __slots__ = ()

    def order(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates = ()) -> Candidate | None:
        if len(candidates) > 1:
            chosen = self.best(candidates, key, now, tried) or first_passing(candidates, now, tried)
        elif candidates and candidates[0] not in tried:
            chosen = candidates[0]
        else:
            return None
        return chosen if chosen is not None and chosen.breaker.may_pass(now) else None

    @abstractmethod
    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        """Return the best of two or more, without letting anything through; None if none of them is ready."""


def is_ready(candidate: Candidate, now: float, tried: Candidates) -> bool:
    return candidate.warm and now >= candidate.breaker.passes_from and candidate not in tried


def first_ready(candidates: Candidates, now: float, tried: Candidates) -> Candidate | None:
    for candidate in candidates:
        if is_ready(candidate, now, tried):
            return candidate
    return None


def first_passing(candidates: Candidates, now: float, tried: Candidates) -> Candidate | None:
    """Return the first, warm or cold, whose breaker lets a request through."""
    for candidate in candidates:
        if now >= candidate.breaker.passes_from and candidate not in tried:
            return candidate
    return None


def least_loaded(candidates: Candidates, now: float, tried: Candidates) -> Candidate | None:
    """Return the ready one with the least load, at random among equals. One pass.

    The load is that with the request itself, so that of two idle ones the heavier is less loaded, and one that has just
    recovered is not preferred for being idle.
    """
    best, least, equals = None, math.inf, 0
    for candidate in candidates:
        load = (candidate.outstanding + 1) / candidate.weight
        if load > least:  # first, since it spares most of them the rest; a recovering one has only more
            continue
        if not candidate.warm or now < candidate.breaker.passes_from or (tried and candidate in tried):
            continue
        if candidate.recovered_at is not None:
            load = (candidate.outstanding + 1) / candidate.effective_weight(now)
        if load < least:
            best, least, equals = candidate, load, 1
        elif load == least:
            equals += 1
            if random() * equals < 1:  # noqa: S311 - evenness, not a secret
                best = candidate
    return best
