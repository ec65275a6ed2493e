"""Draws candidates at random in proportion to their weights, at a cost that hardly grows with their number."""

from itertools import accumulate
from random import choices

from garrison.gateway.choose.candidate import Candidate, Candidates

__all__ = ["Draws"]


class Draws:
    """A table of the weights of one sequence of candidates, made again for another sequence."""

    __slots__ = ("_edges", "_of")

    def __init__(self) -> None:
        self._of: Candidates = ()
        self._edges: list[float] | None = None

    def some(self, candidates: Candidates, count: int) -> list[Candidate]:
        """Return `count` of them; one may be drawn twice."""
        if candidates is not self._of:
            equal = len({candidate.weight for candidate in candidates}) == 1
            self._edges = None if equal else list(accumulate(candidate.weight for candidate in candidates))
            self._of = candidates
        return choices(candidates, cum_weights=self._edges, k=count)  # noqa: S311 - evenness, not a secret
