"""Starting, watching, restarting and stopping one instance after another's rules: the steps, with their effects.

Each instance has at most one start, one stop and one pending restart, each a task of its own that outlives whoever
asked for it. A step that decides and a change of the values it decided on are never separated by an `await`.
"""

import asyncio
from dataclasses import replace

from garrison.base.errors import GarrisonError, InternalError, NotReadyError
from garrison.base.logs import logger
from garrison.instances.book import Book
from garrison.instances.live import Live
from garrison.instances.placing import Devices, Placer, UnwantedError
from garrison.instances.room.values import Granted
from garrison.instances.runner import Launch, Progress, Runner, RunningEngine
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.record import Costs
from garrison.instances.values.state import State

__all__ = ["Lifecycle"]

_log = logger(__name__)


class Lifecycle:
    """Carries out the steps of all instances of one book."""

    def __init__(self, book: Book, runner: Runner, devices: Devices, settings: ManagerSettings) -> None:
        self.placer = Placer(book, devices, settings.limits, self.begin_stop)
        self._book = book
        self._devices = devices
        self._runner = runner
        self._settings = settings

    # Starting

    def begin_start(self, live: Live) -> None:
        """Start it, unless it runs or is being started. An instance that is being stopped is started after that."""
        if live.start is not None or (live.engine is not None and live.stop is None):
            return
        self.cancel_restart(live)
        live.start = asyncio.create_task(self._start(live), name=f"start {live.name}")

    async def _start(self, live: Live) -> None:
        """The job of one start. It ends in running, stopped or failed, and whoever waits gets the outcome."""
        try:
            if live.stop is not None:
                await asyncio.wait([live.stop])
            live.started_at = asyncio.get_running_loop().time()
            live.progress = None
            self._book.move(live, State.STARTING, "waiting for room")
            engine = await self.placer.run(
                live,
                lambda: self._is_wanted(live),
                lambda why: self._waits(live, why),
                lambda given: self._launch(live, given),
            )
        except UnwantedError:
            self._not_started(live, "nobody waits for it any more")
        except asyncio.CancelledError:
            self._not_started(live, "the start was cancelled")
            raise
        except GarrisonError as error:
            self._failed(live, error)
        except Exception as error:  # noqa: BLE001 - the outermost frame of a job
            _log.error("a start failed because of a bug", exception=error, name=live.name)
            self._failed(live, InternalError(f"a bug ended the start of {live.name}: {error!r}"))
        else:
            self._now_runs(live, engine)

    async def _launch(self, live: Live, given: Granted) -> RunningEngine:
        port = live.spec.port or await self._runner.free_port(self._port_is_taken, live.record.port)
        if port != live.record.port:
            self._book.note(live, port=port)
        assert live.record.port is not None
        self._book.move(live, State.STARTING, "starting")
        launch = Launch(
            live.spec, live.record.port, live.devices, self._settings.stop_timeout, given.args, dict(given.env)
        )

        def show(progress: Progress) -> None:
            live.progress = progress
            self._book.tell()

        return await self._runner.start(launch, show)

    def _is_wanted(self, live: Live) -> bool:
        return live.record.wanted or bool(live.waiters)

    def _waits(self, live: Live, why: str) -> None:
        self._book.move(live, State.STARTING, f"waiting for room: {why}")

    def _port_is_taken(self, port: int) -> bool:
        return any(port in (one.record.port, one.spec.port) for one in self._book)

    def _now_runs(self, live: Live, engine: RunningEngine) -> None:
        live.start, live.progress = None, None
        costs = replace(live.record.costs, start_seconds=engine.seconds, phases=dict(engine.phases))
        self.serve(live, engine, costs, "ready")

    def serve(self, live: Live, engine: RunningEngine, costs: Costs, reason: str) -> None:
        """An engine is ready: requests go to it from now on, in the same step."""
        now = asyncio.get_running_loop().time()
        live.record = replace(live.record, costs=costs)
        live.held = live.held or {}
        live.on_idle = self._on_idle
        live.watch = asyncio.create_task(self._watch(live, engine), name=f"watch {live.name}")
        self._book.move(live, State.RUNNING, reason)
        live.ready(engine, now)
        live.measure = asyncio.create_task(self._measure(live, engine), name=f"measure {live.name}")
        if live.leases == 0:
            self._on_idle(live)

    async def _measure(self, live: Live, engine: RunningEngine) -> None:
        """Find out what it takes, for its next start and for the room of the others."""
        held = dict(await self._devices.measure(live))
        if held and live.engine is engine:
            live.held = held
            self._book.note(live, costs=replace(live.record.costs, memory_bytes=held))
            self._book.tell()

    def _not_started(self, live: Live, reason: str) -> None:
        live.start, live.progress, live.held, live.devices = None, None, None, ()
        self._book.move(live, State.STOPPED, reason)
        live.refuse_waiters(NotReadyError(f"instance {live.name} is not running: {reason}", details={"retry_after": 1}))

    def _failed(self, live: Live, error: GarrisonError) -> None:
        live.start, live.progress, live.held, live.devices = None, None, None, ()
        live.failure, live.failed_at = error, asyncio.get_running_loop().time()
        self._book.move(live, State.FAILED, error.message, cause=error.code)
        live.refuse_waiters(error)

    # Watching

    async def _watch(self, live: Live, engine: RunningEngine) -> None:
        error = await engine.ended()
        if error is None or live.engine is not engine:
            return
        loop = asyncio.get_running_loop()
        live.engine, live.admits, live.held, live.devices = None, False, None, ()
        live.restarts = live.restarts.after_run(loop.time() - live.ready_at)
        delay = live.restarts.next_delay(live.spec.max_restarts, live.spec.restart_delay)
        if live.stop is not None:
            return  # it was to end anyway, and the stop says so
        if not live.spec.auto_restart or delay is None:
            tries = f" after {live.restarts.used} restarts" if live.restarts.used else ""
            live.failure, live.failed_at = error, loop.time()
            self._book.move(live, State.FAILED, f"{error.message}{tries}", cause=error.code)
            live.refuse_waiters(error)
            return
        live.restarts = live.restarts.one_more()
        self._book.move(live, State.RESTARTING, f"{error.message}; restart in {delay:g} s", cause=error.code)
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

    # Stopping

    def begin_stop(self, live: Live, reason: str) -> None:
        """Drain and stop it, unless that is being done. Requests that come from now on wait for the next start."""
        if live.stop is not None or live.engine is None:
            return
        live.admits = False
        self._book.move(live, State.DRAINING, reason)
        live.stop = asyncio.create_task(self._stop(live, live.engine, reason), name=f"stop {live.name}")

    async def _stop(self, live: Live, engine: RunningEngine, reason: str) -> None:
        try:
            cut = await self._drain(live)
            async with self._devices.released(live):
                await engine.stop(reason)
        finally:
            live.engine, live.held, live.devices, live.stop = None, None, (), None
            text = f"{reason}; {cut} requests were cut" if cut else reason
            self._book.move(live, State.STOPPED, text)
        if live.waiters and live.start is None:
            self.begin_start(live)

    async def _drain(self, live: Live) -> int:
        """Wait for the requests in progress; how many are still there at the end."""
        deadline = asyncio.get_running_loop().time() + self._settings.drain_timeout
        while live.leases and (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._on_last_release(live)
            await self._book.changed(min(left, 1.0))
        return live.leases

    def _on_last_release(self, live: Live) -> None:
        live.on_idle = lambda _: self._book.tell()

    # Idleness

    def _on_idle(self, live: Live) -> None:
        """The last request ended. Look again when it has been idle for long enough."""
        self._book.tell()
        limit = self._idle_limit(live)
        if limit is not None:
            loop = asyncio.get_running_loop()
            loop.call_at(live.used_at + limit, self._look_idle, live, live.used_at)

    def _look_idle(self, live: Live, since: float) -> None:
        if live.engine is not None and live.admits and live.leases == 0 and live.used_at == since:
            limit = self._idle_limit(live)
            if limit is not None and asyncio.get_running_loop().time() - since >= limit - 0.001:
                self._book.note(live, wanted=False)
                self.begin_stop(live, f"no request for {limit:g} s")

    def _idle_limit(self, live: Live) -> float | None:
        own = live.spec.idle_seconds
        limit = self._settings.idle if own is None else own
        return limit if limit > 0 and live.spec.on_demand and not live.spec.pin else None
