"""What every operation on the fleet is given: its seams and its event bus, in one value."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from garrison.base.clock import Clock, SystemClock
from garrison.base.events import EventBus
from garrison.fleet.artifacts.protocol import Artifacts
from garrison.fleet.values.target import TargetSpec
from garrison.net.transport import Dialer
from garrison.store.fleet_store import FleetStore
from garrison.store.history_feed import HistoryFeed
from garrison.store.records import Event

__all__ = ["Fleet"]

_READERS = 3

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The seams of the fleet, and the events of its history.

    The store and the artifacts block, so they are called on threads: writes to the store on one thread, which keeps
    them in order, reads on a few others beside it, and the artifacts on a thread of their own.

    Attributes:
        events: the history as it happens, whichever process records it, while `feed` is pulled or running.
        feed: reads the history and publishes it on `events`.
    """

    store: FleetStore
    dialer: Dialer[TargetSpec]
    artifacts: Artifacts
    clock: Clock = field(default_factory=SystemClock)
    draws: random.Random = field(default_factory=random.Random)
    events: EventBus[Event] = field(init=False, repr=False)
    feed: HistoryFeed = field(init=False, repr=False)
    _database: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="garrison-store"), repr=False
    )
    _readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_READERS, thread_name_prefix="garrison-store-reader"), repr=False
    )
    _disk: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="garrison-disk"), repr=False
    )

    def __post_init__(self) -> None:
        self.events = EventBus()
        self.feed = HistoryFeed(self.store, self.events, self.read)

    async def db(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, a method of the store that writes, on the writer's thread."""
        done = await asyncio.get_running_loop().run_in_executor(self._database, lambda: call(*args, **kwargs))
        self.feed.written()
        return done

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, a method of the store that only reads, on a reader's thread.

        It does not wait for writes in progress: it sees those that the caller awaited, and perhaps no others.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: call(*args, **kwargs))

    async def disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, a method of the artifacts, on the disk's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """End the threads and close the store."""
        self._database.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._disk.shutdown(wait=True)
        self.store.close()
