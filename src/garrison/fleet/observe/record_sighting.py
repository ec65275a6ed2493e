"""Updates the record of a target from an observation. No I/O."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from garrison.fleet.values import events
from garrison.fleet.values.observation import Capabilities, Cause, Served, Sighting
from garrison.store.records import Event, TargetRecord

__all__ = ["Remembered", "last_sighting", "remember", "served_of"]

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """The updated record and the events of the change.

    `changed` is False if only the times differ; then `FleetStore.touch` is enough.
    """

    record: TargetRecord
    events: tuple[Event, ...] = ()
    changed: bool = True


def remember(
    record: TargetRecord, seen: Sighting, managed: Collection[str], *, wanted: Collection[str] | None = None
) -> Remembered:
    """Return `record` updated from the observation `seen`.

    A believed list replaces the last one. An observation that was not believed only changes the target's state and
    cause: what was last served stays on record, because unknown is not absent.

    Args:
        managed: names of adapters that any stack owns on this target; their changes are drift, reported elsewhere.
        wanted: names of all adapters that should be served here; None if the caller does not know them all. If one is
            missing and the target cannot load adapters, the target is reachable with the cause `no-lora-routes`.
    """
    if not seen.known:
        return _out_of_reach(record, seen)
    before, restarted = served_of(record), _restarted(record, seen)
    capabilities = _merged(record.capabilities, seen.capabilities)
    detail = _cannot_load(record, seen, capabilities, wanted)
    cause = str(Cause.NO_LORA_ROUTES) if detail else None
    told: list[Event] = []  # one event per transition, not one per observation
    if cause and record.cause != cause:
        before_it = {"cause": record.cause} if record.cause else None
        told.append(
            _event(seen, events.UNREACHABLE, cause=cause, before=before_it, after={"cause": cause, "detail": detail})
        )
    elif record.cause not in (None, "", Cause.NOT_RUNNING) and not cause:
        told.append(_event(seen, events.RECOVERED, before={"cause": record.cause, "since": _time(record)}))
    if restarted:
        assert seen.capabilities is not None
        was = {"started_at": record.capabilities.get("started_at")}
        told.append(_event(seen, events.RESTARTED, before=was, after={"started_at": seen.capabilities.started_at}))
    if record.last_seen is not None:  # at the first observation, existing adapters are not news
        told += _unmanaged_changes(before, seen, managed)
    same_served = before == seen.served
    changed = bool(told) or not same_served or record.state != "reachable" or record.base != seen.base
    changed = changed or capabilities != dict(record.capabilities) or record.detail != detail
    updated = replace(
        record,
        state="reachable",
        cause=cause,
        detail=detail,
        since=record.since if record.state == "reachable" else seen.at,
        last_seen=seen.at,
        last_checked=seen.at,
        base=seen.base,
        served=record.served if same_served else tuple(_served_json(one) for one in seen.served.values()),
        capabilities=capabilities,
    )
    return Remembered(record=updated, events=tuple(told), changed=changed)


def served_of(record: TargetRecord) -> dict[str, Served]:
    """Return the last believed list, by name."""
    return {one["name"]: Served(one["name"], one["root"], one["parent"]) for one in record.served}


def last_sighting(record: TargetRecord) -> Sighting:
    """Return the record as a sighting at `last_checked`, for views that do not observe targets."""
    at = record.last_checked or record.declared_at
    if record.state == "reachable":
        return Sighting(target=record.name, at=at, served=served_of(record), base=record.base)
    cause = Cause(record.cause) if record.cause else Cause.NEVER_ASKED
    return Sighting(target=record.name, at=at, cause=cause, detail=record.detail or "never asked")


def _out_of_reach(record: TargetRecord, seen: Sighting) -> Remembered:
    assert seen.cause is not None
    after: dict[str, Any] = {"cause": str(seen.cause), "detail": seen.detail}
    told: tuple[Event, ...] = ()
    if seen.cause is Cause.NOT_RUNNING:
        pass  # no outage: the events of the instance say why it does not run
    elif record.state != "unreachable" or record.cause == Cause.NOT_RUNNING:
        told = (_event(seen, events.UNREACHABLE, cause=str(seen.cause), after=after),)
    elif record.cause != seen.cause:
        told = (_event(seen, events.CHANGED, cause=str(seen.cause), before={"cause": record.cause}, after=after),)
    updated = replace(
        record,
        state="unreachable",
        cause=str(seen.cause),
        detail=seen.detail,
        since=record.since if record.state == "unreachable" else seen.at,
        last_checked=seen.at,
    )
    return Remembered(record=updated, events=told)


def _cannot_load(
    record: TargetRecord, seen: Sighting, capabilities: Mapping[str, Any], wanted: Collection[str] | None
) -> str:
    """Describe the adapters missing on a target whose run-time LoRA is off; empty if none is missing."""
    if capabilities.get("lora_routes") is not False:
        return ""
    if wanted is None:
        return record.detail if record.cause == Cause.NO_LORA_ROUTES else ""
    missing = sorted(name for name in wanted if seen.adapter(name) is None)
    if not missing:
        return ""
    names = ", ".join(missing[:_MOST_NAMED]) + (f" and {more} more" if (more := len(missing) - _MOST_NAMED) > 0 else "")
    return f"run-time LoRA is off, so these adapters are not served and cannot be loaded: {names}"


def _restarted(record: TargetRecord, seen: Sighting) -> bool:
    was = record.capabilities.get("started_at")
    now = seen.capabilities.started_at if seen.capabilities else None
    return was is not None and now is not None and was != now


def _unmanaged_changes(before: Mapping[str, Served], seen: Sighting, managed: Collection[str]) -> list[Event]:
    told = []
    for name in sorted(before.keys() | seen.served.keys()):
        old, new = before.get(name), seen.served.get(name)
        if name in managed or old == new:
            continue
        cause = "appeared" if old is None else "gone" if new is None else "changed"
        told.append(
            _event(
                seen,
                events.CHANGED,
                name=name,
                cause=cause,
                before=_served_json(old) if old else None,
                after=_served_json(new) if new else None,
            )
        )
    return told


def _merged(old: Mapping[str, Any], new: Capabilities | None) -> dict[str, Any]:
    """Merge probed capabilities: a value missing from the probe is kept, unless another process answers now."""
    if new is None:
        return dict(old)
    fresh = new.to_json()
    if new.started_at is not None and new.started_at != old.get("started_at"):
        return fresh
    return dict(old) | {name: value for name, value in fresh.items() if value is not None}


def _served_json(one: Served) -> dict[str, Any]:
    return {"name": one.name, "root": one.root, "parent": one.parent}


def _time(record: TargetRecord) -> str | None:
    return record.since.isoformat() if record.since else None


def _event(seen: Sighting, kind: str, **values: Any) -> Event:
    return Event(at=seen.at, kind=kind, target=seen.target, **values)
