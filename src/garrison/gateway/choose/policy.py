"""Policies by name."""

from collections.abc import Callable
from inspect import signature
from typing import Protocol

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate, Candidates
from garrison.gateway.choose.consistent_hash import ConsistentHash
from garrison.gateway.choose.in_order import Pin, Spill, WarmFirst
from garrison.gateway.choose.least_outstanding import LeastOutstanding
from garrison.gateway.choose.power_of_two import PowerOfTwo
from garrison.gateway.choose.prefix_affinity import PrefixAffinity
from garrison.gateway.choose.round_robin import RoundRobin
from garrison.gateway.choose.sticky import Sticky

__all__ = ["DEFAULT_POLICY", "POLICIES", "Policy", "policy_of"]


class Policy(Protocol):
    """How the targets of one route are chosen. It may remember, so each route has its own."""

    def order(self, candidates: Candidates, key: bytes | None, now: float, tried: Candidates = ()) -> Candidate | None:
        """Return the best target, and let one request through its breaker; None if no breaker lets one through.

        Args:
            candidates: in declared order. Another sequence if anything but load, warmth or breakers changed.
            key: what requests that belong together have in common.
            now: monotonic seconds.
            tried: those where the request has failed. They are not chosen again.
        """


DEFAULT_POLICY = "least-outstanding"

POLICIES: dict[str, Callable[..., Policy]] = {
    DEFAULT_POLICY: LeastOutstanding,
    "power-of-two": PowerOfTwo,
    "round-robin": RoundRobin,
    "hash": ConsistentHash,
    "prefix": PrefixAffinity,
    "sticky": Sticky,
    "warm-first": WarmFirst,
    "pin": Pin,
    "spill": Spill,
}


def policy_of(name: str = DEFAULT_POLICY, **options: float) -> Policy:
    """Return a new policy.

    Raises:
        InvalidError: there is no policy of that name, it has no such option, or the option has no such value.
    """
    make = POLICIES.get(name)
    if make is None:
        raise InvalidError(f"there is no policy {name!r}", hint=f"Use one of: {', '.join(POLICIES)}.")
    known = signature(make).parameters
    if unknown := [option for option in options if option not in known]:
        has = f"It has: {', '.join(known)}." if known else "It has none."
        raise InvalidError(f"the policy {name} has no option {', '.join(unknown)}", hint=has)
    for option, value in options.items():
        # A bool is an int too, and means nothing here.
        allowed = (int,) if isinstance(known[option].default, int) else (int, float)
        if type(value) not in allowed:
            raise InvalidError(
                f"the option {option} of the policy {name} is {value!r}",
                hint=f"Give {'a whole number' if allowed == (int,) else 'a number'}.",
            )
    return make(**options)
