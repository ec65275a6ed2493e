"""The policy `hash`: consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam).

A key goes to the target that follows it on the ring, or to the next one that is within the bound.
"""

from itertools import islice

from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.least_outstanding import LeastOutstanding
from garrison.gateway.choose.load_bound import LoadBound
from garrison.gateway.choose.picking import Picking, is_ready
from garrison.gateway.choose.ring import Ring, point_of

__all__ = ["ConsistentHash"]

_STEPS = 512
"""With nearly all targets down, looking at each of them once is cheaper than to walk the ring."""


class ConsistentHash(Picking):
    """A request without a key goes to the least loaded target."""

    __slots__ = ("_bound", "_least", "_of", "_ring")

    def __init__(self, bound: float = 1.25) -> None:
        self._bound = LoadBound(bound)
        self._ring = Ring()
        self._least = LeastOutstanding()
        self._of: Candidates = ()

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        if key is None:
            return self._least.best(candidates, key, now, tried)
        if candidates is not self._of:
            self._ring.follow(candidates)
            self._of = candidates
        per_weight = self._bound.per_weight(candidates, now)
        for candidate in islice(self._ring.walk(point_of(key)), _STEPS):
            if is_ready(candidate, now, tried) and self._bound.allows(candidate, per_weight, now):
                return candidate
        return self._least.best(candidates, key, now, tried)
