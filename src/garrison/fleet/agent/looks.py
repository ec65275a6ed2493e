"""Looks at targets when they are due, and passes on what was seen.

What happens to a sighting, in this order: the next look is scheduled; the record is updated in memory and buffered for
the next write; then it is judged. Nothing is awaited in between, so a later stage never sees half of it.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from typing import Protocol

from garrison.base.bugs import bug_of
from garrison.fleet.agent.schedule import Schedule
from garrison.fleet.agent.state import AgentState
from garrison.fleet.agent.watched import Watched, WatchList
from garrison.fleet.context import Fleet
from garrison.fleet.execute.retry import next_look
from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.observe.record_sighting import Remembered, remember
from garrison.fleet.operations.survey import with_memory
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView
from garrison.store.records import TargetRecord

__all__ = ["Judge", "Looks", "Record"]


class Record(Protocol):
    """Writes down sightings; see `Recorder`."""

    def saw(self, after: Remembered) -> None: ...

    def saw_calm(self, target: str, at: datetime) -> None: ...


class Judge(Protocol):
    """Decides what a sighting calls for; see `Repairs`."""

    def judge(self, one: Watched, seen: Sighting) -> None: ...

    def went_away(self, target: str) -> None: ...


class Looks:
    """Observes targets on their schedule. A target is never looked at twice at the same time.

    Args:
        watch_list: the targets.
        schedule: when each of them is due.
        observer: sends the requests.
        record: is given what was seen, to be written.
        judge: decides what it calls for.
        changed: called when something was seen that has to be written or acted on.
        bug: called with an unexpected error.

    Attributes:
        single: only one pass is wanted, so a failed look is not repeated soon.
    """

    def __init__(
        self,
        fleet: Fleet,
        view: FleetView,
        state: AgentState,
        watch_list: WatchList,
        schedule: Schedule,
        *,
        observer: Observer,
        record: Record,
        judge: Judge,
        changed: Callable[[], None],
        bug: Callable[[str, BaseException], None],
    ) -> None:
        self._fleet = fleet
        self._view = view
        self._state = state
        self._list = watch_list
        self._schedule = schedule
        self._record = record
        self._judge = judge
        self._changed = changed
        self._bug = bug
        self._observer = observer
        self._cycles: set[asyncio.Task[None]] = set()
        self._looking: dict[str, TargetSpec] = {}
        self.single = False

    @property
    def busy(self) -> bool:
        """Whether any target is being looked at."""
        return bool(self._cycles)

    def follow(self, targets: Iterable[str]) -> None:
        """Schedule those of `targets` that are new at once, and drop those that are no longer watched."""
        now = self._fleet.clock.monotonic()
        for name in targets:
            if name not in self._list.targets:
                self._schedule.drop(name)
            elif name not in self._schedule and name not in self._looking:
                self._schedule.set(name, now)

    def all_due(self) -> None:
        """Make every target due now."""
        for name in self._list.targets:
            self._schedule.set(name, 0.0)

    def look_again(self, one: Watched) -> None:
        """Make one target due now, and have the next list judged even if it is the one that required no action."""
        one.calm = None
        self._schedule.set(one.spec.name, self._fleet.clock.monotonic())

    def look_where_served(self, paths: Collection[str]) -> None:
        """Make those targets due now that serve an adapter from one of `paths`."""
        for one in self._list.targets.values():
            if any(resource.served_path in paths for resource in one.resources):
                self.look_again(one)

    def correct(self, record: TargetRecord) -> None:
        """Take over the record of a target that another process could not reach. The next look reports it as back."""
        if (one := self._list.targets.get(record.name)) is not None:
            self._list.remember(one, record)
            self.look_again(one)

    def begin_due(self) -> None:
        """Begin a look at each target that is due."""
        looks = []
        for name in self._schedule.take_due(self._fleet.clock.monotonic()):
            one = self._list.targets.get(name)
            # The end of a look in progress schedules the next one.
            if one is not None and name not in self._looking:
                self._looking[name] = one.spec
                looks.append(one.next_look())
        if looks:
            task = asyncio.create_task(self._cycle(looks))
            self._cycles.add(task)
            task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Cancel the looks in progress."""
        for task in self._cycles:
            task.cancel()
        await asyncio.gather(*self._cycles, return_exceptions=True)

    async def _cycle(self, looks: list[Look]) -> None:
        failed = True
        try:
            await self._observer.observe(looks, self._saw)
            failed = False
        finally:
            self._put_off([look.target.name for look in looks], failed=failed)

    def _put_off(self, targets: Iterable[str], *, failed: bool) -> None:
        """Schedule the targets of a cycle that were not seen.

        After an unexpected error each waits for a part of its interval, so that the target that causes the error delays
        the others only once.
        """
        now = self._fleet.clock.monotonic()
        for name in targets:
            if name not in self._looking:
                continue
            del self._looking[name]
            if (one := self._list.targets.get(name)) is not None:
                wait = one.interval * (0.1 + 0.9 * self._fleet.draws.random()) if failed else 0.0
                self._schedule.set(name, now + wait)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._cycles.discard(task)
        self._changed()
        if (error := bug_of(task)) is not None:
            self._bug("looking at targets", error)

    def _saw(self, seen: Sighting) -> None:
        self._state.looks += 1
        self._state.looked_at = seen.at
        asked = self._looking.pop(seen.target)
        one = self._list.targets.get(seen.target)
        if one is None:  # forgotten while it was looked at
            return
        if asked.base_url != one.spec.base_url:  # moved meanwhile: another server was seen
            self.look_again(one)
            return
        recovered, seen_before = one.failures > 0 and seen.known, one.seen_at
        one.saw(seen)
        now = self._fleet.clock.monotonic()
        if seen.known:
            self._state.last_believed = now
        self._schedule.set(seen.target, now + self._until_next(one, seen, recovered=recovered))
        # Nothing happened since the last look that required no action: the fast path of a healthy fleet.
        calm = seen.known and seen.served is one.calm and now < one.calm_until
        if calm and seen.capabilities is None and one.record.state == "reachable":
            self._record.saw_calm(seen.target, seen.at)
            return
        after = remember(one.record_at(seen_before), seen, one.managed, wanted=one.wanted)
        self._list.remember(one, after.record)
        self._record.saw(after)
        self._view.observed(seen)
        self._changed()
        if seen.known:
            self._judge.judge(one, with_memory(seen, after.record))
        else:
            self._judge.went_away(seen.target)

    def _until_next(self, one: Watched, seen: Sighting, *, recovered: bool) -> float:
        return next_look(
            one.interval,
            self._fleet.draws.random(),
            failures=0 if self.single else one.failures,
            recovered=recovered and not self.single,
            retry_after=seen.retry_after,
        )
