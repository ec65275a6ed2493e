"""What every operation on the fleet is given: the seams, in one value."""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import ParamSpec, TypeVar

from garrison.base.clock import Clock, SystemClock
from garrison.fleet.artifacts.protocol import Artifacts
from garrison.fleet.values.target import TargetSpec
from garrison.net.transport import Dialer
from garrison.store.fleet_store import FleetStore

__all__ = ["Fleet"]

_READERS = 3

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The seams. The store and the artifacts block, so they are called in threads: writes to the store in one thread,
    which keeps them in order, reads beside it in a few others, and the artifacts in one of their own."""

    store: FleetStore
    dialer: Dialer[TargetSpec]
    artifacts: Artifacts
    clock: Clock = field(default_factory=SystemClock)
    draws: random.Random = field(default_factory=random.Random)
    _database: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="garrison-store"), repr=False
    )
    _readers: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(_READERS, thread_name_prefix="garrison-store-reader"), repr=False
    )
    _disk: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, thread_name_prefix="garrison-disk"), repr=False
    )

    async def db(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call`, a method of the store that writes, on the writer's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._database, lambda: call(*args, **kwargs))

    async def read(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call`, a method of the store that only reads. It does not wait for writes under way: it sees those that the
        caller awaited, and perhaps no others."""
        return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: call(*args, **kwargs))

    async def disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`call`, a method of the artifacts, on the disk's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, lambda: call(*args, **kwargs))

    def close(self) -> None:
        """End the threads and close the store."""
        self._database.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self._disk.shutdown(wait=True)
        self.store.close()
