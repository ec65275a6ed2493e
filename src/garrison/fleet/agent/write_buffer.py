"""What the agent has seen and not written yet. It is bounded by the number of targets, and by a number of events."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from garrison.base.errors import GarrisonError
from garrison.fleet.context import Fleet
from garrison.fleet.observe.record_sighting import Remembered
from garrison.store.records import Event, TargetRecord

__all__ = ["Unwritten"]

_MOST_EVENTS = 10_000


@dataclass(slots=True)
class Unwritten:
    """`calm`: when targets were seen unchanged. `dropped`: the oldest events, for which there was no room."""

    changed: dict[str, TargetRecord] = field(default_factory=dict)
    calm: dict[str, datetime] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    dropped: int = 0

    def __bool__(self) -> bool:
        return bool(self.changed or self.calm or self.events)

    @property
    def urgent(self) -> bool:
        """Whether there is more than times to write: those can wait for the end of a pass, and go in one piece."""
        return bool(self.changed or self.events)

    def saw(self, after: Remembered) -> None:
        name = after.record.name
        if after.changed:
            self.changed[name] = after.record
            self.calm.pop(name, None)
        elif after.record.last_checked is not None:
            self.calm[name] = after.record.last_checked
        self.tell(after.events)

    def tell(self, events: Iterable[Event]) -> None:
        self._keep([*self.events, *events] if events else self.events)

    async def write(self, fleet: Fleet, *, times: bool = True) -> list[TargetRecord]:
        """Write it; what could not be written is kept for the next attempt.

        Args:
            times: False keeps the times of calm targets for later.

        Returns:
            Calm targets that another process has recorded as unreachable, as they are on record. Their times are not
            written.

        Raises:
            GarrisonError: the store failed.
        """
        if self.changed or self.events:
            changed, told = self.changed, self.events
            self.changed, self.events = {}, []
            try:
                await fleet.db(fleet.store.sight, list(changed.values()), told)
            except GarrisonError:
                self.changed = changed | self.changed
                self._keep(told + self.events)
                raise
        if not self.calm:
            return []
        away = await fleet.read(fleet.store.unreachable, list(self.calm))
        for record in away:
            self.calm.pop(record.name, None)
        if not times:
            return away
        calm, self.calm = self.calm, {}
        try:
            await fleet.db(fleet.store.touch, calm)
        except GarrisonError:
            self.calm = {name: at for name, at in calm.items() if name not in self.changed} | self.calm
            raise
        return away

    def _keep(self, events: list[Event]) -> None:
        self.dropped += max(0, len(events) - _MOST_EVENTS)
        self.events = events[-_MOST_EVENTS:]
