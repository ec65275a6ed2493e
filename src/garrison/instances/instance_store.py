"""The seam to what is kept about instances."""

from collections.abc import Sequence
from typing import Protocol

from garrison.instances.values.record import InstanceRecord
from garrison.store.records import Event

__all__ = ["InstanceStore"]


class InstanceStore(Protocol):
    """Calls block on the disk; the manager makes them on a thread, one at a time and in order."""

    def load(self) -> list[InstanceRecord]:
        """Return every instance."""

    def create(self, record: InstanceRecord, events: Sequence[Event]) -> InstanceRecord:
        """Store a new instance and return it with its id.

        Raises:
            ConflictError: there is one of that name.
        """

    def save(self, records: Sequence[InstanceRecord], events: Sequence[Event]) -> None:
        """Replace what is stored about these instances, by id, and append events, in one transaction."""

    def delete(self, record: InstanceRecord, events: Sequence[Event]) -> None:
        """Forget an instance."""
