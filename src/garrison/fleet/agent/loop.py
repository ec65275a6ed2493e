"""The reconcile loop: look at every target when it is due, record what changed, and repair what may be repaired.

    agent = Agent(fleet, view)
    await agent.startup()
    await agent.main_loop()      # until request_stop()
    await agent.shutdown()

The agent works from the store, that is, from stacks as they were last applied by any process. Owed actions are always
carried out; drift is repaired under `on_drift: restore`. Each target has its own schedule, so that one that is out of
reach delays no other. A stack is held only while something is done to it.

One step of the loop, in this order:

    write     what was seen, since repairs start from the store and others read it
    follow    what other processes changed
    settle    commands that were killed
    repair    hand targets over to the repair queue
    upkeep    begin reading files or pruning, if due
    report    new events, to views and hooks
    look      begin the looks that are due

Looks, repairs and upkeep run beside the loop and wake it when they have something for the next step.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection
from datetime import timedelta

from garrison.base.bugs import bug_words
from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.fleet.agent.heartbeat import Heartbeat
from garrison.fleet.agent.looks import Looks
from garrison.fleet.agent.recorder import Recorder
from garrison.fleet.agent.repairs import Repairs
from garrison.fleet.agent.schedule import Schedule
from garrison.fleet.agent.state import AgentState
from garrison.fleet.agent.upkeep import Upkeep
from garrison.fleet.agent.watched import WatchList
from garrison.fleet.context import Fleet
from garrison.fleet.hooks.queues import Hooks
from garrison.fleet.observe.observer import Observer
from garrison.fleet.operations.repair import Repaired
from garrison.fleet.report.inspect import no_stack
from garrison.fleet.values.view import FleetView
from garrison.store.records import Event

__all__ = ["Agent", "AgentState"]

_log = logger(__name__)

_POLL_SECONDS = 1.0
"""Between two checks whether another process changed something in the store."""
_BATCH_SECONDS = 0.05
"""What is seen within this time is written together."""
_FIRST_STORE_WAIT = 1.0
"""Seconds before a failing store is tried again; doubled each time."""
_LONGEST_STORE_WAIT = 30.0
_MOST_REASONS = 50
"""Maximum number of different store errors to report before the store works again."""
_FILES_SECONDS = 60.0
"""Deadline of `once` for reading the adapters' files."""
_LAST_WRITE_SECONDS = 5.0
"""Deadline for the step in progress when a stop is requested, and for the last write after it."""
_HOOKS_SECONDS = 5.0
"""Deadline of `shutdown` for events that hooks have not received yet."""


