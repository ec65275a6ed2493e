"""Writes what the agent has seen, and reports the history to its followers.

Writes are batched: changes within moments of each other share a transaction, and the times of targets at which nothing
changed, which are most of what an idle agent has to write, are written once a minute.
"""

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime

from garrison.base.errors import GarrisonError
from garrison.base.events import Listener
from garrison.fleet.agent.write_buffer import WriteBuffer
from garrison.fleet.context import Fleet
from garrison.fleet.hooks.queues import Hooks
from garrison.fleet.observe.record_sighting import Remembered
from garrison.store.records import Event, TargetRecord

__all__ = ["Recorder"]

_TIMES_SECONDS = 60.0
"""Between two writes of the times of calm targets; also how old the times of `status --cached` may be."""


class Recorder:
    """The agent's side of the store. It is the `Record` of the looks.

    Args:
        on_event: called with every event added to the history from `start` on, in order, by any process.
        hooks: offered the same events.
        note: called with a message when events were lost.

    Attributes:
        behind: the history has more events than one call of `report` passes on.
    """

    def __init__(
        self, fleet: Fleet, *, on_event: Callable[[Event], None], hooks: Hooks | None, note: Callable[[str], None]
    ) -> None:
        self._fleet = fleet
        self._on_event = on_event
        self._hooks = hooks
        self._note = note
        self._buffer = WriteBuffer()
        self._times_due = fleet.clock.monotonic()
        self._listeners: list[Listener[Event]] = []
        self.behind = False

    @property
    def waiting(self) -> bool:
        """Whether anything is not written yet."""
        return bool(self._buffer)

    @property
    def urgent(self) -> bool:
        """Whether anything but times is not written yet."""
        return self._buffer.urgent

    async def start(self) -> None:
        """Report only events from now on.

        Raises:
            GarrisonError: the store cannot be read.
        """
        await self._fleet.feed.start()
        receivers = [self._on_event] if self._hooks is None else [self._on_event, self._hooks.offer]
        self._listeners = [self._fleet.events.listen(one) for one in receivers]

    def saw(self, after: Remembered) -> None:
        """Buffer a sighting."""
        self._buffer.saw(after)

    def saw_calm(self, target: str, at: datetime) -> None:
        """Buffer the time of a sighting that changed nothing."""
        self._buffer.saw_calm(target, at)

    def add(self, events: Iterable[Event]) -> None:
        """Buffer events."""
        self._buffer.add(events)

    async def write(self, *, all_times: bool = False) -> list[TargetRecord]:
        """Write the buffer.

        Args:
            all_times: whether to write the times of calm targets even if that is not due.

        Returns:
            The records of targets that the agent just saw well and another process recorded as unreachable.

        Raises:
            GarrisonError: the store failed. What was not written is kept.
        """
        if not self._buffer:
            return []
        now = self._fleet.clock.monotonic()
        times = all_times or now >= self._times_due
        away = await self._buffer.write(self._fleet, times=times)
        if times:
            self._times_due = now + _TIMES_SECONDS
        if self._buffer.dropped:
            self._note(f"{self._buffer.dropped} events were lost while the store failed")
            self._buffer.dropped = 0
        return away

    async def report(self) -> None:
        """Publish the events that any process added to the history since the last call.

        Raises:
            GarrisonError: the store cannot be read.
        """
        self.behind = await self._fleet.feed.pull()
        await self._fleet.events.settled()

    async def close(self, seconds: float) -> None:
        """Write and report the rest within `seconds`, so that a store that hangs does not hold the process."""
        try:
            async with asyncio.timeout(seconds):
                await self.write(all_times=True)
                await self.report()
                while self.behind:
                    await self.report()
        except GarrisonError as error:
            self._note(f"the last observations could not be written: {error.message}")
        except TimeoutError:
            self._note(f"the last observations could not be written: the store did not answer within {seconds:g} s")
        for one in self._listeners:
            one.close()
