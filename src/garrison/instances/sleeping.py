"""Putting an engine to sleep and waking it, with everything that is checked about it."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TypeVar

from garrison.base.errors import SleepFailedError
from garrison.base.logs import logger
from garrison.instances.book import Book
from garrison.instances.live import Live
from garrison.instances.placing import Devices
from garrison.instances.room.values import HOST
from garrison.instances.runner import RunningEngine, Sleeper
from garrison.instances.settings import ManagerSettings
from garrison.instances.sleep_policy import (
    Rest,
    Situation,
    changed_answer,
    choose_rest,
    deadline,
    memory_kept,
    memory_missing,
)
from garrison.instances.values.sleep import SleepCost, method

__all__ = ["Sleeping"]

T = TypeVar("T")
_POLL_SECONDS = 0.25
_FLUSH_SECONDS = 5.0

_log = logger(__name__)


class Sleeping:
    """The steps between awake and asleep. None of them decides when."""

    def __init__(self, book: Book, devices: Devices, settings: ManagerSettings) -> None:
        self._book = book
        self._devices = devices
        self.settings = settings

    async def choose(self, live: Live, *, waited_for: bool) -> Rest:
        """Whether it sleeps or stops."""
        host = next((one for one in await self._devices.read() if one.key == HOST), None)
        sleeper = live.sleeper
        if sleeper is None:
            return Rest(None, "the engine cannot sleep")
        held = live.held or {}
        return choose_rest(
            Situation(
                levels=sleeper.levels,
                declared=live.spec.sleep_level,
                costs=live.record.sleep.costs,
                start_seconds=live.record.costs.start_seconds,
                quarantined=frozenset(level for level in sleeper.levels if self._quarantined(live, sleeper, level)),
                waited_for=waited_for,
                host_bytes=sum(count for device, count in held.items() if device != HOST),
                host_free=None if host is None else host.free,
            )
        )

    async def sleep(self, live: Live, level: int) -> None:
        """Put a drained engine to sleep, and see that it sleeps and that its memory is free.

        Raises:
            SleepFailedError: one of that is not so. What the engine does is then not known.
        """
        sleeper = self._sleeper(live)
        if await sleeper.asleep() is not False:
            raise SleepFailedError(f"the engine of {live.name} does not say that it is awake")
        answers = await self._answers(live, sleeper, known=live.record.sleep.answers)
        before = dict(await self._devices.measure(live))
        # From here on it may be asleep, whatever becomes of this process.
        self._note(live, level=level, devices=live.devices, held=dict(live.held or {}), answers=answers)
        if before:
            self._book.note(live, costs=replace(live.record.costs, memory_bytes=before))
        await self._book.writer.flush(_FLUSH_SECONDS)
        loop = asyncio.get_running_loop()
        began = loop.time()
        cost = live.record.sleep.costs.get(level)
        await self._in_time(
            lambda seconds: sleeper.sleep(level, seconds), cost.sleep if cost is not None else None, live, "fall asleep"
        )
        seconds = loop.time() - began
        if await sleeper.asleep() is not True:
            raise SleepFailedError(f"the engine of {live.name} was put to sleep and does not say that it sleeps")
        kept = await self._until(live, before, memory_kept)
        if kept is not None:
            raise SleepFailedError(f"the engine of {live.name} sleeps and has not given back its memory: {kept}")
        self._asleep(live, level, seconds, dict(await self._devices.measure(live)))

    async def wake(self, live: Live) -> str:
        """Wake an engine, and see that its memory is back and that its models answer as before its first sleep.

        Returns:
            What there is to say about it.

        Raises:
            SleepFailedError: one of that is not so. The engine must not be used any more.
        """
        sleeper, level = self._sleeper(live), live.record.sleep.level
        assert level is not None, "something that is asleep has a level"
        loop = asyncio.get_running_loop()
        began = loop.time()
        cost = live.record.sleep.costs.get(level)
        if await sleeper.asleep() is None:
            raise SleepFailedError(f"the engine of {live.name} does not say whether it sleeps")
        loaded = await self._in_time(
            lambda seconds: sleeper.wake(level, seconds), cost.wake if cost is not None else None, live, "wake up"
        )
        seconds = loop.time() - began
        if await sleeper.asleep() is not False:
            raise SleepFailedError(f"the engine of {live.name} was woken and does not say that it is awake")
        missing = await self._until(live, live.record.costs.memory_bytes, memory_missing)
        if missing is not None:
            raise SleepFailedError(f"the engine of {live.name} is awake without its memory: {missing}")
        before = live.record.sleep.answers
        changed = changed_answer(before, await self._answers(live, sleeper, known={}))
        if changed is not None:
            raise SleepFailedError(f"the engine of {live.name} does not answer as before its sleep: {changed}")
        if cost is not None:
            self._note(live, costs={**live.record.sleep.costs, level: replace(cost, wake=seconds)})
        self._note(live, level=None, devices=(), held={})
        self._book.note(live, costs=replace(live.record.costs, wake_seconds=seconds))
        again = f"; {loaded} adapters were loaded again" if loaded else ""
        return f"awake after {seconds:.1f} s of sleep level {level}'s way back{again}"

    def forget(self, live: Live) -> None:
        """The engine has ended: it sleeps no longer, and the next one answers for itself."""
        if live.record.sleep.level is not None or live.record.sleep.answers:
            self._note(live, level=None, devices=(), held={}, answers={})

    def quarantine(self, live: Live, sleeper: Sleeper, level: int, error: SleepFailedError) -> None:
        """Use this level no longer with this model and this version of the engine."""
        key = method(live.spec.engine, sleeper.version, live.spec.model, level)
        _log.warning("sleep has failed and is not used any more", name=live.name, method=key, reason=error.message)
        self._note(live, quarantine={**live.record.sleep.quarantine, key: error.message})

    def _quarantined(self, live: Live, sleeper: Sleeper, level: int) -> bool:
        key = method(live.spec.engine, sleeper.version, live.spec.model, level)
        return any(key in one.record.sleep.quarantine for one in self._book)

    def _asleep(self, live: Live, level: int, seconds: float, held: dict[str, int]) -> None:
        host = None
        if self._sleeper(live).levels.get(level) == "host" and HOST not in held:
            host = held[HOST] = self._engine(live).memory_bytes()
        before = live.record.sleep.costs.get(level)
        cost = SleepCost(seconds, before.wake if before is not None else None, host)
        self._note(live, held=held, costs={**live.record.sleep.costs, level: cost})
        self._book.note(live, costs=replace(live.record.costs, sleep_seconds=seconds))

    async def _answers(self, live: Live, sleeper: Sleeper, known: Mapping[str, str]) -> dict[str, str]:
        """The answers of every model that is served. Those that are known are not asked for again."""
        found = {f"{name}@{path}": name for name, path in (await sleeper.models()).items()}
        return {key: known[key] if key in known else await sleeper.answer(name) for key, name in found.items()}

    async def _in_time(self, call: Callable[[float], Awaitable[T]], measured: float | None, live: Live, what: str) -> T:
        seconds = deadline(measured, self.settings.sleep_timeout)
        try:
            async with asyncio.timeout(seconds):
                return await call(seconds)
        except TimeoutError:
            raise SleepFailedError(f"the engine of {live.name} did not {what} within {seconds:g} s") from None

    async def _until(
        self, live: Live, before: Mapping[str, int], judge: Callable[[Mapping[str, int], Mapping[str, int]], str | None]
    ) -> str | None:
        """Ask for the memory until the judge has nothing to say; what it says at the end of the time.

        A driver returns memory some time after it was given back.
        """
        if not before:
            return None
        until = asyncio.get_running_loop().time() + self.settings.memory_timeout
        while (found := judge(before, await self._devices.measure(live))) is not None:
            if asyncio.get_running_loop().time() >= until:
                return found
            await asyncio.sleep(_POLL_SECONDS)
        return None

    def _note(self, live: Live, **changes: object) -> None:
        self._book.note(live, sleep=replace(live.record.sleep, **changes))  # type: ignore[arg-type]  # by name

    def _sleeper(self, live: Live) -> Sleeper:
        if live.sleeper is None:
            raise SleepFailedError(f"the engine of {live.name} has ended")
        return live.sleeper

    def _engine(self, live: Live) -> RunningEngine:
        if live.engine is None:
            raise SleepFailedError(f"the engine of {live.name} has ended")
        return live.engine
