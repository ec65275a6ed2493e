"""The policy `power-of-two`: the less loaded of two targets that are drawn by weight."""

from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.draws import Draws
from garrison.gateway.choose.least_outstanding import LeastOutstanding
from garrison.gateway.choose.picking import Picking, least_loaded

__all__ = ["PowerOfTwo"]


class PowerOfTwo(Picking):
    """If neither may be sent a request, it is as with `least-outstanding`."""

    __slots__ = ("_draws", "_least")

    def __init__(self) -> None:
        self._draws = Draws()
        self._least = LeastOutstanding()

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        if len(candidates) > 2:
            # The third is for the case that the second is the first once more.
            first, second, third = self._draws.some(candidates, 3)
            found = least_loaded((first, third if second is first else second), now, tried)
            if found is not None:
                return found
        return self._least.best(candidates, key, now, tried)
