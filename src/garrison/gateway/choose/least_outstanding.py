"""The policy `least-outstanding`: the target with the fewest requests outstanding for its weight.

Of up to sixteen targets it looks at all. Of more it looks at four that it draws, so that a choice among a thousand
costs no more. Workers, which do not know of each other's requests, then do not all send theirs to the same one.
"""

from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.draws import Draws
from garrison.gateway.choose.picking import Picking, least_loaded

__all__ = ["LeastOutstanding"]

_LOOKS_AT_ALL_OF = 16
_DRAWN = 4


class LeastOutstanding(Picking):
    __slots__ = ("_draws",)

    def __init__(self) -> None:
        self._draws = Draws()

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        if len(candidates) > _LOOKS_AT_ALL_OF:
            found = least_loaded(self._draws.some(candidates, _DRAWN), now, tried)
            if found is not None:
                return found
        return least_loaded(candidates, now, tried)
