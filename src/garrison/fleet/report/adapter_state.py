"""Decides the state of each adapter of a stack. Values, no I/O."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.observe.drift import Drift, find_drift
from garrison.fleet.observe.entry_faults import Faults, words
from garrison.fleet.plan.differences import differences
from garrison.fleet.report.last_failure import LastFailure, Place
from garrison.fleet.report.status import LAST_SEEN_WELL, AdapterStatus
from garrison.fleet.values.causes import OWED
from garrison.fleet.values.cures import when_due
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.observation import Cause, Presence, Sighting
from garrison.store.records import Operation, Resource, StackRecord

__all__ = ["stack_adapters"]

_NOT_ASKED = ("on-demand", "loaded when a request asks for it")


def stack_adapters(
    record: StackRecord,
    declaration: Declaration,
    owned: Iterable[Resource],
    sightings: Mapping[str, Sighting],
    failures: Mapping[Place, LastFailure],
    faults: Faults,
) -> list[AdapterStatus]:
    """Return the adapters that the stack declares or owns, sorted by target and name.

    Args:
        declaration: the one in `record`.
        owned: the resources of this stack.
        sightings, failures, faults: see `fleet_status.fleet_status`.
    """
    wanted = {} if record.ending else {(one.target, one.lora_name): one for one in declaration.adapters}
    applied = {(one.key.target, one.key.name): one for one in owned}
    restore = declaration.policy.on_drift == "restore"
    found = []
    for place in sorted(wanted.keys() | applied.keys()):
        want, own = wanted.get(place), applied.get(place)
        state, detail = _state(place[1], want, own, sightings.get(place[0]), restore=restore)
        if state == "served" and own is not None and (fault := faults.get(own.served_path)) is not None:
            state, detail = _faulty(own.served_path, fault)
        one = AdapterStatus(
            stack=record.name,
            target=place[0],
            name=place[1],
            label=want.label if want else own.label if own else place[1],
            state=state,
            detail=detail,
            path=own.served_path if own else None,
            since=own.at if own else None,
        )
        failure = failures.get((record.name, place[0], want.served_name if want else place[1]))
        found.append(_failed(one, failure, record, sightings.get(place[0])))
    return found


def _failed(
    one: AdapterStatus, failure: LastFailure | None, record: StackRecord, seen: Sighting | None
) -> AdapterStatus:
    """Turn `one` into `failed` if the last failure explains why it is not served as declared."""
    if failure is None or seen is None or not seen.known or one.state not in ("owed", "missing", "on-demand"):
        return one
    # A failure before the last apply, or before the adapter's current version, is superseded.
    if failure.at < record.at or (one.since is not None and failure.at < one.since):
        return one
    return replace(one, state="failed", detail=failure.message, hint=failure.hint)


def _state(
    name: str, wanted: AdapterDeclaration | None, owned: Resource | None, seen: Sighting | None, *, restore: bool
) -> tuple[str, str]:
    """Return the state, and the reason for display."""
    if seen is None or not seen.known:
        return _unseen(wanted, owned, when_due(seen.cause if seen else None), restore=restore)
    if seen.lora_routes is False and seen.presence(name) is not Presence.PRESENT:
        return "unknown", f"{Cause.NO_LORA_ROUTES}: the target cannot load adapters at run time"
    if wanted is not None and wanted.on_demand and seen.adapter(name) is None:
        return _NOT_ASKED
    if owned is None:
        return "owed", "declared, but not loaded yet"
    drifts = find_drift([owned], seen)
    if wanted is None:
        return "owed", "no longer declared, but not unloaded yet"
    if drifts:
        return _drifted(drifts[0])
    if _changed(wanted, owned):
        return "owed", "declared differently than last applied"
    return "served", ""


def _unseen(wanted: AdapterDeclaration | None, owned: Resource | None, due: str, *, restore: bool) -> tuple[str, str]:
    """Return state and reason of an adapter on an unobserved target: what is owed there, else its last known state.

    Args:
        due: when that is done which is owed.
    """
    if wanted is None:
        return "owed", f"will be unloaded {due}"
    if owned is None:
        return _NOT_ASKED if wanted.on_demand else ("owed", f"will be loaded {due}")
    if owned.operation is Operation.LOST:
        if restore or owned.cause in OWED or _changed(wanted, owned):
            return "owed", f"will be loaded {due}"
        return "unknown", "missing when the target was last seen"
    if _changed(wanted, owned):
        return "owed", f"will be updated {due}"
    return "unknown", LAST_SEEN_WELL


def _faulty(path: str, fault: EntryFault) -> tuple[str, str]:
    detail = f"{words(path, fault)}; the next apply or pass of the agent serves it from a new one"
    return ("owed" if fault is EntryFault.SHARED else "drifted"), detail


def _drifted(drift: Drift) -> tuple[str, str]:
    if drift.observed is not None:
        return "drifted", drift.words
    gone = drift.resource
    if gone.operation is Operation.LOST:
        return "missing", f"gone since {gone.at:%Y-%m-%d %H:%M:%S} UTC" + (f" ({gone.cause})" if gone.cause else "")
    return "missing", drift.words


def _changed(wanted: AdapterDeclaration, owned: Resource) -> bool:
    """Return whether the declaration changed since the last apply, except for the label, which no target sees."""
    return any(change.field != "label" for change in differences(wanted, owned))
