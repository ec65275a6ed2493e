"""`AdapterTraffic` of a server: its workers send no further request to an adapter, and say when the last has ended."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from garrison.base.errors import GarrisonError
from garrison.fleet.values.demand import NOTHING_ASKED, Demand, Place
from garrison.server.adapters.loads import AdapterLoads
from garrison.server.adapters.records import AdapterRecords

__all__ = ["GatewayTraffic"]

_LOOK_SECONDS = 1.0
_READ_SECONDS = 2.0


class GatewayTraffic:
    """Belongs to one event loop. Before `begin` nothing is known: whatever may be in use counts as in use."""

    def __init__(self) -> None:
        self._records: AdapterRecords | None = None
        self._loads: AdapterLoads | None = None
        self._leaving: Counter[Place] = Counter()
        self._busy: set[Place] = set()
        self._watch: asyncio.Task[None] | None = None

    def begin(
        self,
        records: AdapterRecords,
        loads: AdapterLoads,
        *,
        read_again: Callable[[], Awaitable[None]],
        refresh: Callable[[], None],
        left: Callable[[str, str], Awaitable[bool]],
        look_now: Callable[[str], None],
    ) -> None:
        """Take what it works on.

        Args:
            read_again: reads what was recorded up to now.
            refresh: tells the workers what follows from that.
            left: returns when no worker has a request to a target that asks for a name; False: that is not known.
            look_now: has the agent look at a target.
        """
        self._records, self._loads = records, loads
        self._read_again, self._refresh, self._left, self._look_now = read_again, refresh, left, look_now

    def demand(self) -> Demand:
        """As `AdapterTraffic.demand`."""
        return NOTHING_ASKED if self._loads is None else self._loads.demand()

    def tries(self, target: str, name: str) -> int:
        """As `AdapterTraffic.tries`."""
        return 0 if self._loads is None else self._loads.tries(target, name)

    @asynccontextmanager
    async def leaving(self, target: str, name: str, seconds: float) -> AsyncIterator[bool]:
        """As `AdapterTraffic.leaving`."""
        records = self._records
        if records is None:
            yield False
            return
        place = (target, name)
        self._leaving[place] += 1
        try:
            unused = await self._emptied(records, place, seconds)
            if not unused:
                self._look_later(place)
            yield unused
        finally:
            try:
                with contextlib.suppress(TimeoutError, GarrisonError):
                    async with asyncio.timeout(_READ_SECONDS):
                        await self._read_again()  # what became of it
            finally:
                self._let_back(records, place)

    def _let_back(self, records: AdapterRecords, place: Place) -> None:
        self._leaving[place] -= 1
        self._leaving += Counter()  # drops those that are zero
        records.keep_away(self._leaving)
        self._refresh()

    async def _emptied(self, records: AdapterRecords, place: Place, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._read_again()  # the version that takes over may have been recorded just now
                records.keep_away(self._leaving)
                self._refresh()
                return await self._left(*records.upstream(*place))
        except (TimeoutError, GarrisonError):
            return False

    def _look_later(self, place: Place) -> None:
        """Have the agent look at the target when the adapter is not in use any more."""
        self._busy.add(place)
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_busy(), name="adapters in use")

    async def _watch_busy(self) -> None:
        while self._busy:
            await asyncio.sleep(_LOOK_SECONDS)
            for place in self._busy - self.demand().in_use:
                self._busy.discard(place)
                self._look_now(place[0])

    async def shutdown(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
