"""The policies that follow the declared order: `warm-first`, `pin` and `spill`."""

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.picking import Picking, first_passing, first_ready, least_loaded

__all__ = ["Pin", "Spill", "WarmFirst"]


class WarmFirst(Picking):
    """The first that is warm; if there is none, the first, which is then woken."""

    __slots__ = ()

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        return first_ready(candidates, now, tried)


class Pin(Picking):
    """Always the first, warm or cold; the others stand in while its breaker is open."""

    __slots__ = ()

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        return first_passing(candidates, now, tried)


class Spill(Picking):
    """The first until it has `limit` requests outstanding, then the next, which is woken if it is cold.

    When all are full it is the least loaded of the warm ones.
    """

    __slots__ = ("_limit",)

    def __init__(self, limit: int = 8) -> None:
        if not limit >= 1:
            raise InvalidError(
                f"the limit of the policy spill is {limit}, so nothing could be sent", hint="Set it to 1 or more."
            )
        self._limit = limit

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        for candidate in candidates:
            free = candidate.outstanding < self._limit
            if free and now >= candidate.breaker.passes_from and candidate not in tried:
                return candidate
        return least_loaded(candidates, now, tried)
