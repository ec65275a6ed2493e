"""The circuit breaker of one target.

    closed    ── failures in a row ──►  open       ── cool-down over ──►  half open, where one request is let through
    half open ── the probe fails ────►  open       for twice as long, up to a bound
    half open ── the probe succeeds ─►  closed

Every change of state, and every probe, begins a new generation. An outcome counts only in the generation in which its
request was let through, so a request that was sent before the breaker opened neither closes it nor ends a probe.
"""

import math
from dataclasses import dataclass
from enum import StrEnum

from garrison.base.errors import InvalidError

__all__ = ["ALWAYS", "Breaker", "BreakerLimits", "BreakerState"]

ALWAYS = -math.inf
"""`passes_from` of a closed breaker."""


class BreakerState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """When a breaker opens, and for how long. Times are in seconds.

    Attributes:
        failures: in a row that open it.
        cool_down: after it has opened; doubles with each failed probe.
        longest: bound of the cool-down.
        probe: after which a probe without an outcome makes room for another one.
    """

    failures: int = 5
    cool_down: float = 1.0
    longest: float = 30.0
    probe: float = 30.0

    def __post_init__(self) -> None:
        if self.failures < 1 or not 0 < self.cool_down <= self.longest or self.probe <= 0:
            raise InvalidError(
                f"these limits of a circuit breaker cannot be used: {self}",
                hint="Allow at least 1 failure, times above 0, and a cool-down no longer than its bound.",
            )


_DEFAULT = BreakerLimits()


class Breaker:
    """Whether a target is sent requests.

    Attributes:
        passes_from: the time from which a request may pass. Comparing with it asks without taking the probe.
        failures: in a row. While there are none and the breaker is closed, an answer changes nothing.
        generation: read it when a request was let through, and give it back with the outcome.
    """

    __slots__ = ("_cool_down", "_limits", "_probing", "failures", "generation", "passes_from")

    def __init__(self, limits: BreakerLimits = _DEFAULT) -> None:
        self.passes_from = ALWAYS
        self.generation = 0
        self._limits = limits
        self.failures = 0
        self._cool_down = 0.0
        self._probing = False

    def may_pass(self, now: float) -> bool:
        """Let a request through or not. On a half-open breaker, the one that is let through is the probe."""
        if now < self.passes_from:
            return False
        if self.passes_from != ALWAYS:
            self.passes_from = now + self._limits.probe
            self.generation += 1
            self._probing = True
        return True

    def succeeded(self, now: float, generation: int) -> bool:
        """Count an answer. Return whether it closed the breaker, which means that the target has recovered."""
        if generation != self.generation:
            return False
        self.failures = 0
        if self.passes_from == ALWAYS:
            return False
        self._cool_down = 0.0
        self._begin(ALWAYS)
        return True

    def failed(self, now: float, generation: int) -> bool:
        """Count a failure. Return whether it opened the breaker."""
        if generation != self.generation:
            return False
        self.failures += 1
        if self.passes_from == ALWAYS and self.failures < self._limits.failures:
            return False
        self.failures = 0
        self._cool_down = min(self._limits.longest, max(self._limits.cool_down, 2 * self._cool_down))
        self._begin(now + self._cool_down)
        return True

    def cancelled(self, now: float, generation: int) -> None:
        """Note a request that ended without an outcome: nothing is counted, and the next one may be the probe."""
        if generation == self.generation and self._probing:
            self._begin(now)

    def state(self, now: float) -> BreakerState:
        if self.passes_from == ALWAYS:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probing or now >= self.passes_from else BreakerState.OPEN

    def _begin(self, passes_from: float) -> None:
        self.passes_from = passes_from
        self.generation += 1
        self._probing = False
