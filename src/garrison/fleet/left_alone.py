"""What the agent leaves alone for a while: what failed for good, and what somebody keeps undoing. No I/O.

Nothing is left alone for ever: files may come later, a server may be started with other limits, and who fought us may
give up.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from garrison.fleet.causes import RESTARTED
from garrison.fleet.view import Outcome
from garrison.store.records import ActionState, Key, Operation

__all__ = ["LeftAlone", "undone_by_somebody"]

_LONGEST = 3600.0
_FIRST_INTERVALS = 10
"""For what failed for good."""
_PEACE_INTERVALS = 3
"""What is not undone for so long after a pause is no fight any more."""


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


class LeftAlone:
    """Seconds are those of the clock's monotonic time."""

    def __init__(self) -> None:
        self._failed: dict[str, dict[tuple[str, Key], _Failed]] = {}
        self._fights: dict[str, dict[Key, _Fight]] = {}

    def failed(self, stack: str, key: Key, circumstances: object, *, now: float, interval: float) -> None:
        """It failed for good for `stack`: ten intervals, doubled up to an hour each time it fails again."""
        here = self._failed.setdefault(key.target, {})
        before = here.get((stack, key))
        if before is None or before.circumstances != circumstances:
            wait = min(_LONGEST, _FIRST_INTERVALS * interval)
        elif now < before.until:  # it was not tried
            return
        else:
            wait = min(_LONGEST, 2 * before.wait)
        here[stack, key] = _Failed(circumstances, wait, now + wait)

    def restored(self, key: Key, *, now: float, interval: float) -> int:
        """What somebody had undone is as applied again. How many times in a row: from the second on it is left alone,
        for an interval, doubled up to an hour."""
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
        """What is left alone now; what failed only as long as its circumstances are the same."""
        failed = {
            key
            for (owner, key), one in self._failed.get(target, {}).items()
            if owner == stack and now < one.until and one.circumstances == circumstances(key)
        }
        return failed | {key for key, one in self._fights.get(target, {}).items() if now < one.until}

    def until(self, target: str, *, now: float) -> float:
        """When something on the target is to be tried again; infinity when nothing is left alone."""
        ends = [one.until for one in self._failed.get(target, {}).values()]
        ends += [one.until for one in self._fights.get(target, {}).values()]
        return min((end for end in ends if end > now), default=float("inf"))

    def went_away(self, target: str) -> None:
        """The target was out of reach: it may be another server that comes back."""
        self._failed.pop(target, None)

    def keep(self, targets: Collection[str]) -> None:
        """Drop what is on others than `targets`."""
        for kept in (self._failed, self._fights):
            for gone in kept.keys() - targets:
                del kept[gone]


def undone_by_somebody(one: Outcome) -> bool:
    """Whether it restored what somebody had unloaded or overwritten; what a restart took is nobody's doing."""
    recorded = one.action.recorded
    restarted = recorded is not None and recorded.operation is Operation.LOST and recorded.cause == RESTARTED
    return one.state is ActionState.DONE and one.action.drift and one.action.acts and not restarted
