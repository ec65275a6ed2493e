"""Candidates for tests of the gateway's choices."""

from collections import Counter

from garrison.gateway.choose.breaker import Breaker
from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.policy import Policy


def some(*loads: int, weights: tuple[float, ...] = ()) -> tuple[Candidate, ...]:
    """Return candidates `t0`, `t1`, … with so many requests outstanding each."""
    found = tuple(Candidate(f"t{n}", weights[n] if weights else 1.0) for n in range(len(loads)))
    for candidate, load in zip(found, loads, strict=True):
        candidate.outstanding = load
    return found


def trip(candidate: Candidate, now: float = 0.0) -> None:
    """Open its breaker; half open one second later."""
    candidate.breaker = Breaker()
    while candidate.breaker.may_pass(now):
        candidate.breaker.failed(now, candidate.breaker.generation)


def counted(
    policy: Policy, candidates: Candidates, times: int, key: bytes | None = None, now: float = 0.0
) -> Counter[str]:
    """Return how often each was chosen for requests that end at once."""
    chosen = [policy.order(candidates, key, now) for _ in range(times)]
    return Counter(one.id for one in chosen if one is not None)
