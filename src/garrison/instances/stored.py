"""Instances in the database: specs and costs as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from garrison.instances.values.record import Costs, InstanceRecord
from garrison.instances.values.sleep import SleepRecord
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.instances.values.state import Condition, State
from garrison.net.endpoint import Secret
from garrison.store.instance_store import InstanceRow
from garrison.store.instance_store import InstanceStore as Rows
from garrison.store.records import Event

__all__ = ["StoredInstances", "spec_from_json", "spec_to_json"]


_SLEEP = "sleep"
_COSTS = frozenset(one.name for one in fields(Costs))


class StoredInstances:
    """`InstanceStore` for one machine.

    Args:
        node: the name of the machine; several may share a database.
    """

    def __init__(self, rows: Rows, node: str) -> None:
        self._rows = rows
        self._node = node

    def load(self) -> list[InstanceRecord]:
        return [_record(row) for row in self._rows.instances(self._node)]

    def create(self, record: InstanceRecord, events: Sequence[Event]) -> InstanceRecord:
        return replace(record, id=self._rows.create_instance(self._row(record), events).id)

    def save(self, records: Sequence[InstanceRecord], events: Sequence[Event]) -> None:
        self._rows.save_instances([self._row(one) for one in records], events)

    def delete(self, record: InstanceRecord, events: Sequence[Event]) -> None:
        self._rows.delete_instance(record.id, events)

    def _row(self, record: InstanceRecord) -> InstanceRow:
        return InstanceRow(
            id=record.id,
            name=record.spec.name,
            node=self._node,
            spec=spec_to_json(record.spec),
            state=str(record.condition.state),
            since=record.condition.since,
            reason=record.condition.reason,
            created=record.created,
            updated=record.updated,
            wanted=record.wanted,
            port=record.port,
            revision=record.revision,
            costs=asdict(record.costs) | {_SLEEP: record.sleep.to_json()},
        )


def spec_to_json(spec: InstanceSpec) -> dict[str, Any]:
    """A spec as the database keeps it: what differs from the defaults."""
    empty = InstanceSpec(name=spec.name)
    found: dict[str, Any] = {}
    for one in fields(spec):
        value = getattr(spec, one.name)
        if one.name != "name" and value != getattr(empty, one.name):
            found[one.name] = list(value) if isinstance(value, tuple) else value
    if spec.secrets:
        found["secrets"] = {name: one.to_json() for name, one in spec.secrets.items()}
    if spec.custom is not None:
        custom = spec.custom
        found["custom"] = {"argv": list(custom.argv), "ready_path": custom.ready_path, "apis": sorted(custom.apis)}
    return found


def spec_from_json(name: str, content: Mapping[str, Any]) -> InstanceSpec:
    """The inverse of `spec_to_json`. Fields of a later program are ignored."""
    known = {one.name for one in fields(InstanceSpec)}
    given = {key: value for key, value in content.items() if key in known}
    for key in ("executable", "devices"):
        if key in given:
            given[key] = tuple(given[key])
    if "secrets" in given:
        given["secrets"] = {key: Secret.from_json(one) for key, one in given["secrets"].items()}
    if (custom := given.get("custom")) is not None:
        given["custom"] = CustomServer(tuple(custom["argv"]), custom["ready_path"], frozenset(custom["apis"]))
    return InstanceSpec(name=name, **given)


def _record(row: InstanceRow) -> InstanceRecord:
    return InstanceRecord(
        id=row.id,
        spec=spec_from_json(row.name, row.spec),
        condition=Condition(State(row.state), row.since, row.reason),
        created=row.created,
        updated=row.updated,
        wanted=row.wanted,
        port=row.port,
        revision=row.revision,
        costs=Costs(**{name: value for name, value in row.costs.items() if name in _COSTS}),
        sleep=SleepRecord.from_json(row.costs.get(_SLEEP, {})),
    )