class Agent:
    """The loop over the stacks of one store.

    Args:
        on_event: called with every event added to the history from now on, in order, by any process; must not block.
        hooks: offered the same events, as the stacks' manifests declare.
        interval: seconds between two looks at a target, overriding its stacks' policies.
        stacks: names of the stacks to keep; all if None.
        retention: how long to keep events and observations; forever if None.
        observer: observes the targets; by default one that opens a connection for each look.
        on_repaired: called with the result of each repair, when it is on record; must not block.
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
        on_repaired: Callable[[Repaired], None] = lambda _result: None,
    ) -> None:
        self.state = AgentState()
        self._fleet = fleet
        self._view = view
        self._hooks = hooks
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._poll_due = float("-inf")
        self._step_limit: asyncio.Timeout | None = None
        """Of the step in progress; set when a stop is requested."""
        self._schedule = Schedule()
        self._only = stacks
        self._heartbeat = Heartbeat(fleet, self.state, stacks)
        self._list = WatchList(fleet, self.state, stacks=stacks, interval=interval)
        self._recorder = Recorder(fleet, on_event=on_event, hooks=hooks, note=view.note)
        self._upkeep = Upkeep(
            fleet,
            self._list,
            retention=retention,
            record=self._recorder.add,
            faulty=lambda paths: self._looks.look_where_served(paths),
            changed=self._wake.set,
            note=view.note,
            bug=self._unexpected,
        )
        shared = (fleet, view, self.state, self._list, self._schedule)
        self._repairs = Repairs(
            *shared, record=self._recorder.add, faults=self._upkeep.faults, changed=self._repaired,
            bug=self._unexpected, repaired=on_repaired,
        )  # fmt: skip
        self._looks = Looks(
            *shared,
            observer=observer or Observer(fleet.dialer, fleet.clock),
            record=self._recorder,
            judge=self._repairs,
            changed=self._wake.set,
            bug=self._unexpected,
        )

    def look_now(self, target: str) -> None:
        """Look at a target without delay: something outside says that it has changed."""
        if (watched := self._list.targets.get(target)) is not None:
            self._looks.look_again(watched)
            self._wake.set()

    def request_stop(self) -> None:
        """End the main loop, and begin no further action. `shutdown` completes the actions in progress."""
        self.state.stopping = True
        self._repairs.stop()
        self._stop.set()
        self._wake.set()
        if self._step_limit is not None:
            with contextlib.suppress(RuntimeError):  # that step has ended
                self._step_limit.reschedule(asyncio.get_running_loop().time() + _LAST_WRITE_SECONDS)

    async def startup(self) -> None:
        """Read what to keep, and what killed commands left behind.

        Raises:
            InvalidError: one of the stacks to keep does not exist.
            GarrisonError: the store cannot be read.
        """
        await self._recorder.start()
        await self._follow()
        if missing := sorted(set(self._only or ()) - self._list.heads.keys()):
            raise no_stack(missing[0], await self._fleet.read(self._fleet.store.stacks, at=()))

    async def main_loop(self) -> None:
        """Run until `request_stop`.

        A failing store is tried again, less and less often; each reason is reported once until the store works again.
        """
        wait, reported = _FIRST_STORE_WAIT, set[str]()
        while not self._stop.is_set():
            try:
                async with asyncio.timeout(None) as self._step_limit:
                    await self.step()
                    await self._heartbeat.beat()
            except TimeoutError:
                self._view.note(f"the store did not answer within {_LAST_WRITE_SECONDS:g} s", "error")
                return
            except GarrisonError as error:
                self._poll_due = float("-inf")
                self.state.store_failures += 1
                if error.message not in reported and len(reported) < _MOST_REASONS:
                    self._view.note(f"the store failed, trying again: {error.message}", "error")
                    reported.add(error.message)
                _log.info("the store failed, waiting before the next try", seconds=wait, error=error.message)
                await self._stopped_within(wait)
                wait = min(_LONGEST_STORE_WAIT, 2 * wait)
                continue
            self.state.stepped_at = self._fleet.clock.monotonic()
            if reported:
                self._view.note("the store works again", "info")
            wait, reported = _FIRST_STORE_WAIT, set()
            await self._sleep(self._until_due())

    async def shutdown(self, seconds: float = 30.0) -> None:
        """Allow `seconds` for actions in progress, then cancel them; the next start settles what was interrupted."""
        await self._looks.close()
        await self._upkeep.close()
        await self._repairs.close(seconds)
        await self._recorder.close(_LAST_WRITE_SECONDS)
        await self._heartbeat.close()
        if self._hooks is not None:
            await self._hooks.close(_HOOKS_SECONDS)

    async def step(self) -> None:
        """Run one step, as described at the top of the module.

        Raises:
            GarrisonError: the store failed. Nothing that was seen is lost; call it again.
        """
        now = self._fleet.clock.monotonic()
        poll = self._looks.single or now >= self._poll_due
        news = poll or self._recorder.urgent or self._recorder.behind
        for record in await self._recorder.write(all_times=self._looks.single):
            self._looks.correct(record)
        if poll:
            self._poll_due = now + _POLL_SECONDS  # first, since a repair that ends meanwhile makes it due again
            await self._follow()
        await self._repairs.settle()
        self._repairs.hand_over()
        self._upkeep.begin_due()
        if news:
            await self._recorder.report()
        self._looks.begin_due()

    async def once(self) -> None:
        """Run one pass: look at every target, again where something was done, and complete what is due."""
        self._looks.single = True
        self._looks.all_due()
        try:
            while True:
                await self.step()
                if self._looks.busy or self._repairs.busy or self._recorder.waiting or self._recorder.behind:
                    await self._sleep(_POLL_SECONDS if self._looks.busy else _BATCH_SECONDS)
                elif not self._upkeep.reading:
                    return
                elif not await self._upkeep.read_through(_FILES_SECONDS):
                    self._view.note(f"the adapters' files could not be read within {_FILES_SECONDS:.0f} s")
                    return
        finally:
            self._looks.single = False

    async def _follow(self) -> None:
        """Read what other processes, and the agent's own repairs, changed in the store."""
        changes = await self._list.reload()
        if changes is None:
            return
        self._looks.follow(changes.targets)
        self._repairs.follow(changes.targets)
        if changes.stacks and self._hooks is not None:
            self._hooks.watch(self._list.declarations())

    def _repaired(self) -> None:
        self._poll_due = float("-inf")  # the look that confirms a repair is judged by what the repair recorded
        self._wake.set()

    def _unexpected(self, doing: str, error: BaseException) -> None:
        self.state.bugs += 1
        self.state.failed += 1
        self._view.note(f"a bug in Garrison, {doing}: {bug_words(error)}", "error")
        self._wake.set()

    def _until_due(self) -> float:
        wait = self._schedule.next_due() - self._fleet.clock.monotonic()
        return min(_POLL_SECONDS, max(_BATCH_SECONDS, wait))

    async def _sleep(self, seconds: float) -> None:
        """Sleep until something was seen or repaired, a stop is requested, or `seconds` have passed."""
        self._wake.clear()
        if self._recorder.urgent or self._recorder.behind or self._repairs.waiting:
            seconds = min(seconds, _BATCH_SECONDS)
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            if seconds >= _POLL_SECONDS:
                self._poll_due = float("-inf")
            return
        if self._looks.busy and not self._stop.is_set():  # more is on its way: write it together
            await asyncio.sleep(_BATCH_SECONDS)

    async def _stopped_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()
