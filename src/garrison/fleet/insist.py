"""Staying with a stack until nothing of it is owed any more."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from garrison.base.errors import ConflictError
from garrison.fleet.context import Fleet
from garrison.fleet.lease import hold
from garrison.fleet.mend import mend
from garrison.fleet.view import FleetView, Outcome
from garrison.store.records import ActionState, Key

__all__ = ["Insisted", "insist"]

_FIRST_WAIT = 1.0
_PURPOSE = "apply --watch"


@dataclass(frozen=True, slots=True)
class Insisted:
    """What was done while waiting, the last outcome of each adapter, and what is left: nothing, unless the stack has
    gone or what is left failed for good."""

    outcomes: tuple[Outcome, ...] = ()
    owed: int = 0


async def insist(
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
) -> Insisted:
    """Look at `targets` again and again, and do what is owed there as soon as they answer. The stack is held only while
    something is done, so that others can apply and the agent can do the same work.

    Args:
        owed: how many actions are, as far as is known.
        longest: seconds between two looks at most; they start at one and double while nothing moves.
        stopping: asked after each round; once true, it ends with what is left.
        waiting: told before each wait how much is owed and how long it takes.
    """
    found: dict[Key, Outcome] = {}
    hopeless: set[Key] = set()
    wait = _FIRST_WAIT
    while True:
        waiting(owed, wait)
        await sleep(wait * fleet.draws.uniform(0.8, 1.2))
        try:
            async with hold(fleet, stack, _PURPOSE):
                mended = await mend(fleet, stack, view, only=targets, hopeless=hopeless)
        except ConflictError:  # another command holds it, perhaps to do this very work
            wait = min(2 * wait, longest)
            continue
        if mended is None:
            return Insisted(tuple(found.values()))
        moved = [one for one in mended.outcomes if one.state is not ActionState.SKIPPED]
        found |= {one.action.key: one for one in moved}
        hopeless |= mended.failed.keys()
        unclear = sum(one.state is ActionState.STARTED for one in mended.outcomes)
        owed = mended.owed + unclear
        if not owed or stopping():
            return Insisted(tuple(found.values()), owed)
        wait = _FIRST_WAIT if moved else min(2 * wait, longest)
