"""Looking at many targets at once: one `GET /v1/models` each, and exactly one sighting each, whatever happens.

Places are few, so that thousands of looks do not all run at once, and a place is not kept for long: a look that is not
done after a short patience goes on in a second, wider lane, and its place goes to the next. Targets that were unknown
at their last look begin in the second lane. So targets that are out of reach cost their own time and nobody else's.
"""

import asyncio
import resource
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from garrison.base.clock import Clock, SystemClock
from garrison.fleet.judge import judge
from garrison.fleet.observation import Capabilities, Served, Sighting, cause_of
from garrison.fleet.probe_capabilities import probe_capabilities
from garrison.fleet.target import TargetSpec
from garrison.net.transport import Dialer, TransportError

__all__ = ["Look", "Observer"]

_PLACES = 128
_SECOND_LANE = 1024
_PATIENCE_SECONDS = 0.1
_SPARE_DESCRIPTORS = 256
"""For the database, logs, pipes and whoever else is in this process."""
_MODELS = "/v1/models"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One target to look at, and what is known of it.

    Attributes:
        base: the base model by which its list is believed; None: the one it serves.
        served: the last believed list. An equal list is given back as this very object.
        probe: ask for its capabilities too. This is done anyway when an adapter is gone that was there, since the
            server may have been restarted.
        doubtful: the last look was not believed; it begins in the second lane.
    """

    target: TargetSpec
    base: str | None = None
    served: Mapping[str, Served] = field(default_factory=dict)
    probe: bool = False
    doubtful: bool = False


class Observer:
    """Looks at targets.

    Args:
        places: looks of one call that run at once.
        second_lane: slow looks that run besides, those of all calls together; less where the process may not have as
            many descriptors.
        patience: seconds after which a look gives its place back.
    """

    def __init__(
        self,
        dialer: Dialer[TargetSpec],
        clock: Clock | None = None,
        *,
        places: int = _PLACES,
        second_lane: int | None = None,
        patience: float = _PATIENCE_SECONDS,
    ) -> None:
        self._dialer = dialer
        self._clock = clock or SystemClock()
        self._places = places
        self._second_lane = _room(places) if second_lane is None else second_lane
        self._patience = patience
        self._slow = 0

    async def observe(
        self, looks: Iterable[Look], seen: Callable[[Sighting], None] | None = None
    ) -> dict[str, Sighting]:
        """One sighting a look, by target name, in the order they came; `seen` is told of each at once, and must return
        at once. Cancelling it leaves nothing behind."""
        cycle = _Cycle(self, looks, seen)
        return await cycle.run()

    async def look(self, look: Look) -> Sighting:
        """Look at one target."""
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
    """One pass over some targets. A worker has a place and takes look after look, until its place is taken from it."""

    def __init__(self, observer: Observer, looks: Iterable[Look], seen: Callable[[Sighting], None] | None) -> None:
        self._observer = observer
        self._seen = seen
        self._waiting: deque[Look] = deque()
        self._doubtful: deque[Look] = deque()
        for look in looks:
            (self._doubtful if look.doubtful else self._waiting).append(look)
        self._busy: dict[int, float] = {}
        """Looks in a place, by worker, with the loop's time when each began; the longest-running first."""
        self._numbers = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._sightings: dict[str, Sighting] = {}

    async def run(self) -> dict[str, Sighting]:
        observer = self._observer
        try:
            async with asyncio.TaskGroup() as group:
                # Half of the second lane is for those that turn out to be slow.
                for _ in range(min(len(self._doubtful), max(1, observer._second_lane // 2 - observer._slow))):
                    group.create_task(self._work_slowly())
                for _ in range(min(len(self._waiting), observer._places)):
                    self._start(group)
                self._sweep_later(group)
        finally:
            if self._sweep is not None:
                self._sweep.cancel()
        return self._sightings

    def _sweep_later(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        self._sweep = loop.call_later(self._observer._patience / 2, self._make_room, group)

    def _start(self, group: asyncio.TaskGroup) -> None:
        self._numbers += 1
        self._busy[self._numbers] = asyncio.get_running_loop().time()
        group.create_task(self._work(self._numbers))

    def _make_room(self, group: asyncio.TaskGroup) -> None:
        """Send the looks that have used up their patience to the second lane, as far as it has room."""
        if not self._busy:
            return
        overdue = asyncio.get_running_loop().time() - self._observer._patience
        for number, begun in list(self._busy.items()):
            if begun > overdue or self._observer._slow >= self._observer._second_lane:
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
                del self._busy[number]
                self._busy[number] = loop.time()  # now the last one
                look = (self._waiting or self._doubtful).popleft()
                self._saw(await self._observer.look(look))
        finally:
            if self._busy.pop(number, None) is None:
                self._observer._slow -= 1

    async def _work_slowly(self) -> None:
        self._observer._slow += 1
        try:
            while self._doubtful:
                self._saw(await self._observer.look(self._doubtful.popleft()))
        finally:
            self._observer._slow -= 1

    def _saw(self, sighting: Sighting) -> None:
        self._sightings[sighting.target] = sighting
        if self._seen is not None:
            self._seen(sighting)


def _lost_one(before: Mapping[str, Served], now: Mapping[str, Served]) -> bool:
    return before is not now and any(name not in now for name in before)


def _room(places: int) -> int:
    """How wide the second lane can be."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY:
        return _SECOND_LANE
    return max(16, min(_SECOND_LANE, allowed - places - _SPARE_DESCRIPTORS))
