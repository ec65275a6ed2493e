"""The twin of a gateway, as the fleet sees it: which adapters are asked for, and which are in use.

traffic = MemoryTraffic()
fleet = Fleet(…, traffic=traffic)
traffic.running["edge-1", "sql@3f2a9c1b7d04"] += 1           # a request is in progress
traffic.wanted.add(("edge-1", "sql"))                        # another one waits for an adapter on demand
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from garrison.fleet.values.demand import Demand, Place

__all__ = ["MemoryTraffic"]

_POLL_SECONDS = 0.1


class MemoryTraffic:
    """`AdapterTraffic` that a test plays the clients of.

    Attributes:
        running: requests in progress, by target and name there.
        wanted, unwanted: see `Demand`.
        tried: what `tries` returns.
        away: adapters that requests are kept away from now.
        kept_away: the same, ever, in order.
        tell: is called when requests have to go elsewhere, or may come back.
    """

    def __init__(self, running: Counter[Place] | None = None) -> None:
        self.running: Counter[Place] = Counter() if running is None else running
        self.wanted: set[Place] = set()
        self.unwanted: set[Place] = set()
        self.tried: Counter[Place] = Counter()
        self.away: set[Place] = set()
        self.kept_away: list[Place] = []
        self.tell: Callable[[], None] = lambda: None

    def demand(self) -> Demand:
        """As `AdapterTraffic.demand`."""
        in_use = frozenset(place for place, number in self.running.items() if number)
        return Demand(wanted=frozenset(self.wanted), unwanted=frozenset(self.unwanted), in_use=in_use)

    def tries(self, target: str, name: str) -> int:
        """As `AdapterTraffic.tries`."""
        return self.tried[target, name]

    @asynccontextmanager
    async def leaving(self, target: str, name: str, seconds: float) -> AsyncIterator[bool]:
        """As `AdapterTraffic.leaving`. Waits in steps, by the loop's time; not at all for what is not in use."""
        place = (target, name)
        self.away.add(place)
        self.kept_away.append(place)
        self.tell()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            while self.running[place] and loop.time() < deadline:  # noqa: ASYNC110 - a test changes a plain counter
                await asyncio.sleep(_POLL_SECONDS)
            yield not self.running[place]
        finally:
            self.away.discard(place)
            self.tell()
