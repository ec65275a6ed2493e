"""Backoff of the agent: adapters it leaves alone for a while, since they fail or keep being undone. No I/O.

Nothing is left alone forever: files may appear later, a server may be restarted with other limits, and another
controller may stop undoing the agent's work.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from garrison.fleet.values.causes import RESTARTED
from garrison.fleet.values.view import Outcome
from garrison.store.records import ActionState, Key, Operation

__all__ = ["Backoff", "undone_by_somebody"]

_LONGEST = 3600.0
_FIRST_INTERVALS = 10
"""First wait after a permanent failure, in intervals of the policy."""
_PEACE_INTERVALS = 3
"""An adapter that is not undone for this many intervals after a pause starts from zero again."""


@dataclass(slots=True)
class _Failed:
    circumstances: object
    wait: float
    until: float


@dataclass(slots=True)
class _Fight:
    restores: int
    wait: float
    until: float


class Backoff:
    """Adapters to leave alone, by target. All times are monotonic seconds."""

    def __init__(self) -> None:
        self._failed: dict[str, dict[tuple[str, Key], _Failed]] = {}
        self._fights: dict[str, dict[Key, _Fight]] = {}

    def failed(
        self, stack: str, key: Key, circumstances: object, *, now: float, interval: float, passing: bool = False
    ) -> None:
        """Record a failure for `stack`.

        The adapter is left alone for ten intervals; each further failure under the same circumstances doubles the wait,
        up to an hour.

        Args:
            passing: it may pass: a full disk, a load that takes too long. Then it is tried again at once; after that
                the waits begin with one interval.
        """
        here = self._failed.setdefault(key.target, {})
        before = here.get((stack, key))
        if before is None or before.circumstances != circumstances:
            wait = 0.0 if passing else min(_LONGEST, _FIRST_INTERVALS * interval)
        elif now < before.until:  # it was not tried
            return
        else:
            wait = min(_LONGEST, 2 * before.wait or interval)
        here[stack, key] = _Failed(circumstances, wait, now + wait)

    def succeeded(self, stack: str, key: Key) -> None:
        """Forget the failures of an adapter."""
        self._failed.get(key.target, {}).pop((stack, key), None)

    def restored(self, key: Key, *, now: float, interval: float) -> int:
        """Record that an adapter undone from outside was restored; return how many times in a row.

        From the second time on it is left alone for an interval, doubled each time up to an hour.
        """
        here = self._fights.setdefault(key.target, {})
        fight = here.get(key)
        if fight is None or now - fight.until > max(fight.wait, _PEACE_INTERVALS * interval):
            here[key] = _Fight(1, 0.0, now)
            return 1
        fight.restores += 1
        fight.wait = min(_LONGEST, 2 * fight.wait or interval)
        fight.until = now + fight.wait
        return fight.restores

    def keys(self, stack: str, target: str, circumstances: Callable[[Key], object], *, now: float) -> set[Key]:
        """Return the adapters to leave alone now. A failed one is retried at once if its circumstances changed."""
        failed = {
            key
            for (owner, key), one in self._failed.get(target, {}).items()
            if owner == stack and now < one.until and one.circumstances == circumstances(key)
        }
        return failed | {key for key, one in self._fights.get(target, {}).items() if now < one.until}

    def until(self, target: str, *, now: float) -> float:
        """Return when the next adapter on the target is due for a retry; infinity if none is left alone."""
        ends = [one.until for one in self._failed.get(target, {}).values()]
        ends += [one.until for one in self._fights.get(target, {}).values()]
        return min((end for end in ends if end > now), default=float("inf"))

    def went_away(self, target: str) -> None:
        """Drop the failures on a target that was unreachable: another server may come back in its place."""
        self._failed.pop(target, None)

    def keep(self, targets: Collection[str]) -> None:
        """Drop everything on targets other than `targets`."""
        for kept in (self._failed, self._fights):
            for gone in [name for name in kept if name not in targets]:  # `kept` is small, the fleet is not
                del kept[gone]


def undone_by_somebody(one: Outcome) -> bool:
    """Return whether the action repaired an outside change; an adapter lost in a restart was not undone by anyone."""
    recorded = one.action.recorded
    restarted = recorded is not None and recorded.operation is Operation.LOST and recorded.cause == RESTARTED
    return one.state is ActionState.DONE and one.action.drift and one.action.acts and not restarted
