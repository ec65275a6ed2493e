"""The reconcile loop: look at every target when it is due, tell what changed, and make equal again what may be.

    agent = Agent(fleet, view)
    await agent.startup()
    await agent.main_loop()      # until request_stop()
    await agent.shutdown()

It works from the store: stacks as they were last applied, by whichever process. What is owed is always done; drift is
mended under `on_drift: restore`. A target has at most one look under way, and its own schedule, so that one that is out
of reach costs nobody else a second. The stack is held only while something is done to it.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from garrison.base.bugs import bug_of, bug_words
from garrison.base.errors import ConflictError, GarrisonError
from garrison.fleet.agent.backoff import LeftAlone, undone_by_somebody
from garrison.fleet.agent.content_watch import ContentWatch
from garrison.fleet.agent.repair_queue import Mender
from garrison.fleet.agent.watched import Watched, WatchList
from garrison.fleet.agent.write_buffer import Unwritten
from garrison.fleet.context import Fleet
from garrison.fleet.execute.retry import next_look
from garrison.fleet.hooks.queues import Hooks
from garrison.fleet.observe.drift import find_drift
from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.observe.record_sighting import remember
from garrison.fleet.operations.repair import Mended
from garrison.fleet.operations.survey import with_memory
from garrison.fleet.plan.agent_policy import duties
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.plan.planner import plan
from garrison.fleet.values import events
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.view import FleetView, Outcome
from garrison.store.records import ActionState, Event, Key, TargetRecord

__all__ = ["Agent", "AgentState"]

_LONGEST_WAIT = 1.0
"""Seconds between two looks at whether another process changed something in the store."""
_PRUNE_SECONDS = 24 * 3600.0
_HOOKS_SECONDS = 5.0
"""For hooks that were not told of everything yet, at the end."""
_SETTLE_SECONDS = 5.0
"""Between two looks for commands that were killed: nothing in the store tells when that happens."""
_BATCH_SECONDS = 0.05
"""What is seen within this time is written together."""
_FIRST_STORE_WAIT = 1.0
"""Before a store that fails is tried again; doubled each time."""
_LONGEST_STORE_WAIT = 30.0
_TIMES_SECONDS = 60.0
"""Between two writes of the times at which calm targets were seen: longer, and `status --cached` is out of date."""
_CONTENTS_SECONDS = 60.0
"""For the pass over the files, where the agent looks once."""
_MOST_REASONS = 50
"""Different words for a failing store that are said before it works again."""


@dataclass(slots=True)
class AgentState:
    """What the agent has done so far.

    Attributes:
        out_of_reach: targets that cannot be seen, or cannot load an adapter that is missing there.
        last_believed: the clock's monotonic seconds of the last look that was believed.
        bugs: unexpected errors; each counts as `failed` too.
    """

    stacks: int = 0
    targets: int = 0
    out_of_reach: int = 0
    looks: int = 0
    last_believed: float = 0.0
    mended: int = 0
    failed: int = 0
    store_failures: int = 0
    bugs: int = 0
    stopping: bool = False


class Agent:
    """The loop over the stacks of one store.

    Args:
        on_event: told of every event in the history from now on, in order, whoever wrote it; must return at once.
        hooks: told likewise, as the stacks' manifests say.
        interval: seconds between two looks at a target, instead of its stacks' policies.
        stacks: these alone; all when None.
        retention: how long events and observations are kept; for ever when None.
        observer: looks at the targets; by default one that opens a connection for each look.
    """

    def __init__(
        self,
        fleet: Fleet,
        view: FleetView,
        *,
        on_event: Callable[[Event], None] = lambda _event: None,
        hooks: Hooks | None = None,
        interval: float | None = None,
        stacks: Collection[str] | None = None,
        retention: timedelta | None = None,
        observer: Observer | None = None,
    ) -> None:
        self.state = AgentState()
        self._fleet = fleet
        self._view = view
        self._on_event = on_event
        self._hooks = hooks
        self._retention = retention
        self._observer = observer or Observer(fleet.dialer, fleet.clock)
        self._list = WatchList(fleet, stacks=stacks, interval=interval)
        self._watched = self._list.targets
        self._settle_due = 0.0
        self._single = False
        """Only one pass is wanted: nobody is looked at again because it failed."""
        self._unwritten = Unwritten()
        self._due_work: set[tuple[str, str]] = set()
        """(stack, target) for the mender, once what was seen is written: it starts from the store."""
        self._told: dict[Key, str | None] = {}
        """Drift that was told: the path that was served."""
        self._left_alone = LeftAlone()
        self._mender = Mender(fleet, view, self._told, self._mended, self._mender_bug)
        self._contents = ContentWatch(
            fleet, found=self._found, faulty=self._faulty, note=view.note, ended=self._contents_ended
        )
        self._prune_due = fleet.clock.monotonic()
        self._pruning: asyncio.Task[None] | None = None
        self._times_due = fleet.clock.monotonic()
        self._last_event = 0
        self._cycles: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()

    def request_stop(self) -> None:
        """Let the main loop end, and begin no further action. `shutdown` finishes what is under way."""
        self.state.stopping = True
        self._mender.stop()
        self._stop.set()
        self._wake.set()

    async def startup(self) -> None:
        """Read what is to be watched, and what commands that were killed left behind.

        Raises:
            GarrisonError: the store cannot be read.
        """
        newest = await self._fleet.read(self._fleet.store.events, limit=1)
        self._last_event = newest[0].id if newest else 0
        await self._reload()

    async def main_loop(self) -> None:
        """Until `request_stop`. A store that fails is tried again, less and less often; each reason is told once until
        it works again."""
        wait, told = _FIRST_STORE_WAIT, set[str]()
        while not self._stop.is_set():
            try:
                await self.step()
            except GarrisonError as error:
                self.state.store_failures += 1
                if error.message not in told and len(told) < _MOST_REASONS:
                    self._view.note(f"the store failed, trying again: {error.message}")
                    told.add(error.message)
                await self._stopped_within(wait)
                wait = min(_LONGEST_STORE_WAIT, 2 * wait)
                continue
            if told:
                self._view.note("the store works again")
            wait, told = _FIRST_STORE_WAIT, set()
            await self._sleep(self._until_due())

    async def shutdown(self, seconds: float = 30.0) -> None:
        """Give looks and actions under way `seconds`, then end them. What is cut short is settled by the next start."""
        for task in self._cycles:
            task.cancel()
        await asyncio.gather(*self._cycles, return_exceptions=True)
        await self._contents.close()
        await self._mender.close(seconds)
        if self._pruning is not None:  # a thread ends with its batch; what is left is old tomorrow, too
            self._pruning.cancel()
        self._times_due = 0.0
        with contextlib.suppress(GarrisonError):
            await self._write()
            await self._tell()
        if self._hooks is not None:
            await self._hooks.close(_HOOKS_SECONDS)

    async def step(self) -> None:
        """Write what was seen, follow what others changed, and begin the looks that are due."""
        await self._write()
        await self._reload()
        await self._settle()
        self._hand_over()
        await self._upkeep()
        await self._tell()
        now = self._fleet.clock.monotonic()
        due = [one for one in self._watched.values() if not one.looking and one.due <= now]
        if due:
            self._begin(due)

    async def once(self) -> None:
        """One pass: every target is looked at, again where something was done, and what is due is done, to its end."""
        self._single = True
        for one in self._watched.values():
            one.due = 0.0
        while True:
            await self.step()
            if not (self._cycles or self._mender.busy or self._unwritten or self._due_work):
                if not self._contents.busy:
                    return
                if not await self._contents.wait(_CONTENTS_SECONDS):
                    self._view.note(f"the adapters' files could not be read within {_CONTENTS_SECONDS:.0f} s")
                    return
                continue
            await self._sleep(_LONGEST_WAIT if self._cycles else _BATCH_SECONDS)

    # --- looking

    def _begin(self, due: Iterable[Watched]) -> None:
        looks = []
        for one in due:
            one.looking = True
            looks.append(one.next_look())

        async def cycle() -> None:
            try:
                await self._observer.observe(looks, self._saw)
            finally:
                for look in looks:
                    if (left := self._watched.get(look.target.name)) is not None:
                        left.looking = False

        def ended(task: asyncio.Task[None]) -> None:
            self._cycles.discard(task)
            self._wake.set()
            if (error := bug_of(task)) is not None:
                self._bug("looking at targets", error)
                self._put_off(looks)

        task = asyncio.create_task(cycle())
        self._cycles.add(task)
        task.add_done_callback(ended)

    def _put_off(self, looks: Iterable[Look]) -> None:
        """Those that were not come to, each by a part of its interval, so that the one that cannot be looked at keeps
        the others waiting no more than once."""
        now = self._fleet.clock.monotonic()
        for look in looks:
            one = self._watched.get(look.target.name)
            if one is not None and one.due <= now:
                one.due = now + one.interval * (0.1 + 0.9 * self._fleet.draws.random())

    def _saw(self, seen: Sighting) -> None:
        self.state.looks += 1
        one = self._watched.get(seen.target)
        if one is None:  # forgotten while it was looked at
            return
        failed_before, before = one.failures > 0, one.remembered
        one.saw(seen)
        now = self._fleet.clock.monotonic()
        if seen.known:
            self.state.last_believed = now
        one.due = now + next_look(
            one.interval,
            self._fleet.draws.random(),
            failures=0 if self._single else one.failures,
            recovered=failed_before and seen.known and not self._single,
            retry_after=seen.retry_after,
        )
        calm = seen.known and seen.served is one.calm and now < one.calm_until
        if calm and seen.capabilities is None and one.record.state == "reachable":
            self._unwritten.calm[seen.target] = seen.at
            return
        after = remember(before, seen, one.managed, wanted=one.wanted)
        self._remember(one, after.record)
        self._unwritten.saw(after)
        self._view.observed(seen)
        self._wake.set()
        if seen.known:
            self._judge(one, with_memory(seen, after.record))
        else:
            self._left_alone.went_away(seen.target)

    def _remember(self, one: Watched, record: TargetRecord) -> None:
        self.state.out_of_reach += _is_away(record) - _is_away(one.record)
        one.record = record

    def _judge(self, one: Watched, seen: Sighting) -> None:
        """Hand the target to the mender for each stack that has something to do or to tell there."""
        drifted = {drift.resource.key for drift in find_drift(one.resources, seen)}
        for resource in one.resources:
            if resource.key not in drifted:
                self._told.pop(resource.key, None)
        begun = [stack for stack in one.stacks if seen.target in self._list.begun.get(stack, ())]
        busy = [stack for stack in one.stacks if stack in begun or self._has_duties(stack, one, seen)]
        one.calm = None if busy else seen.served
        one.calm_until = self._left_alone.until(seen.target, now=self._fleet.clock.monotonic())
        self._due_work |= {(stack, seen.target) for stack in busy}

    def _has_duties(self, stack: str, one: Watched, seen: Sighting) -> bool:
        declaration = self._list.heads[stack]
        here = replace(declaration, targets={one.spec.name: one.spec}, adapters=tuple(one.adapters.get(stack, ())))
        restore = declaration.policy.on_drift == "restore"
        drafted = plan(
            here,
            one.resources,
            {seen.target: seen},
            mode="destroy" if stack in self._list.ending else "reconcile",
            options=PlanOptions(force=restore),
            staged_path=lambda _target, digest: self._fleet.artifacts.staged_path(one.spec, digest),
            faults=self._contents.faults,
        )
        owned = [resource for resource in one.resources if resource.stack == stack]
        hopeless = self._left_alone_here(stack, one)
        return bool(duties(drafted, owned, [seen], restore=restore, hopeless=hopeless, told=self._told))

    # --- mending

    def _hand_over(self) -> None:
        due, self._due_work = self._due_work, set()
        for stack, target in due:
            if (one := self._watched.get(target)) is not None:
                self._mender.want(stack, target, hopeless=self._left_alone_here(stack, one))

    def _mended(self, stack: str, mended: Mended | GarrisonError | None) -> None:
        """The mender is done with some targets of `stack`."""
        self._wake.set()
        if isinstance(mended, ConflictError):  # somebody else is at it; the next look tells whether anything is left
            return
        if isinstance(mended, GarrisonError):
            self.state.failed += 1
            self._view.note(f"{stack}: {mended.message}")
            return
        if mended is None:
            return
        self.state.mended += sum(one.action.acts and one.failure is None for one in mended.outcomes)
        self.state.failed += len(mended.failed)
        self._told.update({one.resource.key: one.observed.root for one in mended.told if one.observed})
        now = self._fleet.clock.monotonic()
        for name in mended.survey.sightings:
            if (one := self._watched.get(name)) is not None:
                self._remember(one, mended.survey.records[name])
        for key in mended.failed:
            if (one := self._watched.get(key.target)) is not None:
                self._left_alone.failed(
                    stack, key, self._circumstances(one, key), now=now, interval=one.interval
                )  # fmt: skip
        for outcome in mended.outcomes:
            one = self._watched.get(outcome.action.target)
            if one is not None and outcome.state is ActionState.DONE and not self._fought_over(one, stack, outcome):
                one.due = now  # what was done is seen, not assumed

    def _fought_over(self, one: Watched, stack: str, outcome: Outcome) -> bool:
        """Whether somebody undid it at once, as before; told when that begins."""
        if not undone_by_somebody(outcome):
            return False
        now = self._fleet.clock.monotonic()
        restores = self._left_alone.restored(outcome.action.key, now=now, interval=one.interval)
        if restores == 2:
            told = Event(
                at=self._fleet.clock.now(),
                kind=events.DRIFT,
                stack=stack,
                target=outcome.action.target,
                name=outcome.action.name,
                cause="fights",
                after={"restores": restores},
            )
            self._unwritten.tell([told])
        return restores > 1

    def _left_alone_here(self, stack: str, one: Watched) -> set[Key]:
        return self._left_alone.keys(
            stack, one.spec.name, lambda key: self._circumstances(one, key), now=self._fleet.clock.monotonic()
        )

    def _circumstances(self, one: Watched, key: Key) -> object:
        declared = [spec for specs in one.adapters.values() for spec in specs if spec.lora_name == key.name]
        return declared, one.record.capabilities.get("started_at"), one.record.spec

    # --- the store

    async def _write(self) -> None:
        """What was seen since the last write. Times alone wait: they are most of what an idle agent has to write."""
        if not self._unwritten:
            return
        now = self._fleet.clock.monotonic()
        times = self._single or now >= self._times_due
        away = await self._unwritten.write(self._fleet, times=times)
        if times:
            self._times_due = now + _TIMES_SECONDS
        if self._unwritten.dropped:
            self._view.note(f"{self._unwritten.dropped} events were lost while the store failed")
            self._unwritten.dropped = 0
        for record in away:  # another process could not reach it: the next look tells that it is back
            if (one := self._watched.get(record.name)) is not None:
                self._remember(one, record)
                one.calm, one.due = None, self._fleet.clock.monotonic()

    async def _reload(self) -> None:
        changes = await self._list.reload()
        if changes is None:
            return
        self._left_alone.keep(self._watched.keys())
        for key in [key for key in self._told if key.target in changes.targets and not self._owned(key)]:
            del self._told[key]
        self.state.stacks, self.state.targets = len(self._list.heads), len(self._watched)
        self.state.out_of_reach = sum(_is_away(one.record) for one in self._watched.values())
        if changes.stacks and self._hooks is not None:
            self._hooks.watch(self._list.declarations())

    def _owned(self, key: Key) -> bool:
        one = self._watched.get(key.target)
        return one is not None and any(resource.key == key for resource in one.resources)

    async def _settle(self) -> None:
        """Have killed commands settled: by the next look at a target where one had started something, or now where
        there is none to look at. The same goes for a destroyed stack."""
        now = self._fleet.clock.monotonic()
        if now < self._settle_due:
            return
        self._settle_due = now + _SETTLE_SECONDS
        running = await self._fleet.read(self._fleet.store.begun)
        owing = self._list.owing() if self._list.ending else set()
        for stack in [name for name in self._list.heads if not self._mender.works_on(name)]:
            before, begun = self._list.begun.get(stack), running.get(stack, set())
            self._list.begun[stack] = begun
            watched = [self._watched[name] for name in begun & self._watched.keys()]
            for one in watched:
                one.calm = None
                if before != begun:
                    one.due = now
            over = stack in self._list.ending and stack not in owing
            if (stack in running or over) and not watched:
                self._mender.want(stack, None)

    async def _upkeep(self) -> None:
        """Now and then: whether the files of adapters changed, and what is too old to keep."""
        now = self._fleet.clock.monotonic()
        self._contents.begin(
            self._list.declarations,
            lambda: [resource for one in self._watched.values() for resource in one.resources],
        )
        if self._retention is not None and now >= self._prune_due:
            self._prune_due = now + _PRUNE_SECONDS
            self._pruning = asyncio.create_task(self._prune(self._fleet.clock.now() - self._retention))

    async def _prune(self, before: datetime) -> None:
        """Beside everything else, and not in the writer's thread: the batches of a long prune let others in between."""
        try:
            await self._fleet.read(self._fleet.store.prune, before)
        except GarrisonError as error:
            self._view.note(f"old history could not be deleted, trying again tomorrow: {error.message}")

    def _found(self, changed: Sequence[Event]) -> None:
        self._unwritten.tell(changed)
        self._wake.set()

    def _faulty(self, paths: Collection[str]) -> None:
        """Entries of the store that adapters are served from must be replaced: their targets are looked at now."""
        for one in self._watched.values():
            if any(resource.served_path in paths for resource in one.resources):
                one.calm, one.due = None, self._fleet.clock.monotonic()
        self._wake.set()

    async def _tell(self) -> None:
        for event in await self._fleet.read(self._fleet.store.events, after_id=self._last_event, limit=1000):
            self._last_event = event.id
            self._on_event(event)
            if self._hooks is not None:
                self._hooks.offer(event)

    # --- what nobody expected

    def _bug(self, doing: str, error: BaseException) -> None:
        self.state.bugs += 1
        self.state.failed += 1
        self._view.note(f"a bug in Garrison, {doing}: {bug_words(error)}")
        self._wake.set()

    def _mender_bug(self, stack: str, error: BaseException) -> None:
        self._bug(f"mending {stack}", error)

    def _contents_ended(self, task: asyncio.Task[None]) -> None:
        if (error := bug_of(task)) is not None:
            self._bug("reading the adapters' files", error)

    # --- waiting

    def _until_due(self) -> float:
        now = self._fleet.clock.monotonic()
        due = min((one.due for one in self._watched.values() if not one.looking), default=now + _LONGEST_WAIT)
        return min(_LONGEST_WAIT, max(_BATCH_SECONDS, due - now))

    async def _sleep(self, seconds: float) -> None:
        """Until something is seen or mended, a stop is asked for, or `seconds` are over."""
        self._wake.clear()
        if self._unwritten.urgent or self._due_work:
            seconds = min(seconds, _BATCH_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        if self._cycles and self._wake.is_set() and not self._stop.is_set():  # more is coming: write it together
            await asyncio.sleep(_BATCH_SECONDS)

    async def _stopped_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


def _is_away(record: TargetRecord) -> bool:
    return record.state == "unreachable" or record.cause is not None
