"""How an instance stops serving: drained, then stopped or put to sleep; for a command, for another one, or when idle.

Each instance has at most one such job. One that merely rests is turned back while its last requests run, if somebody
asks for it again, or if whoever needed its memory has gone. Once it falls asleep, it is woken as soon as it sleeps.
"""

import asyncio
from collections.abc import Callable

from garrison.base.errors import SleepFailedError
from garrison.base.logs import logger
from garrison.instances.book import Book
from garrison.instances.live import Live
from garrison.instances.placing import Devices
from garrison.instances.runner import RunningEngine
from garrison.instances.settings import ManagerSettings
from garrison.instances.sleep_policy import Rest
from garrison.instances.sleeping import Sleeping
from garrison.instances.values.spec import InstanceSpec
from garrison.instances.values.state import State

__all__ = ["Stops", "idle_limit", "is_wanted"]

_DOOR_SECONDS = 2.0

_log = logger(__name__)


def is_wanted(live: Live) -> bool:
    """Whether somebody waits for it, or it should be running."""
    return live.record.wanted or bool(live.waiters)


class Stops:
    """Ends the service of the instances of one book.

    Args:
        start: begins to start or wake one; with True, in the place that it still holds.
    """

    def __init__(
        self,
        book: Book,
        sleeping: Sleeping,
        devices: Devices,
        settings: ManagerSettings,
        start: Callable[[Live, bool], None],
    ) -> None:
        self._book = book
        self._sleeping = sleeping
        self._devices = devices
        self.settings = settings
        self._start = start

    def stop(self, live: Live, reason: str) -> None:
        """Begin to drain and stop it, unless that is being done. Requests from now on wait for the next start."""
        if live.stop is None and live.engine is not None:
            live.bar()
            self._book.move(live, State.DRAINING, reason)
            live.stop = asyncio.create_task(self._stop(live, live.engine, reason), name=f"stop {live.name}")

    def rest(self, live: Live, reason: str, evictor: Live | None = None) -> None:
        """Begin to drain it and have it give up its memory: asleep, where that costs less than a stop and a start.

        Args:
            evictor: the one that needs the memory; None when it is merely idle.
        """
        if live.asleep:
            self.stop(live, reason)
        elif live.stop is None and live.engine is not None:
            live.bar()
            live.rests = True
            self._book.move(live, State.DRAINING, reason)
            live.stop = asyncio.create_task(self._rest(live, live.engine, reason, evictor), name=f"rest {live.name}")

    async def _stop(self, live: Live, engine: RunningEngine, reason: str) -> None:
        try:
            await self._drain(live, engine, lambda: False)
            async with self._devices.released(live):
                await engine.stop(reason)
        finally:
            self._stopped(live, reason)
        self._next(live)

    async def _rest(self, live: Live, engine: RunningEngine, reason: str, evictor: Live | None) -> None:
        try:
            await self._doors_closed(live)
            # It was idle when this was decided. A request that came through a door meanwhile is not to be cut.
            used = bool(live.outside)
            if used or not await self._drain(live, engine, lambda: _is_pointless(live, evictor)):
                self._turn_back(live, None if used else evictor)
                return
            rest = Rest(None, "") if live.leases else await self._fall_asleep(live, evictor)
        except asyncio.CancelledError:  # a stop follows, or this process ends
            live.stop, live.rests = None, False
            raise
        live.rests = False
        if rest.level is not None:
            self._sleeps(live, f"{reason}; {rest.why}", evictor)
        else:
            try:
                async with self._devices.released(live):
                    await engine.stop(reason)
            finally:
                self._stopped(live, f"{reason}; {rest.why}" if rest.why else reason)
        self._next(live)

    async def _drain(self, live: Live, engine: RunningEngine, pointless: Callable[[], bool]) -> bool:
        """Wait for the requests in progress, for a limited time. False if it has become pointless."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.drain_timeout
        while not pointless():
            left = deadline - loop.time()
            if not (live.leases or live.closing) or live.engine is not engine or left <= 0:
                return True
            live.on_idle = lambda _: self._book.tell()
            await self._book.changed(min(left, 1.0))
        return False

    async def _doors_closed(self, live: Live) -> None:
        """Wait until no door lets requests through. One that does not say so within the limit is gone."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _DOOR_SECONDS
        while live.closing and (left := deadline - loop.time()) > 0:
            await self._book.changed(left)

    async def _fall_asleep(self, live: Live, evictor: Live | None) -> Rest:
        """Put it to sleep if that is best; the level is None if it has to be stopped."""
        sleeper = live.sleeper
        try:
            rest = await self._sleeping.choose(live, waited_for=evictor is not None)
            if rest.level is None or sleeper is None:
                return Rest(None, "")
            await self._sleeping.sleep(live, rest.level)
        except SleepFailedError as error:
            if sleeper is not None and (level := live.record.sleep.level) is not None:
                self._sleeping.quarantine(live, sleeper, level, error)
            return Rest(None, f"sleep failed: {error.message}")
        except Exception as error:  # noqa: BLE001 - the outermost frame of a job
            _log.error("a sleep failed because of a bug", exception=error, name=live.name)
            return Rest(None, f"sleep failed because of a bug: {error!r}")
        return rest

    def _turn_back(self, live: Live, evictor: Live | None) -> None:
        live.stop, live.rests, live.again = None, False, False
        self._book.move(live, State.RUNNING, "asked for again" if evictor is None else f"{evictor.name} left")
        live.admit()
        self.watch_idleness(live)

    def _sleeps(self, live: Live, reason: str, evictor: Live | None) -> None:
        live.stop, live.asleep = None, True
        self._book.move(live, State.SLEEPING, reason)
        if evictor is None and (live.waiters or live.again):
            live.again, live.placed = False, True
            self._start(live, True)
        else:
            live.give_back_place()
            self._book.tell()

    def _stopped(self, live: Live, reason: str) -> None:
        live.gone()
        live.give_back_place()
        live.stop, live.rests = None, False
        self._sleeping.forget(live)
        self._book.move(live, State.STOPPED, f"{reason}; {live.leases} requests were cut" if live.leases else reason)

    def _next(self, live: Live) -> None:
        if live.waiters or live.again:
            live.again = False
            self._start(live, False)

    # Idleness

    def watch_idleness(self, live: Live) -> None:
        """Have it rest when it has been idle for long enough. Called when it becomes ready."""
        live.on_idle = self._on_idle
        if live.leases == 0:
            self._on_idle(live)

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
                self.rest(live, f"no request for {limit:g} s")

    def _idle_limit(self, live: Live) -> float | None:
        return idle_limit(live.spec, self.settings.idle)


def idle_limit(spec: InstanceSpec, default: float) -> float | None:
    """Return for how many seconds an instance without requests is kept; None for ever. Pure.

    Args:
        default: for those that do not say; 0 or less: for ever.
    """
    limit = default if spec.idle_seconds is None else spec.idle_seconds
    stays = spec.pin or spec.preload or not spec.on_demand
    return limit if limit > 0 and not stays else None


def _is_pointless(live: Live, evictor: Live | None) -> bool:
    """Whether a rest need not go on: it is asked for again, or whoever needed its memory has gone."""
    if live.engine is None:
        return False
    if evictor is None:
        return bool(live.waiters) or live.again
    return evictor.start is None or not is_wanted(evictor)
