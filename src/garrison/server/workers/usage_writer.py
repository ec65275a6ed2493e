"""Stores what workers say was used: in batches, off the event loop, each batch once, and tells the workers then."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection
from datetime import date, timedelta

from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, InternalError
from garrison.base.logs import logger
from garrison.gateway.link.reports import Spent, SpentValue
from garrison.net.thread_pool import ThreadPool
from garrison.store.usage_store import NO_KEY, Usage, UsageBatch, UsageBy, UsageRow, UsageStore

__all__ = ["UsageWriter"]

_GATHER_SECONDS = 5.0
"""What arrives within this time is one transaction."""
_RETRY_SECONDS = 5.0
_MOST_TRIES = 3
"""For a batch that fails by itself, though the store can be written. A disk may have an error that passes."""
_READ_SECONDS = 5.0
_PRUNE_SECONDS = 86_400.0
_COUNTED = Usage.__slots__
_Waiting = dict[str, tuple[UsageBatch, Callable[[int], None]]]

_log = logger(__name__)


class UsageWriter:
    """The writer of one server. Belongs to one event loop.

    A worker has one batch under way and sends it again until it hears that it is on disk, so that at most that many
    wait here, and nothing is lost when this process is killed.

    Args:
        days: returns for how many days sums are kept.
    """

    def __init__(self, store: UsageStore, *, pool: ThreadPool, clock: Clock, days: Callable[[], int]) -> None:
        self._store, self._pool, self._clock, self._days = store, pool, clock, days
        self._waiting: _Waiting = {}
        self._failed: Counter[tuple[str, int]] = Counter()
        self._writing: asyncio.Task[None] | None = None
        self._pruning: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def startup(self) -> None:
        """Begin to delete what is old, once a day."""
        self._pruning = asyncio.create_task(self._prune(), name="prune usage")

    def put(self, spent: Spent, stored: Callable[[int], None], *, at_once: bool = False) -> None:
        """Store a batch soon. It counts to the day of today.

        Args:
            stored: is called with its number when it is on disk.
            at_once: whoever sent it waits for that before it ends.
        """
        today = self._clock.now().date()
        rows = [_row(one, today) for one in spent.rows]
        self._waiting[spent.source] = UsageBatch(source=spent.source, number=spent.number, rows=rows), stored
        if at_once:
            self._hurry.set()
        if self._writing is None:
            self._writing = asyncio.create_task(self._write(), name="write usage")

    async def sums(
        self, first: date, last: date, *, by: Collection[UsageBy], key_id: int | None, route: str | None, limit: int
    ) -> list[UsageRow]:
        """As `UsageStore.usage`, with everything that workers have reported.

        Raises:
            GarrisonError: the store cannot be read.
        """
        await self.flush(_READ_SECONDS)
        return await self._pool.run(
            lambda: self._store.usage(first, last, by=by, key_id=key_id, route=route, limit=limit), "read the usage"
        )

    async def flush(self, seconds: float) -> None:
        """Wait until everything is on disk, at most so long."""
        if self._writing is not None:
            self._hurry.set()
            await asyncio.wait([self._writing], timeout=seconds)

    async def close(self, seconds: float) -> None:
        """Write what waits, within a limit."""
        if self._pruning is not None:
            self._pruning.cancel()
        await self.flush(seconds)
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self) -> None:
        try:
            while self._waiting:
                await self._pause(_GATHER_SECONDS)
                self._hurry.clear()
                some, self._waiting = self._waiting, {}
                if left := await self._stored(some):
                    self._waiting = left | self._waiting
                    await asyncio.sleep(_RETRY_SECONDS)
                    self._hurry.set()
        finally:
            self._writing = None

    async def _stored(self, some: _Waiting) -> _Waiting:
        """Store batches, and return those that have to wait. One that cannot be stored at all holds up no other."""
        try:
            await self._add([batch for batch, _ in some.values()])
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may be lost by it
            if isinstance(error, GarrisonError) and not isinstance(error, InternalError):
                _log.warning("what was used cannot be stored yet", error=error.message, batches=len(some))
                return some
            return {source: one for source, one in some.items() if not await self._is_done(*one)}
        for batch, stored in some.values():
            stored(batch.number)
        return {}

    async def _is_done(self, batch: UsageBatch, stored: Callable[[int], None]) -> bool:
        """Store one batch by itself, and return whether it need not be tried again."""
        name = batch.source, batch.number
        try:
            await self._add([batch])
        except Exception as error:  # noqa: BLE001 - as above
            self._failed[name] += 1
            if self._failed[name] < _MOST_TRIES:
                _log.warning("what was used cannot be stored yet", error=repr(error), batches=1)
                return False
            requests = sum(row.usage.requests for row in batch.rows)
            _log.error("what was used is lost: it cannot be stored", error=repr(error), requests=requests)
        del self._failed[name]
        stored(batch.number)
        return True

    async def _add(self, batches: list[UsageBatch]) -> None:
        now = self._clock.now()
        await self._pool.run(lambda: self._store.add_usage(batches, now), "store the usage")

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()

    async def _prune(self) -> None:
        while True:
            try:
                before = self._clock.now() - timedelta(days=self._days())
                gone = await self._pool.run(lambda before=before: self._store.prune_usage(before), "delete old usage")  # type: ignore[misc]  # a default in a lambda
            except Exception as error:  # noqa: BLE001 - it is tried again tomorrow
                _log.warning("old usage cannot be deleted", error=repr(error))
            else:
                if gone:
                    _log.info("old usage was deleted", rows=gone)
            await asyncio.sleep(_PRUNE_SECONDS)


def _row(spent: SpentValue, day: date) -> UsageRow:
    counted = Usage(**{name: getattr(spent, name) for name in _COUNTED})
    return UsageRow(day=day, key_id=NO_KEY if spent.key_id is None else spent.key_id, route=spent.route, usage=counted)
