"""What the workers carry: their reports go to metrics, store, activity and access log; what is in progress is asked."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import date
from itertools import count
from typing import Any

from prometheus_client.metrics_core import CounterMetricFamily, Metric

from garrison.base.clock import Clock
from garrison.base.errors import NotReadyError
from garrison.base.settings import Settings
from garrison.gateway.activity import Activity, ActivityEntry, ActivityFilter
from garrison.gateway.captures import Captures
from garrison.gateway.link.reports import (
    Cancel,
    Cancelled,
    Captured,
    CaptureValue,
    Finished,
    ListLive,
    LiveRequests,
    LiveValue,
    Spent,
    Used,
)
from garrison.net.thread_pool import ThreadPool
from garrison.server.workers.access_log import AccessLog
from garrison.server.workers.door import Report, WorkerDoor
from garrison.server.workers.spans import Spans
from garrison.server.workers.totals import Totals
from garrison.server.workers.usage_writer import UsageWriter
from garrison.store.usage_store import UsageBy, UsageRow, UsageStore

__all__ = ["Traffic"]

_ASK_SECONDS = 2.0
"""A worker that does not answer by then is left out."""
_CLOSE_SECONDS = 5.0


class Traffic:
    """The traffic of one server. Belongs to one event loop.

    Args:
        pool: threads for the store. `disk`: for files.
        settings: returns those in force.
        targets: returns the ids of all targets.
        doors: returns the workers.

    Attributes:
        totals: sums over what the workers have reported.
    """

    def __init__(
        self,
        store: UsageStore,
        settings: Callable[[], Settings],
        *,
        pool: ThreadPool,
        disk: ThreadPool,
        clock: Clock,
        targets: Callable[[], Iterable[str]] = lambda: (),
        doors: Callable[[], Sequence[WorkerDoor]] = lambda: (),
    ) -> None:
        self._settings, self._doors = settings, doors
        self.totals = Totals(targets)
        self._usage = UsageWriter(store, pool=pool, clock=clock, days=lambda: settings().usage_retention)
        self._activity = Activity(settings().gateway_activity)
        self._captures = Captures(settings().gateway_captures)
        self._log = AccessLog(
            disk,
            lambda: settings().gateway_access_log,
            lambda: settings().gateway_access_log_percent / 100,
            lambda: settings().log_rotation_mib * 2**20,
        )
        self._spans: Spans | None = None
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {}

    def metrics(self) -> Callable[[], Iterator[Metric]]:
        """Return what yields the metrics as they are now, for another thread: with many keys it takes a while."""
        totals, lines = self.totals.copy(), self._log.lost

        def collect() -> Iterator[Metric]:
            yield from totals.collect()
            lost = CounterMetricFamily("garrison_gateway_access_log_lost", "Lines that could not be written in time.")
            lost.add_metric((), lines)
            yield lost

        return collect

    def startup(self) -> None:
        """Begin what is done from time to time. Raises InvalidError where something for that is not installed."""
        values = self._settings()
        if values.gateway_traces is not None:
            self._spans = Spans(values.gateway_traces, values.node_name)
        self._usage.startup()

    def reconfigure(self) -> None:
        """Take other settings."""
        self._activity.resize(self._settings().gateway_activity)
        self._captures.resize(self._settings().gateway_captures)

    def received(self, door: WorkerDoor, report: Report) -> None:
        """Take a report of a worker."""
        match report:
            case Used():
                self.totals.add(door, report)
            case Spent():
                self._usage.put(report, door.stored, at_once=report.ends or door.leaves)
            case Finished():
                self.totals.lose(report.lost)
                self._activity.add(report.requests)
                self._log.add(report.requests)
                if self._spans is not None:
                    self._spans.add(report.requests)
            case Captured():
                self._captures.add(report.capture)
            case LiveRequests() | Cancelled():
                future = self._asked.get(report.id)
                if future is not None and not future.done():
                    future.set_result(report)

    def lost(self, door: WorkerDoor) -> None:
        """A worker has gone."""
        self.totals.forget(door)

    async def usage(
        self,
        first: date,
        last: date,
        *,
        by: Collection[UsageBy],
        key_id: int | None = None,
        route: str | None = None,
        limit: int = 1000,
    ) -> list[UsageRow]:
        """Return what was used; see `UsageStore.usage`. Raises GarrisonError."""
        return await self._usage.sums(first, last, by=by, key_id=key_id, route=route, limit=limit)

    def recent(self, chosen: ActivityFilter, *, before: int | None, limit: int) -> list[ActivityEntry]:
        """Return requests that have ended, newest first; see `Activity.page`."""
        return self._activity.page(chosen, before=before, limit=limit)

    def capture(self, id: str) -> CaptureValue | None:
        """Return what is kept of a request and its answer; None if nothing is."""
        return self._captures.find(id)

    async def live(self, most: int) -> tuple[list[LiveValue], int, int]:
        """Return requests in progress, oldest first, how many more there are, and how many workers did not answer."""
        found, silent = await self._ask(lambda number: ListLive(id=number, most=most))
        every = sorted((one for answer in found for one in answer.requests), key=lambda one: one.at)
        return every[:most], sum(answer.more for answer in found) + max(0, len(every) - most), silent

    async def stop(self, id: str) -> bool:
        """End a request that is in progress; False if no worker has one of that id.

        Raises:
            NotReadyError: a worker that may have it did not answer.
        """
        found, silent = await self._ask(lambda number: Cancel(id=number, request=id))
        stopped = any(one.found for one in found)
        if silent and not stopped:
            raise NotReadyError(
                f"{silent} of {silent + len(found)} workers of the gateway did not answer in time",
                hint="Try again in a moment.",
                details={"retry_after": 1},
            )
        return stopped

    async def shutdown(self) -> None:
        """Write what waits."""
        await self._usage.close(_CLOSE_SECONDS)
        await self._log.close(_CLOSE_SECONDS)
        if self._spans is not None:
            await self._spans.close(_CLOSE_SECONDS)

    async def _ask(self, message: Callable[[int], ListLive | Cancel]) -> tuple[list[Any], int]:
        """Ask all workers, and return their answers, and how many did not answer."""
        asked: dict[int, asyncio.Future[Any]] = {}
        for door in self._doors():
            number = next(self._numbers)
            if door.send(message(number)):
                asked[number] = asyncio.get_running_loop().create_future()
        self._asked |= asked
        try:
            if asked:
                await asyncio.wait(asked.values(), timeout=_ASK_SECONDS)
        finally:
            for number in asked:
                del self._asked[number]
        answers = [one.result() for one in asked.values() if one.done()]
        return answers, len(asked) - len(answers)
