"""Implements `apply --watch`: repeats until no action of a stack is owed."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from garrison.base.errors import ConflictError
from garrison.fleet.context import Fleet
from garrison.fleet.execute.lease import hold
from garrison.fleet.operations.repair import repair
from garrison.fleet.values.view import FleetView, Outcome
from garrison.store.records import ActionState, Key

__all__ = ["WatchResult", "watch"]

_FIRST_WAIT = 1.0
_PURPOSE = "apply --watch"


@dataclass(frozen=True, slots=True)
class WatchResult:
    """The last outcome of each adapter, and how many actions are still owed.

    Actions remain owed only if the caller stopped the watch, or if they failed permanently.
    """

    outcomes: tuple[Outcome, ...] = ()
    owed: int = 0


async def watch(
    fleet: Fleet,
    stack: str,
    view: FleetView,
    *,
    targets: Collection[str],
    owed: int,
    longest: float = 30.0,
    waiting: Callable[[int, float], None] = lambda _owed, _seconds: None,
    stopping: Callable[[], bool] = lambda: False,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> WatchResult:
    """Observe `targets` repeatedly, and carry out owed actions as soon as the targets answer.

    The stack is held only during each round, so that other commands can apply and the agent can do the same work in
    between.

    Args:
        owed: number of owed actions, as far as known.
        longest: maximum seconds between two rounds; the wait begins at one second and doubles while nothing changes.
        waiting: called before each wait with the number of owed actions and the seconds to wait.
        stopping: checked after each round; when true, the watch ends.
        sleep: waits between rounds.
    """
    found: dict[Key, Outcome] = {}
    hopeless: set[Key] = set()
    wait = _FIRST_WAIT
    while True:
        waiting(owed, wait)
        await sleep(wait * fleet.draws.uniform(0.8, 1.2))  # jitter, so that several watches do not run in step
        try:
            async with hold(fleet, stack, _PURPOSE):
                repaired = await repair(fleet, stack, view, only=targets, hopeless=hopeless)
        except ConflictError:  # another command holds the stack, possibly doing the same work
            if stopping():
                return WatchResult(tuple(found.values()), owed)
            wait = min(2 * wait, longest)
            continue
        if repaired is None:
            return WatchResult(tuple(found.values()))
        moved = [one for one in repaired.outcomes if one.state is not ActionState.SKIPPED]
        found |= {one.action.key: one for one in moved}
        hopeless |= repaired.failed.keys()
        # An action that may or may not have been carried out is settled in the next round.
        unclear = sum(one.state is ActionState.STARTED for one in repaired.outcomes)
        owed = repaired.owed + unclear
        if not owed or stopping():
            return WatchResult(tuple(found.values()), owed)
        wait = _FIRST_WAIT if moved else min(2 * wait, longest)
