"""Starting, waking, watching and restarting one instance after another's rules: the steps, with their effects.

Each instance has at most one start, one stop and one pending restart, each a task of its own that outlives whoever
asked for it. A step that decides and a change of the values it decided on are never separated by an `await`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from garrison.base.errors import GarrisonError, InternalError, NotReadyError, SleepFailedError
from garrison.base.logs import logger
from garrison.instances.book import Book
from garrison.instances.live import Live
from garrison.instances.placing import Devices, Placer, UnwantedError
from garrison.instances.room.values import HOST, Granted
from garrison.instances.runner import Launch, Progress, Runner, RunningEngine
from garrison.instances.settings import ManagerSettings
from garrison.instances.sleeping import Sleeping
from garrison.instances.stops import Stops, is_wanted
from garrison.instances.values.record import Costs
from garrison.instances.values.state import State

__all__ = ["Lifecycle"]

_FLUSH_SECONDS = 5.0
_MEASURE_SECONDS = 0.05
"""After an engine has become ready: the requests that waited for it come first."""
_ROUTER_SECONDS = 10.0
"""Between two measurements of what a router holds."""

_log = logger(__name__)


class Lifecycle:
    """Carries out the steps of all instances of one book.

    Attributes:
        stops: ends their service.
    """

    def __init__(self, book: Book, runner: Runner, devices: Devices, settings: ManagerSettings) -> None:
        sleeping = Sleeping(book, devices, settings)
        self.stops = Stops(book, sleeping, devices, settings, self._begin)
        self.placer = Placer(book, devices, settings.limits, self._evict)
        self._sleeping = sleeping
        self._book = book
        self._devices = devices
        self._runner = runner
        self._settings = settings

    def reconfigure(self, settings: ManagerSettings) -> None:
        """Take other settings, from the next decision on."""
        self._settings = settings
        self.placer.limits = settings.limits
        self.stops.settings = settings
        self._sleeping.settings = settings

    def _evict(self, victim: Live, evictor: Live) -> None:
        self.stops.rest(victim, f"makes room for {evictor.name}", evictor)

    # Starting

    def begin_start(self, live: Live, *, gentle: bool = False) -> None:
        """Start or wake it, unless it runs or is being started. One that is being stopped is started after that.

        Args:
            gentle: give up rather than make another instance leave.
        """
        if live.barred:
            return
        if not gentle:
            live.gentle = False
        if live.stop is not None:
            live.again = live.again or not live.waiters
            self._book.tell()
        elif live.start is None and (live.engine is None or live.asleep):
            live.gentle = gentle
            self._begin(live, False)

    def _begin(self, live: Live, placed: bool) -> None:
        if live.barred or live.start is not None:
            return
        self.cancel_restart(live)
        live.asked_at = asyncio.get_running_loop().time()
        if not placed:
            self._book.move(live, State.STARTING, "looking for room")
        steps = self._placed if placed else self._where_there_is_room
        live.start = asyncio.create_task(self._start(live, steps), name=f"start {live.name}")

    async def _placed(self, live: Live) -> RunningEngine | None:
        return await self._wake_or_launch(live, self.placer.granted(live))

    async def _where_there_is_room(self, live: Live) -> RunningEngine | None:
        return await self.placer.run(
            live,
            lambda: is_wanted(live),
            lambda why: self._waits(live, why),
            lambda given: self._wake_or_launch(live, given),
        )

    async def _start(self, live: Live, steps: Callable[[Live], Awaitable[RunningEngine | None]]) -> None:
        """The job of one start. It ends in running, sleeping, stopped or failed, and whoever waits gets the outcome.

        Args:
            steps: return the engine that was started; None where they have had one serve, or sleep, already.
        """
        try:
            live.progress, live.started_at = None, None
            engine = await steps(live)
        except UnwantedError as error:
            self._not_started(live, str(error))
        except asyncio.CancelledError:
            self._not_started(live, "the start was cancelled")
            raise
        except GarrisonError as error:
            self._failed(live, error)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a job
            _log.error("a start failed because of a bug", exception=error, name=live.name)
            self._failed(live, InternalError(f"a bug ended the start of {live.name}: {error!r}"))
        else:
            if engine is not None:
                self._now_runs(live, engine)

    async def _wake_or_launch(self, live: Live, given: Granted) -> RunningEngine | None:
        """Return the engine that was started; None if the one that slept was woken, and serves."""
        if live.asleep and await self._wake(live):
            return None
        return await self._launch(live, given)

    async def _launch(self, live: Live, given: Granted) -> RunningEngine:
        port = live.spec.port or await self._runner.free_port(self._ports_taken(), live.record.port)
        if port != live.record.port:
            self._book.note(live, port=port)
            await self._book.writer.flush(_FLUSH_SECONDS)  # without its port, the next server could not adopt it
        assert live.record.port is not None
        self._book.move(live, State.STARTING, "starting")
        live.started_at = live.began_at = asyncio.get_running_loop().time()
        launch = Launch(
            live.spec, live.record.port, live.devices, self._settings.stop_timeout, given.args, dict(given.env)
        )

        def show(progress: Progress) -> None:
            live.progress = progress
            self._book.tell()

        return await self._runner.start(launch, show)

    async def _wake(self, live: Live) -> bool:
        """Wake it where it sleeps. False if its engine had to be ended, so that it has to be started."""
        engine, sleeper, level = live.engine, live.sleeper, live.record.sleep.level
        if engine is None:
            return False
        if set(live.devices) != set(live.record.sleep.devices):
            await self._end_asleep(live, engine, "there is room for it on other GPUs")
            return False
        self._book.move(live, State.STARTING, "waking up")
        live.started_at = live.began_at = asyncio.get_running_loop().time()
        live.progress = Progress("waking up", 0.0)
        try:
            text = await self._sleeping.wake(live)
        except SleepFailedError as error:
            if sleeper is not None and level is not None:
                self._sleeping.quarantine(live, sleeper, level, error)
            await self._end_asleep(live, engine, error.message)
            self._book.move(live, State.STARTING, f"starting again: {error.message}", cause=error.code)
            return False
        if live.engine is not engine:  # it ended in the step before this one
            return False
        live.start, live.progress, live.started_at = None, None, None
        self._serves(live, engine, text)
        return True

    async def _end_asleep(self, live: Live, engine: RunningEngine, reason: str) -> None:
        """End an engine whose place is kept for the next one."""
        await engine.stop(reason)
        live.gone()
        self._sleeping.forget(live)

    def _waits(self, live: Live, why: str) -> None:
        self._book.move(live, State.STARTING, f"waiting for room: {why}")

    def _ports_taken(self) -> set[int]:
        ports = (port for one in self._book for port in (one.record.port, one.spec.port))
        return {port for port in ports if port is not None}

    def _now_runs(self, live: Live, engine: RunningEngine) -> None:
        live.start, live.progress, live.started_at = None, None, None
        costs = replace(live.record.costs, start_seconds=engine.seconds, phases=dict(engine.phases))
        self._sleeping.forget(live)
        self.serve(live, engine, costs, "ready")

    def serve(self, live: Live, engine: RunningEngine, costs: Costs, reason: str) -> None:
        """An engine is ready: requests go to it from now on, in the same step."""
        live.record = replace(live.record, costs=costs)
        self.watch(live, engine)
        self._serves(live, engine, reason)

    def watch(self, live: Live, engine: RunningEngine) -> None:
        """Notice when this engine ends."""
        live.engine = engine
        live.watch = asyncio.create_task(self._watch(live, engine), name=f"watch {live.name}")

    def _serves(self, live: Live, engine: RunningEngine, reason: str) -> None:
        live.held = live.held or {}
        live.resumes = False
        self._book.move(live, State.RUNNING, reason)
        live.ready(engine, asyncio.get_running_loop().time())
        if live.measure is not None:
            live.measure.cancel()
        live.measure = asyncio.create_task(self._measure(live, engine), name=f"measure {live.name}")
        self.stops.watch_idleness(live)

    async def _measure(self, live: Live, engine: RunningEngine) -> None:
        """Find out about an engine that has become ready."""
        await asyncio.sleep(_MEASURE_SECONDS)
        await asyncio.gather(self._ask_context(live, engine), self._ask_memory(live, engine))

    async def _ask_context(self, live: Live, engine: RunningEngine) -> None:
        context = await engine.context_length()
        if live.engine is engine and context is not None and context != live.context:
            live.context = context
            self._book.tell()

    async def _ask_memory(self, live: Live, engine: RunningEngine) -> None:
        """Find out what it takes, for its next start and for the room of the others, and whether it can sleep."""
        if live.sleeper is None:
            sleeper = await engine.sleeper()
            if live.engine is engine:
                live.sleeper = sleeper
        await self._measure_now(live, engine)
        while live.spec.router and live.engine is engine:  # its models come and go
            await asyncio.sleep(_ROUTER_SECONDS)
            await self._measure_now(live, engine)

    async def _measure_now(self, live: Live, engine: RunningEngine) -> None:
        held = dict(await self._devices.measure(live))
        if held and live.engine is engine and live.admits and not held == live.held == live.record.costs.memory_bytes:
            live.held = held
            self._book.note(live, costs=replace(live.record.costs, memory_bytes=held))
            self._book.tell()

    def _not_started(self, live: Live, reason: str) -> None:
        live.start, live.progress, live.started_at = None, None, None
        live.give_back_place()
        if not live.asleep:
            self._sleeping.forget(live)
        self._book.move(live, State.SLEEPING if live.asleep else State.STOPPED, reason)
        live.refuse_waiters(NotReadyError(f"instance {live.name} is not running: {reason}", details={"retry_after": 1}))

    def _failed(self, live: Live, error: GarrisonError) -> None:
        live.start, live.progress, live.started_at = None, None, None
        live.give_back_place()
        if live.asleep:  # it cannot get its place back; what it holds, it does not need any more
            self.stops.stop(live, error.message)
        else:
            self._fails(live, error, error.message)
        live.refuse_waiters(error)

    def _fails(self, live: Live, error: GarrisonError, text: str) -> None:
        live.failure, live.failed_at = error, asyncio.get_running_loop().time()
        live.failures += 1
        self._book.move(live, State.FAILED, text, cause=error.code)

    # Watching

    async def _watch(self, live: Live, engine: RunningEngine) -> None:
        error = await engine.ended()
        if error is None or live.engine is not engine:
            return
        loop = asyncio.get_running_loop()
        slept, waking = live.asleep, live.start is not None
        live.gone()
        if live.stop is not None or waking:
            return  # it was to end anyway, and the stop says so; or the start sees it, and keeps the place
        live.give_back_place()
        self._sleeping.forget(live)
        if slept:
            self._book.move(live, State.STOPPED, f"it ended while it was asleep: {error.message}", cause=error.code)
            return
        live.restarts = live.restarts.after_run(loop.time() - live.ready_at)
        delay = live.restarts.next_delay(live.spec.max_restarts, live.spec.restart_delay)
        if not live.spec.auto_restart or delay is None:
            tries = f" after {live.restarts.used} restarts" if live.restarts.used else ""
            self._fails(live, error, f"{error.message}{tries}")
            live.refuse_waiters(error)
            return
        live.restarts = live.restarts.one_more()
        live.failure = error
        self._book.move(live, State.RESTARTING, f"{error.message}; restart in {delay:g} s", cause=error.code)
        live.restart_at = loop.time() + delay
        live.restart = asyncio.create_task(self._restart_later(live, delay), name=f"restart {live.name}")

    async def _restart_later(self, live: Live, delay: float) -> None:
        await asyncio.sleep(delay)
        live.restart = None
        self._book.note(live, wanted=True)
        self.begin_start(live)

    def cancel_restart(self, live: Live) -> bool:
        """Whether there was a pending restart."""
        pending, live.restart = live.restart, None
        if pending is not None:
            pending.cancel()
        return pending is not None

    # Interrupting and adopting

    async def take_over(self, live: Live, steps: Callable[[], Awaitable[None]]) -> "asyncio.Task[None]":
        """Begin the start of an engine that is there already, in the place that it has. Returns its job.

        Args:
            steps: have it serve or sleep; see `_start` for what they may raise.
        """
        held = live.record.costs.memory_bytes or await self._estimated(live)
        live.placed, live.held, live.devices = True, dict(held), live.record.sleep.devices

        async def run(_: Live) -> None:
            await steps()

        live.start = asyncio.create_task(self._start(live, run), name=f"take over {live.name}")
        return live.start

    async def interrupt(self, live: Live) -> None:
        """End a start, and a rest that has not come to its end. The engine is then awake, asleep, or in between."""
        start, rest = live.start, live.stop if live.rests else None
        for task in (start, rest):
            if task is not None:
                task.cancel()
        found = [task for task in (start, rest) if task is not None]
        if found:
            await asyncio.wait(found)
        # A task that is cancelled before its first step does nothing at its end.
        if start is not None and live.start is start:
            self._not_started(live, "the start was cancelled")
        if rest is not None and live.stop is rest:
            live.stop, live.rests = None, False

    async def _estimated(self, live: Live) -> Mapping[str, int]:
        """What an engine that was never measured takes of the system's memory. Drivers tell what it takes of GPUs."""
        await self._devices.look_up(live)
        need = self._devices.need(live)
        return {} if need.count else self._devices.grant(live, need, (HOST,)).held

    async def adopt_asleep(self, live: Live, engine: RunningEngine) -> bool:
        """Take over an engine that was asleep, or on its way there or back, when the server before this one ended.

        One that sleeps is woken by the next request. One that is awake, but was not seen to answer as before, is woken
        and checked now, in the place that it has.

        Returns:
            False if it does not tell whether it sleeps; then it is not touched.
        """
        live.sleeper = await engine.sleeper()
        asleep = await live.sleeper.asleep() if live.sleeper is not None else None
        if asleep is None:
            return False
        live.asleep = True
        live.start, live.progress = None, None
        self.watch(live, engine)
        self._book.move(live, State.SLEEPING, "adopted")
        if asleep:
            held = dict(await self._devices.measure(live))
            kept = live.record.sleep
            live.record = replace(live.record, sleep=replace(kept, held=held or kept.held))
            live.give_back_place()
        else:
            self._begin(live, True)
        if live.waiters:
            self.begin_start(live)
        return True
