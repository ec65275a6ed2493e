"""Resources: what was applied, as versions that are only added."""

from collections.abc import Collection, Sequence
from typing import Protocol

from garrison.store.records import Event, Key, Resource

__all__ = ["ResourceStore"]


class ResourceStore(Protocol):
    def resources(self, *, stack: str | None = None, targets: Collection[str] | None = None) -> list[Resource]:
        """The latest version of each owned resource, by key; of one stack, or at some targets, where given."""

    def versions(self, key: Key) -> list[Resource]:
        """All versions that are kept, oldest first."""

    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        """Append a version each. The store numbers them, from 1 for a key it has nothing of."""
