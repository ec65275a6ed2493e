"""What became of an instance while no server ran."""

from dataclasses import replace

from garrison.base.errors import GarrisonError
from garrison.instances.book import Book
from garrison.instances.lifecycle import Lifecycle
from garrison.instances.live import Live
from garrison.instances.runner import Launch, Runner, RunningEngine
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.state import Condition, State

__all__ = ["Adoption"]


class Adoption:
    """Takes over the engines that an earlier server left."""

    def __init__(self, book: Book, runner: Runner, life: Lifecycle, settings: ManagerSettings) -> None:
        self._book = book
        self._runner = runner
        self._life = life
        self._settings = settings

    async def resume(self, live: Live) -> None:
        """Adopt its engine, awake or asleep; nothing is started. Note whether it should run."""
        live.resumes = live.record.wanted
        if live.spec.preload:
            self._book.note(live, wanted=True)
        engine = await self._adopted(live)
        if engine is not None and live.record.sleep.level is not None:
            self._starting(live)
            if await self._life.adopt_asleep(live, engine):
                return
            await engine.stop("it slept when the last server ended, and does not tell whether it still does")
            engine = None
        if engine is not None and await _sleeps_unrecorded(engine):
            await engine.stop("it sleeps, and how is not on record")
            engine = None
        if engine is not None:
            if live.state is not State.RUNNING:
                self._starting(live)
            live.held = dict(live.record.costs.memory_bytes)
            self._life.serve(live, engine, live.record.costs, "adopted")
            return
        slept = replace(live.record.sleep, level=None, devices=(), held={}, answers={})
        condition = live.record.condition
        if live.state not in (State.STOPPED, State.FAILED) or live.record.wanted:
            condition = Condition(State.STOPPED, self._book.clock.now(), "it did not run when the server started")
        live.record = replace(live.record, sleep=slept, condition=condition)
        self._book.writer.put(live.record)

    def _starting(self, live: Live) -> None:
        live.record = replace(live.record, condition=Condition(State.STARTING, self._book.clock.now()))

    async def _adopted(self, live: Live) -> RunningEngine | None:
        if live.record.port is None:
            return None
        devices = live.record.sleep.devices
        try:
            return await self._runner.adopt(Launch(live.spec, live.record.port, devices, self._settings.stop_timeout))
        except GarrisonError as error:
            live.failure = error
            return None


async def _sleeps_unrecorded(engine: RunningEngine) -> bool:
    """Whether an engine sleeps that is on record as awake, because the record could not be written."""
    sleeper = await engine.sleeper()
    return sleeper is not None and await sleeper.asleep() is True
