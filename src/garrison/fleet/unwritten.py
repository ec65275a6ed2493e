"""What the agent has seen and not written down yet. Bounded: by the targets, and by a number of events."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from garrison.base.errors import GarrisonError
from garrison.fleet.context import Fleet
from garrison.fleet.remember import Remembered
from garrison.store.records import Event, TargetRecord

__all__ = ["Unwritten"]

_MOST_EVENTS = 10_000


@dataclass(slots=True)
class Unwritten:
    """`calm`: targets that were seen unchanged. `dropped`: the oldest events, for which there was no room."""

    changed: dict[str, TargetRecord] = field(default_factory=dict)
    calm: set[str] = field(default_factory=set)
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
            self.calm.discard(name)
        else:
            self.calm.add(name)
        self.tell(after.events)

    def tell(self, events: Iterable[Event]) -> None:
        self._keep([*self.events, *events] if events else self.events)

    async def write(self, fleet: Fleet) -> list[TargetRecord]:
        """Write it; what could not be written is kept for the next attempt.

        Returns:
            How calm targets are on record that another process has written down as unreachable: they are not touched.

        Raises:
            GarrisonError: the store fails.
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
        calm, self.calm = self.calm, set()
        try:
            away = await fleet.db(fleet.store.touch, calm, fleet.clock.now())
            return await fleet.db(fleet.store.targets, away) if away else []
        except GarrisonError:
            self.calm |= calm - self.changed.keys()
            raise

    def _keep(self, events: list[Event]) -> None:
        self.dropped += max(0, len(events) - _MOST_EVENTS)
        self.events = events[-_MOST_EVENTS:]
