"""What became of an instance while no server ran."""

import asyncio
from dataclasses import replace

from garrison.base.errors import GarrisonError
from garrison.instances.book import Book
from garrison.instances.lifecycle import Lifecycle
from garrison.instances.live import Live
from garrison.instances.placing import UnwantedError
from garrison.instances.runner import Launch, LeftEngine, Progress, Runner, RunningEngine
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.state import Condition, State

__all__ = ["Adoption"]

_READY_SECONDS = 1.0


class Adoption:
    """Takes over the engines that an earlier server left.

    An engine that is there keeps its place from the first step on. The rest is a start like any other: whoever asks
    for the instance joins it, and a stop ends it.
    """

    def __init__(self, book: Book, runner: Runner, life: Lifecycle, settings: ManagerSettings) -> None:
        self._book = book
        self._runner = runner
        self._life = life
        self._settings = settings

    async def resume(self) -> None:
        """Find every engine that was left, and wait for those that were ready before, for a limited time.

        Nothing is started. What should run is noted.
        """
        found = await asyncio.gather(*(self._resume(live) for live in self._book))
        await asyncio.sleep(0)  # a task that is cancelled before its first step would leave its engine behind
        were_ready = [job for job in found if job is not None]
        if were_ready:
            await asyncio.wait(were_ready, timeout=_READY_SECONDS)

    async def _resume(self, live: Live) -> "asyncio.Task[None] | None":
        """Begin to take over its engine. Returns the job, if it was ready when it was last seen."""
        live.resumes = live.record.wanted
        if live.spec.preload:
            self._book.note(live, wanted=True)
        left = await self._left(live)
        if left is None:
            self._does_not_run(live)
            return None
        before = live.state
        now = self._book.clock.now()
        live.record = replace(live.record, condition=Condition(State.STARTING, now, "left by the server before"))
        job = await self._life.take_over(live, lambda: self._take_over(live, left, before))
        return None if before is State.STARTING else job

    async def _left(self, live: Live) -> LeftEngine | None:
        if live.record.port is None:
            return None
        devices = live.record.sleep.devices
        try:
            return await self._runner.find(Launch(live.spec, live.record.port, devices, self._settings.stop_timeout))
        except GarrisonError as error:
            live.failure = error
            return None

    def _does_not_run(self, live: Live) -> None:
        slept = replace(live.record.sleep, level=None, devices=(), held={}, answers={})
        condition = live.record.condition
        if live.state not in (State.STOPPED, State.FAILED) or live.record.wanted:
            condition = Condition(State.STOPPED, self._book.clock.now(), "it did not run when the server started")
        live.record = replace(live.record, sleep=slept, condition=condition)
        self._book.writer.put(live.record)

    async def _take_over(self, live: Live, left: LeftEngine, before: State) -> None:
        """The job that ends in running or sleeping, or raises why it does not."""

        def show(progress: Progress) -> None:
            live.progress = progress
            self._book.tell()

        try:
            engine = await left.ready(show)
        except GarrisonError as error:
            if before is State.STARTING:
                raise
            live.failure = error
            raise UnwantedError(f"it ran before the server started, and does not any more: {error.message}") from None
        try:
            refused = await self._goes_on(live, engine)
        except asyncio.CancelledError:
            await engine.stop("the start was cancelled")
            raise
        if refused:
            await engine.stop(refused)
            raise UnwantedError(refused)

    async def _goes_on(self, live: Live, engine: RunningEngine) -> str:
        """Let it serve, or sleep, as it did. Returns why it cannot; empty if it does."""
        if live.record.sleep.level is not None:
            if await self._life.adopt_asleep(live, engine):
                return ""
            return "it slept when the last server ended, and does not tell whether it still does"
        if await _sleeps_unrecorded(engine):
            return "it sleeps, and how is not on record"
        live.start, live.progress, live.started_at = None, None, None
        self._life.serve(live, engine, live.record.costs, "adopted")
        return ""


async def _sleeps_unrecorded(engine: RunningEngine) -> bool:
    """Whether an engine sleeps that is on record as awake, because the record could not be written."""
    sleeper = await engine.sleeper()
    return sleeper is not None and await sleeper.asleep() is True
