"""Targets: how they are declared, and how they were seen."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from garrison.store.records import Event, Observation, TargetRecord

__all__ = ["TargetStore"]


class TargetStore(Protocol):
    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        """By name; all when None."""

    def targets_at(self, base_urls: Collection[str]) -> list[TargetRecord]:
        """Targets on record at one of these addresses, as they are spelled in their specs. By name."""

    def unreachable(self, names: Collection[str]) -> list[TargetRecord]:
        """Those of `names` that are on record as unreachable, by name. Cheap where few targets are."""

    def respecify(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        """Replace the specs of targets. Targets that have been forgotten in the meantime are skipped."""

    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        """Store how targets were seen: all fields but `spec` and `declared_at`. Targets that have been forgotten in the
        meantime are skipped. A change becomes an observation, dated `last_checked`."""

    def touch(self, times: Mapping[str, datetime]) -> list[str]:
        """Set `last_seen` and `last_checked` of targets that were seen again, unchanged, by name. Cheap for thousands.

        Returns:
            Those on record as unreachable, by name. They are left alone: somebody else saw something else.
        """

    def forget(self, target: str, at: datetime, event: Event) -> int:
        """Drop the target. What is owned there gets a version `forgotten`, with the event's command and cause.

        Returns:
            How many resources were owned there.
        """

    def to_tidy(self) -> list[str]:
        """Targets that some stack stopped declaring, by name, until `tidied` or dropped. They may be needed by nobody,
        or have settings that no remaining stack declares."""

    def tidied(self, names: Collection[str]) -> None:
        """Take targets off that list."""

    def drop_targets(self, names: Collection[str]) -> None:
        """Remove the rows of targets. A target that a stack declares by now, or at which something is owned, stays:
        another command may have declared it since the caller looked."""

    def observations(
        self, *, target: str | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Observation]:
        """Newest first."""
