"""Resources: what was applied, as versions that are only appended."""

from collections.abc import Collection, Sequence
from typing import Protocol

from garrison.store.records import Event, Key, Resource

__all__ = ["ResourceStore"]


class ResourceStore(Protocol):
    def resources(self, *, stack: str | None = None, targets: Collection[str] | None = None) -> list[Resource]:
        """Return the latest version of each owned resource, by key; only of `stack` and at `targets`, if given."""

    def versions(self, key: Key) -> list[Resource]:
        """Return all versions on record, oldest first."""

    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        """Append a version each. The store numbers them; the first version of a key is 1."""
