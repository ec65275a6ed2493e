"""The seam to a gateway in this process: which adapters its clients ask for, and what it still sends to them."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from garrison.fleet.values.demand import NOTHING_ASKED, Demand

__all__ = ["AdapterTraffic", "NoGateway"]


class AdapterTraffic(Protocol):
    def demand(self) -> Demand:
        """Return what clients ask for now."""

    def tries(self, target: str, name: str) -> int:
        """Return a number that changes when a failed load is to be tried again. `name` is the one that clients use."""

    def leaving(self, target: str, name: str, seconds: float) -> AbstractAsyncContextManager[bool]:
        """Keep requests away from an adapter, by its name on the target.

        Entered when the last request to it has ended, with True; or after `seconds`, with False. Until the context
        ends no further request is sent to it: requests go to another version, or wait.
        """


class NoGateway:
    """`AdapterTraffic` where nobody routes requests: nothing is asked for, and nothing is in progress."""

    def demand(self) -> Demand:
        """As `AdapterTraffic.demand`."""
        return NOTHING_ASKED

    def tries(self, target: str, name: str) -> int:
        """As `AdapterTraffic.tries`."""
        return 0

    @asynccontextmanager
    async def leaving(self, target: str, name: str, seconds: float) -> AsyncIterator[bool]:
        """As `AdapterTraffic.leaving`."""
        yield True
