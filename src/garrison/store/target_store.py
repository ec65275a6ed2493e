"""Targets: how they are declared, and how they were observed."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from garrison.store.records import Event, Observation, TargetRecord

__all__ = ["TargetStore"]


class TargetStore(Protocol):
    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        """Return targets, by name; all if `names` is None."""

    def targets_at(self, base_urls: Collection[str]) -> list[TargetRecord]:
        """Return the targets whose specs have one of these addresses, spelled exactly so, by name."""

    def unreachable(self, names: Collection[str]) -> list[TargetRecord]:
        """Return those of `names` that are on record as unreachable, by name. Cheap if few targets are."""

    def respecify(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        """Replace the specs of targets, except of those that have been forgotten since."""

    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        """Store how targets were observed: all fields except `spec` and `declared_at`.

        A change also becomes an observation, dated `last_checked`. Targets that have been forgotten since are skipped;
        so are those that have another `base_url` on record, since another server was observed, with their own events.
        """

    def touch(self, times: Mapping[str, datetime]) -> list[str]:
        """Set `last_seen` and `last_checked` of targets that were observed unchanged. Cheap for thousands.

        Args:
            times: by name of the target.

        Returns:
            Names of targets on record as unreachable. They are not touched, since another process saw them otherwise.
        """

    def forget(self, target: str, at: datetime, event: Event) -> int:
        """Drop the target. Resources owned there get a version `forgotten`, with the event's command and cause.

        Returns:
            The number of resources that were owned there.
        """

    def to_tidy(self) -> list[str]:
        """Return names of targets that some stack stopped declaring, until they are `tidied` or dropped.

        Perhaps no stack needs them any more, or they have settings that no remaining stack declares.
        """

    def tidied(self, names: Collection[str]) -> None:
        """Remove targets from the list of `to_tidy`."""

    def drop_targets(self, names: Collection[str]) -> None:
        """Remove targets from the record, except those that a stack declares or at which something is owned by now:
        another command may have declared them since the caller read the record."""

    def observations(
        self, *, target: str | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Observation]:
        """Return observations, newest first."""
