"""The agent's work that belongs to no target: watching the adapters' files, and deleting old history."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime, timedelta

from garrison.base.bugs import bug_of
from garrison.base.errors import GarrisonError
from garrison.fleet.agent.content_watch import ContentWatch
from garrison.fleet.agent.watched import WatchList
from garrison.fleet.context import Fleet
from garrison.fleet.observe.entry_faults import Faults
from garrison.store.records import Event, Resource

__all__ = ["Upkeep"]

_PRUNE_SECONDS = 24 * 3600.0


class Upkeep:
    """Runs beside the loop, which never waits for it.

    Args:
        retention: how long to keep events and observations; forever if None.
        record: adds events to the history.
        faulty: called with paths in adapter stores that must not be loaded from any more.
        changed: called when one of these was.
        note: called with the reason when something failed.
        bug: called with an unexpected error.
    """

    def __init__(
        self,
        fleet: Fleet,
        watch_list: WatchList,
        *,
        retention: timedelta | None,
        record: Callable[[Iterable[Event]], None],
        faulty: Callable[[Collection[str]], None],
        changed: Callable[[], None],
        note: Callable[[str], None],
        bug: Callable[[str, BaseException], None],
    ) -> None:
        self._fleet = fleet
        self._list = watch_list
        self._retention = retention
        self._record = record
        self._faulty = faulty
        self._changed = changed
        self._note = note
        self._bug = bug
        self._contents = ContentWatch(fleet, found=self._found, faulty=self._found_faults, note=note, ended=self._read)
        self._prune_due = fleet.clock.monotonic()
        self._pruning: asyncio.Task[None] | None = None

    @property
    def reading(self) -> bool:
        """Whether the adapters' files are being read."""
        return self._contents.busy

    def faults(self) -> Faults:
        """Return the faults of entries in adapter stores, as last read."""
        return self._contents.faults

    def begin_due(self) -> None:
        """Begin what is due."""
        self._contents.begin(self._list.declarations, self._applied)
        now = self._fleet.clock.monotonic()
        if self._retention is not None and now >= self._prune_due:
            self._prune_due = now + _PRUNE_SECONDS
            self._pruning = asyncio.create_task(self._prune(self._fleet.clock.now() - self._retention))

    async def read_through(self, seconds: float) -> bool:
        """Wait up to `seconds` for the files to be read; return whether they were."""
        return await self._contents.wait(seconds)

    async def close(self) -> None:
        """Cancel what is in progress. Pruning ends with its current batch; the rest is due again after the next start.

        A read that hangs is left behind.
        """
        await self._contents.close()
        if self._pruning is not None:
            self._pruning.cancel()

    def _applied(self) -> list[Resource]:
        return [resource for one in self._list.targets.values() for resource in one.resources]

    def _found(self, changed: Sequence[Event]) -> None:
        self._record(changed)
        self._changed()

    def _found_faults(self, paths: Collection[str]) -> None:
        self._faulty(paths)
        self._changed()

    def _read(self, task: asyncio.Task[None]) -> None:
        if (error := bug_of(task)) is not None:
            self._bug("reading the adapters' files", error)

    async def _prune(self, before: datetime) -> None:
        """Delete old history beside everything else, in batches that let other writers in between."""
        try:
            await self._fleet.read(self._fleet.store.prune, before)  # on a reader's thread: the writer's stays free
        except GarrisonError as error:
            self._note(f"old history could not be deleted, trying again tomorrow: {error.message}")
