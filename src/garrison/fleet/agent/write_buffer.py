"""Buffers what the agent has seen until it is written. Bounded by the number of targets, and by a number of events."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from garrison.base.errors import GarrisonError
from garrison.fleet.context import Fleet
from garrison.fleet.observe.record_sighting import Remembered
from garrison.store.records import Event, TargetRecord

__all__ = ["WriteBuffer"]

_MOST_EVENTS = 10_000


@dataclass(slots=True)
class WriteBuffer:
    """What is not written yet.

    Attributes:
        changed: records of targets that a look changed.
        calm: when targets were last seen unchanged.
        events: oldest first.
        dropped: number of events, the oldest, for which there was no room.
        unchecked: calm targets that were seen since `write` last asked whether another process could reach them.
    """

    changed: dict[str, TargetRecord] = field(default_factory=dict)
    calm: dict[str, datetime] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    dropped: int = 0
    unchecked: set[str] = field(default_factory=set)
    _writing: "asyncio.Task[None] | None" = field(default=None, init=False, repr=False)

    def __bool__(self) -> bool:
        return bool(self.urgent or self.calm)

    @property
    def urgent(self) -> bool:
        """Whether there is more to write than times. Those can wait and be written together."""
        return bool(self.changed or self.events or self._writing)

    def saw(self, after: Remembered) -> None:
        """Add a sighting: the record if it changed, otherwise only the time."""
        name = after.record.name
        if after.changed:
            self.changed[name] = after.record
            self.calm.pop(name, None)
        elif after.record.last_checked is not None:
            self.saw_calm(name, after.record.last_checked)
        self.add(after.events)

    def saw_calm(self, target: str, at: datetime) -> None:
        """Add a sighting that changed nothing but the time."""
        self.calm[target] = at
        self.unchecked.add(target)

    def add(self, events: Iterable[Event]) -> None:
        """Add events to the history."""
        self._keep([*self.events, *events] if events else self.events)

    async def write(self, fleet: Fleet, *, times: bool = True) -> list[TargetRecord]:
        """Write the buffer. What cannot be written is kept for the next attempt.

        A write that is in progress when the caller is cancelled goes on, and the next call waits for it first.

        Args:
            times: whether to write the times of calm targets too.

        Returns:
            The records of calm targets that another process has recorded as unreachable. Their times are not written.

        Raises:
            GarrisonError: the store failed.
        """
        if self._writing is not None:
            await asyncio.shield(self._writing)
        if self.changed or self.events:
            await self._write_changes(fleet)
        away = await self._recorded_as_away(fleet) if self.unchecked else []
        if times and self.calm:
            await self._write_times(fleet)
        return away

    async def _write_changes(self, fleet: Fleet) -> None:
        changed, events = self.changed, self.events
        self.changed, self.events = {}, []

        async def store() -> None:
            try:
                await fleet.db(fleet.store.sight, list(changed.values()), events)
            except GarrisonError:
                self.changed = changed | self.changed
                self._keep(events + self.events)
                raise
            finally:
                self._writing = None

        # A task of its own: after a cancel it cannot be told whether the store's thread still makes the call, and the
        # history would lack the events, or have them twice.
        self._writing = asyncio.create_task(store())
        self._writing.add_done_callback(_heard)
        await asyncio.shield(self._writing)

    async def _recorded_as_away(self, fleet: Fleet) -> list[TargetRecord]:
        """Ask about the targets that were seen since the last time, not about all whose times wait to be written."""
        asked, self.unchecked = self.unchecked, set()
        try:
            away = await fleet.read(fleet.store.unreachable, list(asked))
        except GarrisonError:
            self.unchecked |= asked
            raise
        for record in away:
            self.calm.pop(record.name, None)
        return away

    async def _write_times(self, fleet: Fleet) -> None:
        calm, self.calm = self.calm, {}
        try:
            await fleet.db(fleet.store.touch, calm)
        except GarrisonError:
            self.calm = {name: at for name, at in calm.items() if name not in self.changed} | self.calm
            raise

    def _keep(self, events: list[Event]) -> None:
        self.dropped += max(0, len(events) - _MOST_EVENTS)
        self.events = events[-_MOST_EVENTS:]


def _heard(writing: "asyncio.Task[None]") -> None:
    """Retrieve the error; its caller may have been cancelled, and asyncio would report it."""
    if not writing.cancelled():
        writing.exception()
