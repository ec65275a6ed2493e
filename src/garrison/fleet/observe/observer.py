"""Observes many targets at once: one `GET /v1/models` per target, and exactly one sighting each, whatever happens.

The first lane has few places, so that thousands of requests do not run at once. A request that takes longer than a
short patience moves to a second, wider lane, and its place goes to the next target. Targets that were unknown at their
last observation begin in the second lane. Thus unreachable targets do not delay the others.
"""

import asyncio
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from garrison.base.clock import Clock, SystemClock
from garrison.fleet.values.observation import Capabilities, Served, Sighting, cause_of
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.vllm.capabilities import probe_capabilities
from garrison.fleet.vllm.model_list import judge
from garrison.net.transport import Dialer, TransportError

__all__ = ["Look", "Observer", "spare_descriptors"]

_PLACES = 128
_SECOND_LANE = 1024
_PATIENCE_SECONDS = 0.1
_SPARE_DESCRIPTORS = 256
"""File descriptors reserved for the database, logs, pipes and the rest of the process."""
_MODELS = "/v1/models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A target to observe, and what is known about it.

    Attributes:
        base: the base model that its list must contain; None: whichever it serves.
        served: the last believed list. If the new list is equal, this very object is returned.
        probe: probe its capabilities too. They are probed in any case if an adapter has disappeared, since the server
            may have been restarted.
        doubtful: the last observation was not believed; begin in the second lane.
    """

    target: TargetSpec
    base: str | None = None
    served: Mapping[str, Served] = field(default_factory=dict)
    probe: bool = False
    doubtful: bool = False


class Observer:
    """Observes targets.

    Args:
        places: requests of one call that run at once.
        second_lane: slow requests that run in addition, over all calls; the default respects the process's limit of
            file descriptors.
        patience: seconds after which a request moves to the second lane.
        kept: idle connections that `dialer` may hold; they need descriptors, too.
    """

    def __init__(
        self,
        dialer: Dialer[TargetSpec],
        clock: Clock | None = None,
        *,
        places: int = _PLACES,
        second_lane: int | None = None,
        patience: float = _PATIENCE_SECONDS,
        kept: int = 0,
    ) -> None:
        self._dialer = dialer
        self._clock = clock or SystemClock()
        self._places = places
        self._second_lane = _room(places, kept) if second_lane is None else second_lane
        self._patience = patience
        self._slow = 0

    async def observe(
        self, looks: Iterable[Look], seen: Callable[[Sighting], None] | None = None
    ) -> dict[str, Sighting]:
        """Return one sighting per look, by target name, in the order of completion.

        `seen` is called with each sighting immediately and must not block. Cancellation leaves no task behind.
        """
        cycle = _Cycle(self, looks, seen)
        return await cycle.run()

    async def look(self, look: Look) -> Sighting:
        """Observe one target. Never raises for what the server or the network does."""
        begun, at = time.perf_counter(), self._clock.now()
        target = look.target
        try:
            async with self._dialer.open(target) as connection:
                answer = await connection.request("GET", _MODELS, timeout=target.timeout)
                verdict = judge(answer, look.base, at, look.served)
                seconds = time.perf_counter() - begun
                probed: Capabilities | None = None
                if verdict.cause is None and (look.probe or _lost_one(look.served, verdict.served)):
                    probed = await probe_capabilities(connection, target.timeout)
        except TransportError as error:
            return Sighting(
                target=target.name,
                at=at,
                cause=cause_of(error),
                detail=error.detail,
                seconds=time.perf_counter() - begun,
            )
        return Sighting(
            target=target.name,
            at=at,
            cause=verdict.cause,
            detail=verdict.detail,
            served=verdict.served,
            base=verdict.base,
            retry_after=verdict.retry_after,
            seconds=seconds,
            capabilities=probed,
        )


class _Cycle:
    """One pass over a set of targets. A worker holds a place and processes looks until its place is taken away."""

    def __init__(self, observer: Observer, looks: Iterable[Look], seen: Callable[[Sighting], None] | None) -> None:
        self._observer = observer
        self._seen = seen
        self._waiting: deque[Look] = deque()
        self._doubtful: deque[Look] = deque()
        for look in looks:
            (self._doubtful if look.doubtful else self._waiting).append(look)
        self._busy: dict[int, float] = {}
        """Loop time at which each worker in a place began its current look; the oldest first."""
        self._numbers = 0
        self._workers = 0
        self._all_done = asyncio.Event()
        self._sightings: dict[str, Sighting] = {}

    async def run(self) -> dict[str, Sighting]:
        observer = self._observer
        async with asyncio.TaskGroup() as group:
            # Half of the second lane is reserved for looks that turn out to be slow.
            for _ in range(min(len(self._doubtful), max(1, observer._second_lane // 2 - observer._slow))):
                self._workers += 1
                group.create_task(self._work_slowly())
            for _ in range(min(len(self._waiting), observer._places)):
                self._start(group)
            if self._workers:
                self._sweep_later(group)
                try:
                    await self._all_done.wait()
                finally:  # before the group ends its tasks: nothing may be started then
                    self._sweep.cancel()
        return self._sightings

    def _sweep_later(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(self._observer._patience / 2, self._make_room, group)

    def _start(self, group: asyncio.TaskGroup) -> None:
        self._workers += 1
        self._numbers += 1
        self._busy[self._numbers] = asyncio.get_running_loop().time()
        group.create_task(self._work(self._numbers))

    def _make_room(self, group: asyncio.TaskGroup) -> None:
        """Move looks that exceeded their patience to the second lane, while it has room."""
        if not self._busy:
            return
        overdue = asyncio.get_running_loop().time() - self._observer._patience
        for number, begun in list(self._busy.items()):
            if begun > overdue or self._observer._slow >= self._observer._second_lane:  # ordered: the rest is younger
                break
            del self._busy[number]
            self._observer._slow += 1
            if self._waiting or self._doubtful:
                self._start(group)
        self._sweep_later(group)

    async def _work(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        try:
            while number in self._busy and (self._waiting or self._doubtful):
                del self._busy[number]  # insert again at the end, to keep the order by time
                self._busy[number] = loop.time()
                look = (self._waiting or self._doubtful).popleft()
                self._saw(await self._observer.look(look))
        finally:
            if self._busy.pop(number, None) is None:  # `_make_room` took the place: this look ran in the second lane
                self._observer._slow -= 1
            self._ended()

    async def _work_slowly(self) -> None:
        self._observer._slow += 1
        try:
            while self._doubtful:
                self._saw(await self._observer.look(self._doubtful.popleft()))
        finally:
            self._observer._slow -= 1
            self._ended()

    def _ended(self) -> None:
        self._workers -= 1
        if not self._workers:
            self._all_done.set()

    def _saw(self, sighting: Sighting) -> None:
        self._sightings[sighting.target] = sighting
        if self._seen is not None:
            self._seen(sighting)


def _lost_one(before: Mapping[str, Served], now: Mapping[str, Served]) -> bool:
    return before is not now and any(name not in now for name in before)


def _room(places: int, kept: int) -> int:
    """Return the width of the second lane that the process's limit of file descriptors permits."""
    return max(16, min(_SECOND_LANE, spare_descriptors(places) - kept))


def spare_descriptors(places: int = _PLACES) -> int:
    """Return how many file descriptors are left beside the requests in `places` and the rest of the process."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        allowed = 2**20
    return max(0, allowed - places - _SPARE_DESCRIPTORS)
