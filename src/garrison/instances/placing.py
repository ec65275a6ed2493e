"""Finding room for an instance: the decisions of `room`, asked again whenever something changes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Protocol, TypeVar

from garrison.base.errors import ConflictError, GarrisonError
from garrison.base.logs import logger
from garrison.instances.book import Book
from garrison.instances.demand import cost_of_return
from garrison.instances.live import Live
from garrison.instances.room.choose import choose
from garrison.instances.room.explain import Explanation
from garrison.instances.room.ledger import foreign_bytes
from garrison.instances.room.second_try import (
    figures,
    make_all_room,
    ran_out_of_memory,
    with_all_that_is_free,
    worth_a_second_try,
)
from garrison.instances.room.values import (
    HOST,
    Decision,
    Device,
    Evict,
    Granted,
    Limits,
    Need,
    Never,
    Place,
    Resident,
    Wait,
)

__all__ = ["Devices", "Placer", "UnwantedError"]

T = TypeVar("T")
_AGAIN_SECONDS = 5.0
"""Memory that other programs free is not announced."""
_UNWANTED = "nobody waits for it any more"

_log = logger(__name__)


class Devices(Protocol):
    """The seam to the memory of this machine."""

    async def read(self) -> Sequence[Device]:
        """Return what there is now; without a device, memory does not limit."""

    async def look_up(self, live: Live) -> None:
        """Find out what `need` has to know about an instance, which may read its model's files."""

    def need(self, live: Live) -> Need:
        """Return what an instance takes, as far as that was looked up; not how long it has been waited for."""

    def grant(self, live: Live, need: Need, keys: Sequence[str]) -> Granted:
        """Return what an instance holds on these devices, and what its engine is told so that it keeps within that.

        Called in the step that decides, so it does not wait for anything.
        """

    async def measure(self, live: Live) -> Mapping[str, int]:
        """Return the bytes that a ready instance holds now, by device; nothing where that cannot be told."""

    def released(self, live: Live) -> AbstractAsyncContextManager[None]:
        """A context around the stop, or the sleep, of an engine. It ends when the memory of its GPUs is back, or after
        some seconds; until then the instance should count as holding it."""


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
        self.limits = limits
        self._evict = evict
        self._turn = asyncio.Lock()
        self._queue: list[tuple[Live, Callable[[], bool]]] = []
        self._foreign: dict[str, int] = {}

    async def run(
        self,
        live: Live,
        wanted: Callable[[], bool],
        say: Callable[[str], None],
        launch: Callable[[Granted], Awaitable[T]],
    ) -> T:
        """Place an instance and launch it there. If it runs out of memory, once more with everything idle gone.

        Args:
            wanted, say: as for `place`.

        Raises:
            ConflictError, UnwantedError: as `place`.
            GarrisonError: the launch failed. For want of memory, the message has the figures.
        """
        given = await self.place(live, wanted, say)
        try:
            return await launch(given)
        except GarrisonError as error:
            if not ran_out_of_memory(error.details, given.need):
                raise
            found = await self.explain(live)
            if not worth_a_second_try(found.need, found.residents, found.devices, self.limits):
                raise with_figures(error, found, given) from None
            _log.info("a start ran out of memory; once more with all room", name=live.name, error=error.message)
        given = await self.place(live, wanted, say, all_room=True)
        try:
            return await launch(given)
        except GarrisonError as error:
            if not ran_out_of_memory(error.details, given.need):
                raise
            raise with_figures(error, await self.explain(live), given) from None

    async def place(
        self, live: Live, wanted: Callable[[], bool], say: Callable[[str], None], *, all_room: bool = False
    ) -> Granted:
        """Wait for room, evicting others if that is necessary, and take it.

        Args:
            wanted: asked before anybody is evicted.
            say: called with what it waits for.
            all_room: everything idle goes first, whether that is necessary or not.

        Raises:
            ConflictError: it can never fit.
            UnwantedError: `wanted` is false; or it is gentle, and somebody would have to leave.
        """
        given: Granted | None = None
        stops_all = all_room
        ticket = (live, wanted)
        self._queue.append(ticket)
        try:
            while given is None:
                if not wanted():
                    raise UnwantedError(_UNWANTED)
                async with self._turn:  # between the question and its answer the devices are read
                    await self._devices.look_up(live)
                    devices = await self._devices.read()
                    found = self._behind(ticket, self._explained(live, devices, all_room=stops_all), devices)
                    if isinstance(found.decision, Never):
                        raise cannot_fit(found)
                    if not wanted():
                        raise UnwantedError(_UNWANTED)
                    if live.gentle and not live.waiters and not isinstance(found.decision, Place):
                        raise UnwantedError(f"there is no room for it now: {found.text}")
                    # No await from the decision to here: whoever is to go is still idle.
                    granted = self._take(live, found, grows=all_room)
                stops_all = stops_all and isinstance(found.decision, Wait)
                if isinstance(found.decision, Place):
                    given = granted
                else:
                    say(found.text)
                    await self._for_change(found.decision)
        finally:
            self._queue.remove(ticket)
            if given is None:
                live.give_back_place()
                self._book.tell()
        return given

    def granted(self, live: Live) -> Granted:
        """What an instance that has its place may hold there."""
        return self._devices.grant(live, self._devices.need(live), tuple(live.held or ()))

    async def explain(self, live: Live, *, all_room: bool = False) -> Explanation:
        """What would be done now, and why; nothing is."""
        await self._devices.look_up(live)
        return self._explained(live, await self._devices.read(), all_room=all_room)

    def _explained(self, live: Live, devices: Sequence[Device], *, all_room: bool = False) -> Explanation:
        now = asyncio.get_running_loop().time()
        need = replace(self._devices.need(live), group=live.spec.group, waited=live.oldest_wait(now))
        residents = tuple(self._resident(one, now) for one in self._book if one.held is not None)
        corrected = tuple(self._corrected(one, residents) for one in devices)
        decide = make_all_room if all_room else choose
        if live.home:
            # It sleeps on its GPUs. Where it would have to wait for them, others will do, at the price of a start.
            there = decide(replace(need, devices=live.home), residents, corrected, self.limits)
            if isinstance(there, Place | Evict):
                return Explanation(there, need, residents, corrected, self.limits)
            elsewhere = decide(need, residents, corrected, self.limits)
            best = elsewhere if isinstance(elsewhere, Place | Evict) else there
            return Explanation(best, need, residents, corrected, self.limits)
        return Explanation(decide(need, residents, corrected, self.limits), need, residents, corrected, self.limits)

    async def decide(self, live: Live) -> Decision:
        """What would be done now; nothing is."""
        return (await self.explain(live)).decision

    def _behind(
        self, ticket: tuple[Live, Callable[[], bool]], found: Explanation, devices: Sequence[Device]
    ) -> Explanation:
        """Let those that asked earlier go first, if they can go now. Those that cannot hold up nobody."""
        if not isinstance(found.decision, Place | Evict):
            return found
        for earlier, wanted in self._queue[: self._queue.index(ticket)]:
            can_go = not earlier.placed and wanted() and not earlier.gentle
            if can_go and isinstance(self._explained(earlier, devices).decision, Place | Evict):
                self._book.tell()  # it may not have noticed yet
                return replace(found, decision=Wait(f"{earlier.name} asked first"))
        return found

    def _take(self, live: Live, found: Explanation, *, grows: bool) -> Granted:
        """Take what was decided, and begin to evict."""
        decision, need = found.decision, found.need
        if not isinstance(decision, Place | Evict):
            live.give_back_place()
            return Granted()
        if grows and isinstance(decision, Place):
            need = with_all_that_is_free(need, decision.devices, found.residents, found.devices)
        granted = self._devices.grant(live, need, decision.devices)
        # The place is held while its former holders stop, so that nobody else takes it.
        live.placed, live.devices, live.held = True, granted.devices, dict(granted.held)
        for name in decision.victims if isinstance(decision, Evict) else ():
            if (victim := self._book.find(name)) is not None:
                self._evict(victim, live)
        return granted

    async def _for_change(self, found: Decision) -> None:
        if isinstance(found, Evict):
            # One that is being started cannot leave yet, so a change is waited for in any case.
            await self._book.changed(_AGAIN_SECONDS)
            while any((one := self._book.find(name)) is not None and one.stop is not None for name in found.victims):
                await self._book.changed(_AGAIN_SECONDS)
        else:
            seconds = found.seconds if isinstance(found, Wait) else None
            await self._book.changed(_AGAIN_SECONDS if seconds is None else min(_AGAIN_SECONDS, max(0.05, seconds)))

    def _corrected(self, device: Device, residents: Sequence[Resident]) -> Device:
        """A device with what other programs hold on it. While instances come and go that cannot be told, and what was
        known before counts."""
        found = foreign_bytes(device, residents)
        if found is not None:
            self._foreign[device.key] = found
        return replace(device, foreign=self._foreign.get(device.key, 0))

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
            cost=cost_of_return(live.record.costs, spec.weight),
            moving=live.engine is None or live.start is not None or live.stop is not None,
        )


def cannot_fit(found: Explanation) -> GarrisonError:
    why = found.decision.why
    return ConflictError(
        f"instance {found.need.name} cannot run here: {why}",
        hint="Change its devices or its memory, or the limits of the server.",
        details={"instance": found.need.name, "why": why, "host": HOST, "room": found.to_json()},
    )


def with_figures(error: GarrisonError, found: Explanation, given: Granted) -> GarrisonError:
    """The error of a start that ran out of memory, with what it was given and what is free."""
    return type(error)(
        f"{error.message}; {figures(found, given.held)}",
        hint=error.hint,
        details={**error.details, "room": found.to_json()},
    )
