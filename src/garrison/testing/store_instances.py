"""Instances in the in-memory store."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from garrison.base.errors import ConflictError
from garrison.store.instance_store import InstanceRow
from garrison.store.records import Event
from garrison.testing.store_state import MemoryState, locked

__all__ = ["InstancesInMemory"]


class InstancesInMemory(MemoryState):
    """The part of `MemoryStore` that knows instances."""

    @locked
    def instances(self, node: str) -> list[InstanceRow]:
        return sorted((one for one in self._instances.values() if one.node == node), key=lambda one: one.name)

    @locked
    def create_instance(self, row: InstanceRow, events: Iterable[Event] = ()) -> InstanceRow:
        if any((one.node, one.name) == (row.node, row.name) for one in self._instances.values()):
            raise ConflictError(f"instance {row.name!r} exists already", details={"instance": row.name})
        self._last_instance += 1
        self._instances[self._last_instance] = made = replace(row, id=self._last_instance)
        self._add(events)
        return made

    @locked
    def save_instances(self, rows: Sequence[InstanceRow], events: Iterable[Event] = ()) -> None:
        for one in rows:
            if (known := self._instances.get(one.id)) is not None:
                self._instances[one.id] = replace(one, name=known.name, node=known.node, created=known.created)
        self._add(events)

    @locked
    def delete_instance(self, id: int, events: Iterable[Event] = ()) -> None:
        self._instances.pop(id, None)
        self._add(events)
