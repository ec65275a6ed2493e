"""Instances of this machine: what each is, and how it was last known."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from garrison.store.records import Event

__all__ = ["InstanceRow", "InstanceStore"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow:
    """One instance.

    Attributes:
        id: a number that is never used again; 0 before it is stored.
        node: the machine that it belongs to, so that several may share a database.
        spec: JSON; the rooms above know what it means.
        state, since, reason: its condition when it was written.
        wanted: it should be running.
        revision: counts changes of `spec`.
        costs: JSON: what its starts have cost.
    """

    name: str
    node: str
    spec: Mapping[str, Any]
    state: str
    since: datetime
    reason: str
    created: datetime
    updated: datetime
    wanted: bool = False
    port: int | None = None
    revision: int = 1
    costs: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0


class InstanceStore(Protocol):
    def instances(self, node: str) -> list[InstanceRow]:
        """Return the instances of a machine, by name."""

    def create_instance(self, row: InstanceRow, events: Iterable[Event] = ()) -> InstanceRow:
        """Store a new instance and return it with its id.

        Raises:
            ConflictError: the machine has one of that name.
        """

    def save_instances(self, rows: Sequence[InstanceRow], events: Iterable[Event] = ()) -> None:
        """Replace rows by id, and append to the history, in one transaction. A row that is gone stays gone."""

    def delete_instance(self, id: int, events: Iterable[Event] = ()) -> None:
        """Delete an instance, if it still exists."""
