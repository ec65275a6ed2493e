"""Builds the inventory: all targets, adapters, base models and stacks on record, as they were last seen. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from garrison.fleet.observe.entry_faults import Faults
from garrison.fleet.observe.record_sighting import last_sighting
from garrison.fleet.operations.survey import with_memory
from garrison.fleet.report.fleet_status import fleet_status
from garrison.fleet.report.inventory_rows import UNMANAGED, AdapterRow, ModelRow, Reach, StackRow, TargetRow
from garrison.fleet.report.last_failure import LastFailure, Place
from garrison.fleet.report.public_names import PublicNames
from garrison.fleet.report.status import AdapterStatus
from garrison.fleet.values.cures import public_state
from garrison.fleet.values.declaration import ADAPTER_TYPE
from garrison.store.records import Key, Resource, StackRecord, TargetRecord

__all__ = ["Inventory", "take_stock"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All rows, by noun, sorted by target and name."""

    targets: tuple[TargetRow, ...]
    adapters: tuple[AdapterRow, ...]
    models: tuple[ModelRow, ...]
    stacks: tuple[StackRow, ...]


def take_stock(
    stacks: Sequence[StackRecord],
    targets: Sequence[TargetRecord],
    resources: Sequence[Resource],
    now: datetime,
    failures: Mapping[Place, LastFailure] | None = None,
    faults: Faults | None = None,
) -> Inventory:
    """Return the inventory.

    Args:
        resources: all owned resources.
        failures: see `last_failure.last_failures`.
        faults: see `entry_faults.entry_faults`.
    """
    named = PublicNames.of(stacks, resources)
    resources, targets = named.resources, [named.record(one) for one in targets]
    sightings = {one.name: with_memory(last_sighting(one), one) for one in targets}
    status = fleet_status(stacks, targets, resources, sightings, now=now, failures=failures, faults=faults, cached=True)
    records = {one.name: one for one in targets}
    owned = {one.key: one for one in resources}
    names = {(key.target, key.name) for key in owned}
    managed = [_managed(one, records.get(one.target), owned) for stack in status.stacks for one in stack.adapters]
    unmanaged = [row for record in targets for row in _unmanaged(record, names)]
    strangers = Counter(row.target for row in unmanaged)
    return Inventory(
        targets=tuple(
            TargetRow(
                status=replace(one, unmanaged=()), unmanaged=strangers[one.name], labels=_labels(records[one.name])
            )
            for one in status.targets
        ),
        adapters=tuple(sorted([*managed, *unmanaged], key=lambda row: (row.target, row.name, row.stack or ""))),
        models=tuple(row for one in status.targets for row in _models(records[one.name], one.stacks)),
        stacks=tuple(map(StackRow.of, status.stacks)),
    )


def _managed(status: AdapterStatus, record: TargetRecord | None, owned: Mapping[Key, Resource]) -> AdapterRow:
    resource = owned.get(Key(status.target, ADAPTER_TYPE, status.name))
    seen = _served(record).get(status.name) if resource is not None else None
    return AdapterRow(
        target=status.target,
        name=status.name,
        status=status.state,
        stack=status.stack,
        label=status.label,
        path=seen["root"] if seen else status.path,
        base=seen["parent"] if seen else resource.parent if resource else None,
        detail=status.detail,
        at=status.since,
        reach=_reach(record),
        labels=_labels(record),
    )


def _unmanaged(record: TargetRecord, owned: set[tuple[str, str]]) -> Iterator[AdapterRow]:
    seen = record.state == "reachable"
    for name, one in _served(record).items():
        if (record.name, name) not in owned:
            yield AdapterRow(
                target=record.name,
                name=name,
                status=UNMANAGED if seen else "unknown",
                path=one["root"],
                base=one["parent"],
                detail="" if seen else "unmanaged when the target was last seen",
                reach=_reach(record),
                labels=_labels(record),
            )


def _models(record: TargetRecord, stacks: tuple[str, ...]) -> Iterator[ModelRow]:
    for one in record.served:
        if one["parent"] is None:
            yield ModelRow(
                target=record.name,
                name=one["name"],
                status="served" if record.state == "reachable" else "unknown",
                path=one["root"],
                reach=_reach(record),
                stacks=stacks,
                labels=_labels(record),
            )


def _served(record: TargetRecord | None) -> dict[str, Mapping[str, Any]]:
    """Return the adapters in the last believed list, by name."""
    return {one["name"]: one for one in record.served if one["parent"] is not None} if record else {}


def _reach(record: TargetRecord | None) -> Reach:
    if record is None:
        return Reach(state="new", since=None, last_seen=None, cause=None)
    return Reach(
        state=public_state(record.state, record.cause),
        since=record.since,
        last_seen=record.last_seen,
        cause=record.cause,
        detail=record.detail,
    )


def _labels(record: TargetRecord | None) -> tuple[str, ...]:
    labels: Mapping[str, str] = record.spec.get("labels", {}) if record else {}
    return tuple(f"{name}={value}" for name, value in sorted(labels.items()))
