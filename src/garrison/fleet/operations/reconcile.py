"""Reconciles the record with what is observed: settles killed commands, and writes tombstones of what is proved absent.

The order matters. Killed commands come first, since an adapter that one of them unloaded, and could not record, would
otherwise be reported as drift.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from garrison.fleet.context import Fleet
from garrison.fleet.observe.drift import Drift, find_drift_everywhere, tombstone
from garrison.fleet.operations.survey import Survey, recorded_for, survey
from garrison.fleet.plan.addresses import as_moved
from garrison.fleet.plan.interrupted import settle
from garrison.fleet.values import events
from garrison.fleet.values.causes import RESTARTED, UNLOADED
from garrison.fleet.values.cures import is_silent
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.failure import timed_out
from garrison.fleet.values.view import FleetView
from garrison.store.records import ActionRecord, ActionResult, ActionState, CommandState, Event, StackRecord

__all__ = ["survey_and_settle"]


async def survey_and_settle(
    fleet: Fleet,
    declaration: Declaration,
    view: FleetView,
    *,
    only: Collection[str] | None = None,
    as_applied: bool = False,
    running: Collection[str] = (),
    stack: StackRecord | None = None,
) -> Survey:
    """Survey a stack, and record what follows from it. The caller holds the stack's lease.

    Args:
        only, as_applied, stack: see `survey`.
        running: ids of commands that this process has in progress under the same lease; they were not killed.

    Raises:
        GarrisonError: the store failed.
    """
    found = await survey(fleet, declaration, view, only=only, as_applied=as_applied, record=True, stack=stack)
    if await _settle(fleet, found, running, view):
        found = await _read_again(fleet, found)
    return await _read_again(fleet, found) if await _write_tombstones(fleet, found) else found


async def _read_again(fleet: Fleet, found: Survey) -> Survey:
    recorded = await recorded_for(fleet, found.declaration.stack, found.targets, found.only)
    return replace(found, recorded=as_moved(recorded, found.moved))


async def _settle(fleet: Fleet, found: Survey, running: Collection[str], view: FleetView) -> bool:
    """Settle killed commands; return whether there were any. One with a target out of reach stays unfinished."""
    killed = await fleet.read(fleet.store.unfinished, found.declaration.stack, besides=running)
    for command, actions in killed:
        open_actions = [one for one in actions if one.state in (ActionState.PLANNED, ActionState.STARTED)]
        places = {one.key.target for one in open_actions}
        recorded = {
            one.key: one for one in await fleet.read(fleet.store.resources, stack=command.stack, targets=places)
        }
        known = {one.name for one in await fleet.read(fleet.store.targets, places)} | found.sightings.keys()
        now = fleet.clock.now()
        ends = settle(command.stack, open_actions, recorded, found.sightings, now, forgotten=places - known)
        settled = [
            ActionResult(action=end.action, resources=end.resources)
            for end in ends
            if end.action.state is not ActionState.STARTED  # that one was left as it is
        ]
        if settled:
            await fleet.db(fleet.store.save_actions, settled)
        left = await fleet.read(fleet.store.actions, command.id)
        waiting = sorted({one.key.target for one in left if one.state is ActionState.STARTED})
        if waiting:
            view.note(f"command {command.id} was cut short on {_away(waiting, found)}")
            continue
        if not any(_was_cut_short(one) for one in open_actions):
            await fleet.db(fleet.store.finish, replace(command, state=CommandState.FAILED, ended_at=now))
            continue
        told = Event(at=now, kind=events.INTERRUPTED, stack=command.stack, command=command.id, cause=command.kind)
        done = replace(command, state=CommandState.INTERRUPTED, ended_at=now)
        await fleet.db(fleet.store.finish, done, [told])
        view.note(f"command {command.id} ({command.kind}) was cut short; what it had begun is settled", "info")
    return bool(killed)


def _away(targets: Sequence[str], found: Survey) -> str:
    """Return the targets that prove nothing now: `edge-1, which is out of reach`."""
    silent = [name for name in targets if name not in found.sightings or is_silent(found.sightings[name].cause)]
    others = [name for name in targets if name not in silent]
    words = [f"{', '.join(silent)}, which is out of reach"] if silent else []
    words += [f"{', '.join(others)}, which is not usable"] if others else []
    return "; and on ".join(words)


def _was_cut_short(action: ActionRecord) -> bool:
    """Return whether nobody knows how the action ended. After a load without an answer in time, that was told."""
    return not timed_out(action.error)


async def _write_tombstones(fleet: Fleet, found: Survey) -> bool:
    """Write tombstones for adapters that were recorded as served and are proved absent; return whether any were."""
    served = [one for one in found.owned if one.operation.serves]
    missing: dict[str, list[Drift]] = {}
    for one in find_drift_everywhere(served, found.sightings.values()):
        if one.kind == "missing":
            missing.setdefault(one.resource.key.target, []).append(one)
    at = Counter(one.key.target for one in served)
    pairs = []
    restarts = await fleet.read(fleet.store.last_times, events.RESTARTED, missing) if missing else {}
    for target, gone in missing.items():
        since = min(one.resource.at for one in gone)
        restarted = (target in restarts and restarts[target] >= since) or _saw_restart(found, target)
        # If a server does not say when it started, all of several adapters gone at once means a restart.
        silent = found.records[target].capabilities.get("started_at") is None
        all_at_once = silent and len(gone) == at[target] > 1
        pairs += [tombstone(one, RESTARTED if restarted or all_at_once else UNLOADED) for one in gone]
    if pairs:
        await fleet.db(fleet.store.put, [version for version, _ in pairs], [told for _, told in pairs])
    return bool(pairs)


def _saw_restart(found: Survey, target: str) -> bool:
    """Return whether this survey saw the target restarted. That is not in the history yet."""
    pending = found.pending.get(target)
    return pending is not None and any(one.kind == events.RESTARTED for one in pending.events)
