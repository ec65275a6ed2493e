"""Finding room for an instance: the decisions of `room`, asked again whenever something changes."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
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
        evict: begins to stop an instance to make room, without waiting for it; it is busy from then on.
    """

    def __init__(self, book: Book, devices: Devices, limits: Limits, evict: Callable[[Live, str], None]) -> None:
        self._book = book
        self._devices = devices
        self._limits = limits
        self._evict = evict
        self._turn = asyncio.Lock()

    async def place(self, live: Live, wanted: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Wait for room, evicting others if that is necessary, and take it.

        Args:
            wanted: asked before anybody is evicted.
            say: called with what it waits for.

        Raises:
            ConflictError: it can never fit.
            UnwantedError: `wanted` is false.
        """
        placed = False
        try:
            while not placed:
                if not wanted():
                    raise UnwantedError
                async with self._turn:  # between the question and its answer the devices are read
                    found = await self.decide(live)
                    if isinstance(found, Never):
                        raise cannot_fit(live.name, found.why)
                    if not wanted():
                        raise UnwantedError
                    placed = self._take(live, found)
                if not placed:
                    say(found.why)
                    await self._for_change(found)
        finally:
            if not placed:
                live.held, live.devices = None, ()
                self._book.tell()

    def _take(self, live: Live, found: Decision) -> bool:
        """Take what was decided, and begin to evict; True if nothing is left to wait for."""
        if isinstance(found, Place | Evict):
            # The place is held while its former holders stop, so that nobody else takes it.
            bytes_, _ = self._devices.need(live)
            live.devices = found.devices
            live.held = dict.fromkeys(found.devices, bytes_ or 0)
        else:
            live.held, live.devices = None, ()
        for name in found.victims if isinstance(found, Evict) else ():
            if (victim := self._book.find(name)) is not None:
                self._evict(victim, f"makes room for {live.name}")
        return isinstance(found, Place)

    async def _for_change(self, found: Decision) -> None:
        if isinstance(found, Evict):
            while any((one := self._book.find(name)) is not None and one.held is not None for name in found.victims):
                await self._book.changed(_AGAIN_SECONDS)
        else:
            seconds = found.seconds if isinstance(found, Wait) else None
            await self._book.changed(_AGAIN_SECONDS if seconds is None else min(_AGAIN_SECONDS, max(0.05, seconds)))

    async def decide(self, live: Live) -> Decision:
        """What would be done now; nothing is."""
        bytes_, count = self._devices.need(live)
        devices = await self._devices.read()
        now = asyncio.get_running_loop().time()
        need = Need(live.name, bytes_, count, live.spec.devices, live.spec.group, live.oldest_wait(now))
        return choose(
            need, [self._resident(one, now) for one in self._book if one.held is not None], devices, self._limits
        )

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
            cost=live.record.costs.start_seconds or _DEFAULT_COST_SECONDS,
        )


def cannot_fit(name: str, why: str) -> GarrisonError:
    return ConflictError(
        f"instance {name} cannot run here: {why}",
        hint="Change its devices or its memory, or the limits of the server.",
        details={"instance": name, "why": why, "host": HOST},
    )
