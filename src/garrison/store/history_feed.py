"""The history as a stream: one reader per process publishes what any process recorded, and everybody else subscribes.

Events are stored in the transaction of whatever they report, so that none is lost or invented by a crash. The feed
reads them back in order and publishes them. It is woken by writes of its own process; what others wrote is found by
looking once a second, by this one reader.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from garrison.base.bugs import bug_of
from garrison.base.errors import GarrisonError
from garrison.base.events import EventBus
from garrison.store.event_store import EventStore
from garrison.store.records import Event

__all__ = ["HistoryFeed"]

_PAGE = 500
_LONGEST_WAIT = 1.0
_SHORTEST_WAIT = 0.05
"""Seconds between two reads, so that a burst of commits is read together."""


class _Read(Protocol):
    """Runs a read of the store on a thread."""

    def __call__(self, call: Callable[[], list[Event]], /) -> Awaitable[list[Event]]: ...


class HistoryFeed:
    """Publishes events of the history, each once and in order of their ids, beginning with the first one after `start`.

    Args:
        failed: called with the error when the store could not be read; the next read tries again.
    """

    def __init__(
        self,
        store: EventStore,
        bus: EventBus[Event],
        read: _Read,
        *,
        failed: Callable[[GarrisonError], None] = lambda _error: None,
    ) -> None:
        self._store = store
        self._bus = bus
        self._read = read
        self._failed = failed
        self._last: int | None = None
        self._lock = asyncio.Lock()
        self._written = False
        self._wake: asyncio.Event | None = None
        self._users = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin after the newest event on record. Does nothing if the feed has begun.

        Raises:
            GarrisonError: the store cannot be read.
        """
        async with self._lock:
            if self._last is None:
                newest = await self._read(lambda: self._store.events(limit=1))
                self._last = newest[0].id if newest else 0

    async def pull(self) -> bool:
        """Publish the next events on record, at most 500, and return whether there may be more.

        Raises:
            GarrisonError: the store cannot be read.
        """
        await self.start()
        async with self._lock:
            self._written = False
            found = await self._read(lambda: self._store.events(after_id=self._last, limit=_PAGE))
            for event in found:
                self._last = event.id
                self._bus.publish(event)
            return len(found) == _PAGE

    def written(self) -> None:
        """Note that this process has written to the store, perhaps an event. Call it in the feed's event loop."""
        self._written = True
        if self._wake is not None:
            self._wake.set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the feed running during the body. Bodies may overlap; they share one reader.

        Raises:
            GarrisonError: the store cannot be read at the start.
        """
        await self.start()
        self._users += 1
        if self._task is None:
            self._wake = asyncio.Event()
            self._begin(self._wake)
        try:
            yield
        finally:
            self._users -= 1
            if not self._users and self._task is not None:
                task, self._task, self._wake = self._task, None, None
                task.cancel()
                await asyncio.wait([task])

    def _begin(self, wake: asyncio.Event, delay: float = 0.0) -> None:
        self._task = asyncio.create_task(self._run(wake, delay))
        self._task.add_done_callback(lambda task: self._ended(wake, task))

    def _ended(self, wake: asyncio.Event, task: "asyncio.Task[None]") -> None:
        """Report an unexpected error and begin again: the users do not notice that their reader ended."""
        error = bug_of(task)
        if error is None:
            return
        task.get_loop().call_exception_handler({"message": "reading the history failed", "exception": error})
        if self._task is task:
            self._begin(wake, _LONGEST_WAIT)

    async def _run(self, wake: asyncio.Event, delay: float) -> None:
        await asyncio.sleep(delay)
        while True:
            try:
                more = await self.pull()
            except GarrisonError as error:
                self._failed(error)
                more = False
            await asyncio.sleep(_SHORTEST_WAIT)
            if more or self._written:
                continue
            wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LONGEST_WAIT):
                    await wake.wait()
