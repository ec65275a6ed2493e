"""The requests that wait for an adapter: one load for all of them, at the best target, where room is made for it.

The fleet agent loads and unloads. What it is to load on demand, and what is to make room, it learns from `demand`; what
became of that it tells by `repaired`, and the record shows it.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from garrison.base.errors import GarrisonError, NotFoundError, NotReadyError
from garrison.base.logs import logger
from garrison.fleet.operations.repair import Repaired
from garrison.fleet.values.demand import Demand, Place
from garrison.instances.live import Lease
from garrison.instances.manager import InstanceManager
from garrison.nodes.watch import Nodes
from garrison.server.adapters.places import AdapterPlace, held
from garrison.server.adapters.records import AdapterRecords
from garrison.server.adapters.room import Loaded, Need, Offer, Room, best_offer, room_for

__all__ = ["AdapterLoads"]

_log = logger(__name__)

_IDLE_SECONDS = 2.5
"""After the last report of its use, an adapter counts as idle. Workers report once a second."""
_PAUSE_SECONDS = 10.0
"""After a load that failed, before a request has it tried again."""
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Failure:
    message: str
    until: float


class AdapterLoads:
    """Belongs to one event loop.

    Args:
        look_now: has the agent look at a target, and do what is due there.
    """

    def __init__(
        self, records: AdapterRecords, instances: InstanceManager, nodes: Nodes, look_now: Callable[[str], None]
    ) -> None:
        self._records, self._instances, self._nodes = records, instances, nodes
        self._look_now = look_now
        self._waiting: Counter[Place] = Counter()
        self._wanted: set[Place] = set()
        self._unwanted: dict[str, str] = {}
        self._lines: defaultdict[str, list[Place]] = defaultdict(list)
        """Adapters that look for room, by target. The first one has its turn."""
        self._turns: dict[str, float] = {}
        """Since when the first one of a line has its turn."""
        self._loaded_at: dict[Place, float] = {}
        self._failures: dict[Place, _Failure] = {}
        self._tries: Counter[Place] = Counter()
        self._used: dict[Place, float] = {}
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what the agent asks

    def demand(self) -> Demand:
        """As `AdapterTraffic.demand`."""
        return Demand(
            wanted=frozenset(self._wanted),
            unwanted=frozenset(self._unwanted.items()),
            in_use=frozenset(one for one in self._used if self._uses(one) and not self._has_to_leave(one)),
        )

    def tries(self, target: str, name: str) -> int:
        """As `AdapterTraffic.tries`."""
        return self._tries[target, name]

    # --- what it is told

    def in_use(self, models: Mapping[str, Iterable[str]]) -> None:
        """Names were asked for at targets; both as workers call them."""
        now, place_of = self._now(), self._records.place_of
        self._used |= {place_of(target, model): now for target, some in models.items() for model in some}
        if len(self._used) > 10_000:
            self._used = {place: at for place, at in self._used.items() if now - at < 3600.0}
            self._loaded_at = {place: at for place, at in self._loaded_at.items() if place in self._used}

    def repaired(self, result: Repaired) -> None:
        """The agent has finished at targets."""
        until = self._now() + _PAUSE_SECONDS
        failed = {(key.target, key.name): message for key, message in result.failed.items()}
        for one in result.outcomes:
            if (spec := one.action.desired) is None:
                continue
            if one.failure is not None:
                failed.setdefault((spec.target, spec.served_name), one.failure.message)
            else:
                self._failures.pop((spec.target, spec.lora_name), None)
        for (target, model), message in failed.items():
            if (spec := self._records.declared(target, model)) is not None:
                self._failures[target, spec.lora_name] = _Failure(message, until)
        self.tell()

    def tell(self) -> None:
        """Something changed that somebody may wait for."""
        self._changed.set()
        self._changed = asyncio.Event()

    # --- what workers ask

    async def ready(self, ends: Sequence[Place]) -> tuple[str, Lease | None]:
        """Return the id of the target at which one of `ends` is loaded now, and the right to its engine if it is an
        instance.

        Raises:
            NotFoundError: none of them is declared any more.
            NotReadyError: it cannot be loaded, or not in time.
            GarrisonError: its instance could not be started; the cause.
        """
        offers = [self._offer(place) for place in ends]
        best = best_offer(offers)
        if best is None:
            if not offers:
                raise NotFoundError("the adapter is not declared any more")
            raise _not_ready(f"{ends[0][1]} is not loaded: {offers[0].refusal}")
        place = next(one for one in ends if one[0] == best.target)
        settings = self._instances.settings
        if self._waiting[place] >= settings.queue:
            raise _not_ready(f"{place[1]} has {self._waiting[place]} requests waiting for it already")
        self._waiting[place] += 1
        try:
            return self._records.upstream(place[0], "")[0], await self._load(place, settings.start_timeout)
        finally:
            self._waiting[place] -= 1
            if not self._waiting[place]:
                del self._waiting[place]
                self._wanted.discard(place)
                self._leave_line(place)

    def model(self, target: str, name: str) -> str:
        """Return what a target calls an adapter; `name` itself for one that is not declared.

        Raises:
            NotReadyError: it is declared, and not loaded there.
        """
        place = self._records.places().get((target, name))
        if place is None:
            return name
        if not place.model:
            raise _not_ready(f"{name} is not loaded on {target}{f': {place.reason}' if place.reason else ''}")
        return place.model

    def begin(self, ends: Sequence[Place]) -> None:
        """Have an adapter loaded, although no request waits for it."""
        task = asyncio.create_task(self._begun(ends), name="load an adapter")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def shutdown(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    async def _begun(self, ends: Sequence[Place]) -> None:
        try:
            _, lease = await self.ready(ends)
        except GarrisonError as error:
            _log.warning("an adapter was not loaded", adapter=ends[0][1], error=error.message)
        else:
            _release(lease)

    async def _load(self, place: Place, seconds: float) -> Lease | None:
        deadline = self._now() + seconds
        target, name = place
        lease = await self._instances.acquire(target, timeout=seconds) if self._records.is_instance(target) else None
        try:
            async with asyncio.timeout_at(deadline):
                await self._start_elsewhere(target)
                if self._place(place).on_demand:
                    await self._find_room(place)
                await self._loaded(place)
        except TimeoutError:
            _release(lease)
            raise _not_ready(f"{name} was not loaded on {target} within {seconds:g} s") from None
        except BaseException:
            _release(lease)
            raise
        return lease

    async def _loaded(self, place: Place) -> None:
        while not (found := self._place(place)).model:
            if reason := self._refusal(found):
                raise _not_ready(f"{place[1]} is not loaded: {reason}")
            self._look_now(place[0])
            await self._wait()
        now = self._now()
        self._used[place[0], found.model] = now  # by whoever waited; the worker says so a second later
        if place in self._wanted:
            self._loaded_at[place[0], found.model] = now

    async def _find_room(self, place: Place) -> None:
        """Reserve a slot, after another adapter has left it if that is necessary.

        Adapters take turns, in the order in which they were asked for. All requests for one share its turn.
        """
        line = self._lines[place[0]]
        if place not in line and place not in self._wanted:
            line.append(place)
        while place in line and not self._place(place).model:
            if line[0] == place:
                self._turns.setdefault(place[0], self._now())
            if line[0] == place and self._make_room(place):
                self._wanted.add(place)
                break
            await self._wait()
        self._leave_line(place)

    def _make_room(self, place: Place) -> bool:
        """Return whether there is room. If not, name the adapter that is to make it."""
        target, name = place
        room = self._room(target)
        if room.need is Need.NEVER:
            raise _not_ready(f"{name} is not loaded: {_full(target)}")
        self._unwanted.pop(target, None)
        if room.victim is not None:
            self._unwanted[target] = room.victim
            self._look_now(target)
        return room.need is Need.NOTHING

    def _leave_line(self, place: Place) -> None:
        line = self._lines[place[0]]
        if place not in line:
            return
        if line[0] == place:
            self._unwanted.pop(place[0], None)
            self._turns.pop(place[0], None)
        line.remove(place)
        self.tell()  # the turn is the next one's

    async def _start_elsewhere(self, target: str) -> None:
        """Have another node start its instance. The agent sees when it runs."""
        node = self._records.node_of(target)
        view = None if node is None else self._nodes.find(node)
        row = next((one for one in view.instances if one.get("name") == target), None) if view else None
        if node is not None and row is not None and row.get("state") not in ("running", "starting"):
            await self._nodes.call(node, "POST", f"/api/v1/instances/{target}/start", None)

    # ---

    def _offer(self, place: Place) -> Offer:
        target = place[0]
        found = self._records.places().get(place)
        if found is None:
            return Offer(target, refusal="it is not declared any more")
        self._forgive(place)
        need = self._room(target).need if found.on_demand and place not in self._wanted else Need.NOTHING
        refusal = self._refusal(found) or (_full(target) if need is Need.NEVER else "")
        if not self._records.is_instance(target):
            return Offer(target, refusal, need=need)
        live = self._instances.find(target)
        if live is None:
            return Offer(target, refusal=f"instance {target} does not exist")
        if not (live.admits or live.start or live.spec.on_demand):
            refusal = refusal or f"instance {target} is {live.state}, and is not started on demand"
        return Offer(target, refusal, runs=live.admits, need=need, requests=live.leases)

    def _refusal(self, found: AdapterPlace) -> str:
        failure = self._failures.get((found.target, found.name))
        return found.reason or ("" if failure is None or found.model else failure.message)

    def _forgive(self, place: Place) -> None:
        """Have a load that failed a while ago tried again."""
        failure = self._failures.get(place)
        if failure is not None and failure.until < self._now():
            del self._failures[place]
            self._tries[place] += 1

    def _room(self, target: str) -> Room:
        known = self._records.known()
        limits, now = self._instances.settings.limits, self._now()
        places = [one for one in self._records.at(target) if one.on_demand]
        on_demand = {model: one.name for one in places for model in (one.model, *one.leaving)}
        loaded = [
            Loaded(
                model,
                name := on_demand.get(model),
                used_at=self._used.get((target, model), 0.0),
                idle=not self._uses((target, model)) and (target, name) not in self._wanted,
                leaving=(target, model) in known.leaving,
                loaded_at=self._loaded_at.get((target, model), 0.0),
                settled=now - self._loaded_at.get((target, model), float("-inf")) >= limits.residency,
            )
            for model in held(target, known)
        ]
        reserved = sum(one[0] == target and not self._is_loaded(one) for one in self._wanted)
        patient = now - self._turns.get(target, now) < limits.patience
        return room_for(loaded, self._records.slots.get(target), reserved=reserved, patient=patient)

    def _uses(self, place: Place) -> bool:
        """Whether a request used it a moment ago, by its name on the target."""
        return self._now() - self._used.get(place, float("-inf")) < _IDLE_SECONDS

    def _has_to_leave(self, place: Place) -> bool:
        """Whether an adapter, by its name on the target, makes room although it is in use."""
        target, model = place
        victim = self._unwanted.get(target)
        found = None if victim is None else self._records.places().get((target, victim))
        return found is not None and found.model == model

    def _is_loaded(self, place: Place) -> bool:
        """False also for what is not declared any more, and may still be loading."""
        found = self._records.places().get(place)
        return found is not None and bool(found.model)

    def _place(self, place: Place) -> AdapterPlace:
        found = self._records.places().get(place)
        if found is None:
            raise NotFoundError(f"{place[1]} is not declared on {place[0]} any more")
        return found

    async def _wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._changed.wait()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _not_ready(text: str) -> GarrisonError:
    return NotReadyError(text, hint="Send the request again later.", details={"retry_after": 5})


def _full(target: str) -> str:
    return f"{target} holds as many adapters as it is to hold, and none of them is on demand"


def _release(lease: Lease | None) -> None:
    if lease is not None:
        lease.release()
