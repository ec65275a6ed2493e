"""What every operation on the fleet is given: its seams and its event bus, in one value."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from garrison.base.clock import Clock, SystemClock
from garrison.base.events import EventBus
from garrison.fleet.adapter_traffic import AdapterTraffic, NoGateway
from garrison.fleet.artifacts.protocol import Artifacts
from garrison.fleet.instance_actions import InstanceActions
from garrison.fleet.values.target import TargetSpec
from garrison.net.thread_pool import ThreadPool
from garrison.net.transport import Dialer
from garrison.store.fleet_store import FleetStore
from garrison.store.history_feed import HistoryFeed
from garrison.store.records import Event

__all__ = ["Fleet"]

_READERS = 3
_CLOSE_SECONDS = 5.0

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The seams of the fleet, and the events of its history.

    The store and the artifacts block, so they are called on threads: writes to the store on one thread, which keeps
    them in order, reads on a few others beside it, and the artifacts on a thread of their own.

    Attributes:
        instances: who runs instances; None where nobody does.
        traffic: the gateway of this process.
        events: the history as it happens, whichever process records it, while `feed` is pulled or running.
        feed: reads the history and publishes it on `events`.
    """

    store: FleetStore
    dialer: Dialer[TargetSpec]
    artifacts: Artifacts
    instances: InstanceActions | None = None
    traffic: AdapterTraffic = field(default_factory=NoGateway)
    clock: Clock = field(default_factory=SystemClock)
    draws: random.Random = field(default_factory=random.Random)
    events: EventBus[Event] = field(init=False, repr=False)
    feed: HistoryFeed = field(init=False, repr=False)
    _database: ThreadPool = field(default_factory=lambda: ThreadPool("garrison-store"), repr=False)
    _readers: ThreadPool = field(default_factory=lambda: ThreadPool("garrison-store-reader", _READERS), repr=False)
    _disk: ThreadPool = field(default_factory=lambda: ThreadPool("garrison-disk"), repr=False)

    def __post_init__(self) -> None:
        self.events = EventBus()
        self.feed = HistoryFeed(self.store, self.events, self.read)

    async def db(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, a method of the store that writes, on the writer's thread."""
        done = await self._database.run(lambda: call(*args, **kwargs), _name_of(call))
        self.feed.written()
        return done

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, a method of the store that only reads, on a reader's thread.

        It does not wait for writes in progress: it sees those that the caller awaited, and perhaps no others.
        """
        return await self._readers.run(lambda: call(*args, **kwargs), _name_of(call))

    async def disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `call`, a method of the artifacts, on the disk's thread."""
        path = f" {args[0]}" if args and isinstance(args[0], str) else ""
        return await self._disk.run(lambda: call(*args, **kwargs), _name_of(call) + path)

    def close(self, seconds: float = _CLOSE_SECONDS) -> list[str]:
        """End the threads and close the store.

        Returns the calls that did not end within `seconds`, as on a disk or a database that hangs. Their threads are
        left behind, and do not keep the process from exiting.
        """
        deadline = time.monotonic() + seconds
        pools = (self._database, self._readers, self._disk)
        left = [one for pool in pools for one in pool.close(max(0.0, deadline - time.monotonic()))]
        self.store.close()
        return left


def _name_of(call: Callable[..., object]) -> str:
    return getattr(call, "__name__", type(call).__name__)
