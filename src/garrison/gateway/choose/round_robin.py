"""The policy `round-robin`: the targets take turns, in proportion to their weights."""

from random import random

from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.picking import Picking, is_ready, least_loaded
from garrison.gateway.choose.weights import Turns

__all__ = ["RoundRobin"]


class RoundRobin(Picking):
    """Turns go on where they were when the candidates are replaced. Who is passed over loses a turn."""

    __slots__ = ("_by_id", "_of", "_turns")

    def __init__(self) -> None:
        self._of: Candidates = ()
        self._by_id: dict[str, Candidate] = {}
        self._turns: Turns | None = None

    def best(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates) -> Candidate | None:
        turns = self._turns if candidates is self._of and self._turns is not None else self._follow(candidates)
        candidate = self._by_id[turns.next()]
        if _takes_turn(candidate, now, tried):
            return candidate
        name = turns.next_of(lambda name: _takes_turn(self._by_id[name], now, tried))
        return self._by_id[name] if name is not None else least_loaded(candidates, now, tried)

    def _follow(self, candidates: Candidates) -> Turns:
        weights = {candidate.id: candidate.weight for candidate in candidates}
        if self._turns is None:
            self._turns = Turns(weights)
        else:
            self._turns.reweigh(weights)
        self._by_id = {candidate.id: candidate for candidate in candidates}
        self._of = candidates
        return self._turns


def _takes_turn(candidate: Candidate, now: float, tried: Candidates) -> bool:
    """Return whether it is ready. In its slow start it takes as many turns as its effective weight gives it."""
    if not is_ready(candidate, now, tried):
        return False
    if candidate.recovered_at is None:
        return True
    return random() * candidate.weight < candidate.effective_weight(now)  # noqa: S311 - evenness, not a secret
