"""Finds actions that failed permanently and have not been retried since, from the history."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from garrison.fleet.values import events
from garrison.store.fleet_store import FleetStore
from garrison.store.records import Event, StackRecord

__all__ = ["LastFailure", "Place", "last_failures", "read_failures"]

_MOST_EVENTS = 20_000

Place = tuple[str, str, str]
"""(stack, target, name)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastFailure:
    """The last action on an adapter, which failed."""

    at: datetime
    message: str
    hint: str | None = None


def last_failures(told: Iterable[Event]) -> dict[Place, LastFailure]:
    """Return the failures by place, for adapters whose newest event is a failure although their target answered.

    Args:
        told: `action-done` and `action-failed` events, newest first.
    """
    seen: set[Place] = set()
    found: dict[Place, LastFailure] = {}
    for event in told:
        place = (event.stack or "", event.target or "", event.name or "")
        if place in seen:
            continue
        seen.add(place)
        failed: Mapping[str, str] = event.after or {}
        # With a `cause` the target became unreachable: the action is owed, and has not failed.
        if event.kind == events.ACTION_FAILED and failed.get("message") and not failed.get("cause"):
            found[place] = LastFailure(at=event.at, message=failed["message"], hint=failed.get("hint"))
    return found


def read_failures(store: FleetStore, stacks: Iterable[StackRecord]) -> dict[Place, LastFailure]:
    """Read the failures from the newest events since the oldest of `stacks` was applied.

    Whatever failed before that has been applied again since.
    """
    since = min((one.at for one in stacks), default=None)
    if since is None:
        return {}
    kinds = (events.ACTION_DONE, events.ACTION_FAILED)
    return last_failures(store.events(kinds=kinds, since=since, limit=_MOST_EVENTS))
