"""Writes what changes about instances, in order and in batches, without holding up the event loop."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.instances.instance_store import InstanceStore
from garrison.instances.values.record import InstanceRecord
from garrison.net.thread_pool import ThreadPool
from garrison.store.records import Event

__all__ = ["Writer"]

T = TypeVar("T")
_RETRY_SECONDS = 5.0
_MOST_EVENTS = 10_000
"""Kept for a store that cannot be written. The oldest are dropped, and counted."""

_log = logger(__name__)


class Writer:
    """Keeps the newest record of each instance and every event until they are on disk.

    A store that fails is tried again every five seconds; instances go on meanwhile.

    Attributes:
        dropped: events that were lost because the store could not be written.
    """

    def __init__(self, store: InstanceStore, pool: ThreadPool) -> None:
        self.dropped = 0
        self._store = store
        self._pool = pool
        self._records: dict[int, InstanceRecord] = {}
        self._events: list[Event] = []
        self._writing: asyncio.Task[None] | None = None

    def put(self, record: InstanceRecord, *events: Event) -> None:
        """Write it soon."""
        self._records[record.id] = record
        self._events.extend(events)
        if (excess := len(self._events) - _MOST_EVENTS) > 0:
            del self._events[:excess]
            self.dropped += excess
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def call(self, call: Callable[[InstanceStore], T], what: str) -> T:
        """Call the store after everything that was put before."""
        await self.flush()
        return await self._pool.run(lambda: call(self._store), what)

    def drop(self, record: InstanceRecord) -> None:
        """Do not write what waits about an instance that is being deleted."""
        self._records.pop(record.id, None)

    async def flush(self, seconds: float = 30.0) -> None:
        """Return when everything is on disk, or after `seconds`."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=seconds)

    async def close(self, seconds: float) -> None:
        """Write what waits, within a limit."""
        await self.flush(seconds)
        if self._writing is not None:
            self._writing.cancel()

    async def _write_all(self) -> None:
        while self._records or self._events:
            records, self._records = list(self._records.values()), {}
            events, self._events = self._events, []
            try:
                await self._pool.run(lambda r=records, e=events: self._store.save(r, e), "write instances")  # type: ignore[misc]  # a default in a lambda
            except GarrisonError as error:
                _log.warning("instances cannot be written", error=error.message)
                self._records = {one.id: one for one in records} | self._records
                self._events = events + self._events
                await asyncio.sleep(_RETRY_SECONDS)
        self._writing = None
