"""Settles actions whose command was killed. No I/O.

The intention was recorded before the effect, so an observation of the target shows how far the action came.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from garrison.fleet.values.causes import INTERRUPTED, OWED
from garrison.fleet.values.observation import Served, Sighting
from garrison.store.records import ActionRecord, ActionState, Key, Operation, Resource

__all__ = ["Settled", "settle"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The settled action and the versions it makes. `action` stays `started` while its target cannot be observed."""

    action: ActionRecord
    resources: tuple[Resource, ...] = ()


def settle(
    stack: str,
    actions: Iterable[ActionRecord],
    recorded: Mapping[Key, Resource],
    sightings: Mapping[str, Sighting],
    now: datetime,
    *,
    forgotten: Collection[str] = (),
) -> list[Settled]:
    """Settle each unfinished action, in order.

    A load or delete that happened is recorded as done; one that did not is left to the next plan. An update that was
    interrupted between its unload and its load leaves a tombstone with the cause `interrupted`, so that the adapter is
    loaded again and not reported as drift. A version that was loaded beside another one is recorded as not probed,
    unless it is on record already: then its probe had answered. An action on a target that was `forgotten` since has
    failed, since the target will never be observed again.
    """
    return [
        Settled(action=_ended(action, ActionState.FAILED, now))
        if action.state is ActionState.STARTED and action.key.target in forgotten
        else _one(stack, action, recorded, sightings.get(action.key.target), now)
        for action in actions
    ]


def _one(
    stack: str, action: ActionRecord, recorded: Mapping[Key, Resource], seen: Sighting | None, now: datetime
) -> Settled:
    own = recorded.get(action.key)
    own = own if own is not None and own.stack == stack else None
    if action.state is ActionState.PLANNED:  # never begun, so no observation is needed to settle it
        skipped = replace(action, state=ActionState.SKIPPED, ended_at=now)
        return Settled(action=skipped, resources=tuple(_asked_again(own, action, now)))
    if seen is None or not seen.known:
        return Settled(action=action)
    there = seen.adapter(action.key.name)
    resources: list[Resource] = []
    # The path proves the load, even if the process was killed before it saw the answer.
    if action.after is not None and there is not None and there.root == action.after["served_path"]:
        operation = Operation.CREATED if action.before is None else Operation.UPDATED
        if not (_beside(action) and own is not None and own.operation.serves and own.served_path == there.root):
            resources.append(_version(stack, action, there, operation, now))
        resources += _old_name(action, recorded, seen, now)
        return Settled(action=_ended(action, ActionState.DONE, now), resources=tuple(resources))
    resources += _asked_again(own, action, now)
    if _beside(action):
        resources += _old_name(action, recorded, seen, now)
    if there is None and own is not None and own.operation.serves:
        operation = Operation.DELETED if action.after is None else Operation.LOST
        resources.append(_gone(own, operation, action, now))
    done = action.after is None and there is None
    return Settled(
        action=_ended(action, ActionState.DONE if done else ActionState.FAILED, now), resources=tuple(resources)
    )


def _beside(action: ActionRecord) -> bool:
    """Return whether the action loads a version under a name of its own, and unloads another one."""
    return "name" in (action.before or {}) and bool((action.after or {}).get("spec", {}).get("versioned"))


def _asked_again(own: Resource | None, action: ActionRecord, now: datetime) -> Iterable[Resource]:
    """Mark a tombstone that the action was to load again as owed, whatever its cause was before."""
    if own is not None and own.operation is Operation.LOST and action.after is not None and own.cause not in OWED:
        yield _gone(own, Operation.LOST, action, now)


def _old_name(
    action: ActionRecord, recorded: Mapping[Key, Resource], seen: Sighting, now: datetime
) -> Iterable[Resource]:
    """Record a replaced name as deleted if it is gone; otherwise the next plan deletes it."""
    before = action.before or {}
    name = before.get("name")
    if name in (None, action.key.name):
        return
    old = recorded.get(replace(action.key, name=str(name)))
    if old is not None and seen.adapter(str(name)) is None:
        yield _gone(old, Operation.DELETED, action, now)


def _version(stack: str, action: ActionRecord, there: Served, operation: Operation, now: datetime) -> Resource:
    assert action.after is not None
    return Resource(
        key=action.key,
        stack=stack,
        label=action.label,
        operation=operation,
        spec=action.after["spec"],
        served_path=action.after["served_path"],
        parent=there.parent,
        at=now,
        command=action.command,
        cause=INTERRUPTED,
    )


def _gone(resource: Resource, operation: Operation, action: ActionRecord, now: datetime) -> Resource:
    return replace(resource, operation=operation, at=now, command=action.command, cause=INTERRUPTED)


def _ended(action: ActionRecord, state: ActionState, now: datetime) -> ActionRecord:
    killed = action.error or {"code": "Interrupted", "message": "the command was killed"}
    error = None if state is ActionState.DONE else killed
    return replace(action, state=state, ended_at=now, error=error)
