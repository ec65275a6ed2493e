"""Finding room for an instance: the decisions of `room`, asked again whenever something changes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from garrison.base.errors import ConflictError, GarrisonError
from garrison.instances.book import Book
from garrison.instances.live import Live
from garrison.instances.room.choose import choose
from garrison.instances.room.values import HOST, Decision, Device, Evict, Limits, Need, Never, Place, Resident, Wait

__all__ = ["Devices", "Placer", "UnwantedError"]

_AGAIN_SECONDS = 5.0
"""Memory that other programs free is not announced."""
_DEFAULT_COST_SECONDS = 30.0
_UNWANTED = "nobody waits for it any more"


class Devices(Protocol):
    """The seam to the memory of this machine."""

    async def read(self) -> Sequence[Device]:
        """Return what there is now; without a device, memory does not limit."""

    def need(self, live: Live) -> tuple[int | None, int]:
        """Return the bytes that an instance takes on each device, None if unknown, and how many GPUs; 0 for none."""

    async def measure(self, live: Live) -> Mapping[str, int]:
        """Return the bytes that a ready instance holds now, by device; nothing where that cannot be told."""


class UnwantedError(Exception):
    """Nobody wants the instance any more, so no room was made."""


class Placer:
    """Gives places to instances, in the order in which they ask.

    Args:
        evict: begins to have an instance give up its place for another one, without waiting for it; it is busy from
            then on.
    """

    def __init__(self, book: Book, devices: Devices, limits: Limits, evict: Callable[[Live, Live], None]) -> None:
        self._book = book
        self._devices = devices
        self._limits = limits
        self._evict = evict
        self._turn = asyncio.Lock()
        self._queue: list[tuple[Live, Callable[[], bool]]] = []

    async def place(self, live: Live, wanted: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Wait for room, evicting others if that is necessary, and take it.

        Args:
            wanted: asked before anybody is evicted.
            say: called with what it waits for.

        Raises:
            ConflictError: it can never fit.
            UnwantedError: `wanted` is false; or it is gentle, and somebody would have to leave.
        """
        placed, ticket = False, (live, wanted)
        self._queue.append(ticket)
        try:
            while not placed:
                if not wanted():
                    raise UnwantedError(_UNWANTED)
                async with self._turn:  # between the question and its answer the devices are read
                    devices = await self._devices.read()
                    found = self._behind(ticket, self._decide(live, devices), devices)
                    if isinstance(found, Never):
                        raise cannot_fit(live.name, found.why)
                    if not wanted():
                        raise UnwantedError(_UNWANTED)
                    if live.gentle and not live.waiters and not isinstance(found, Place):
                        raise UnwantedError(f"there is no room for it now: {found.why}")
                    placed = self._take(live, found)
                if not placed:
                    say(found.why)
                    await self._for_change(found)
        finally:
            self._queue.remove(ticket)
            if not placed:
                live.give_back_place()
                self._book.tell()

    def _take(self, live: Live, found: Decision) -> bool:
        """Take what was decided, and begin to evict; True if nothing is left to wait for."""
        if isinstance(found, Place | Evict):
            # The place is held while its former holders stop, so that nobody else takes it.
            bytes_, _ = self._devices.need(live)
            live.placed, live.devices = True, found.devices
            live.held = dict.fromkeys(found.devices, bytes_ or 0)
        else:
            live.give_back_place()
        for name in found.victims if isinstance(found, Evict) else ():
            if (victim := self._book.find(name)) is not None:
                self._evict(victim, live)
        return isinstance(found, Place)

    async def _for_change(self, found: Decision) -> None:
        if isinstance(found, Evict):
            # One that is being started cannot leave yet, so a change is waited for in any case.
            await self._book.changed(_AGAIN_SECONDS)
            while any((one := self._book.find(name)) is not None and one.stop is not None for name in found.victims):
                await self._book.changed(_AGAIN_SECONDS)
        else:
            seconds = found.seconds if isinstance(found, Wait) else None
            await self._book.changed(_AGAIN_SECONDS if seconds is None else min(_AGAIN_SECONDS, max(0.05, seconds)))

    def _behind(self, ticket: tuple[Live, Callable[[], bool]], found: Decision, devices: Sequence[Device]) -> Decision:
        """Let those that asked earlier go first, if they can go now. Those that cannot hold up nobody."""
        if not isinstance(found, Place | Evict):
            return found
        for earlier, wanted in self._queue[: self._queue.index(ticket)]:
            can_go = not earlier.placed and wanted() and not earlier.gentle
            if can_go and isinstance(self._decide(earlier, devices), Place | Evict):
                self._book.tell()  # it may not have noticed yet
                return Wait(f"{earlier.name} asked first")
        return found

    async def decide(self, live: Live) -> Decision:
        """What would be done now; nothing is."""
        return self._decide(live, await self._devices.read())

    def _decide(self, live: Live, devices: Sequence[Device]) -> Decision:
        bytes_, count = self._devices.need(live)
        now = asyncio.get_running_loop().time()
        need = Need(live.name, bytes_, count, live.spec.devices, live.spec.group, live.oldest_wait(now))
        residents = [self._resident(one, now) for one in self._book if one.held is not None]
        if not live.home:
            return choose(need, residents, devices, self._limits)
        # It sleeps on its GPUs. Where it would have to wait for them, others will do, at the price of a start.
        there = choose(replace(need, devices=live.home), residents, devices, self._limits)
        if isinstance(there, Place | Evict):
            return there
        elsewhere = choose(need, residents, devices, self._limits)
        return elsewhere if isinstance(elsewhere, Place | Evict) else there

    def _resident(self, live: Live, now: float) -> Resident:
        spec = live.spec
        return Resident(
            name=live.name,
            held=live.held or {},
            busy=live.busy or live.engine is None,
            pinned=spec.pin or (spec.idle_seconds is not None and spec.idle_seconds <= 0),
            group=spec.group,
            priority=spec.priority,
            idle=now - live.used_at,
            resident=now - live.ready_at,
            asleep=live.asleep and not live.placed,
            cost=live.record.costs.start_seconds or _DEFAULT_COST_SECONDS,
        )


def cannot_fit(name: str, why: str) -> GarrisonError:
    return ConflictError(
        f"instance {name} cannot run here: {why}",
        hint="Change its devices or its memory, or the limits of the server.",
        details={"instance": name, "why": why, "host": HOST},
    )
