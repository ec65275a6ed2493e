"""Which adapter on demand makes room for another one, and that no more of them do than have to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import NotFoundError, NotReadyError
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration
from garrison.instances.room.values import Limits
from garrison.instances.settings import ManagerSettings
from garrison.server.adapters.loads import AdapterLoads
from garrison.server.adapters.records import AdapterRecords
from garrison.server.adapters.room import ON_DEMAND_SLOTS, Loaded, Need, Offer, Room, best_offer, room_for
from garrison.store.records import Key, Operation, Resource

IDLE = [Loaded("a", "a", used_at=2.0), Loaded("b", "b", used_at=1.0), Loaded("eager")]


def with_b(**changes: Any) -> list[Loaded]:
    return [replace(one, **changes) if one.name == "b" else one for one in IDLE]


@pytest.mark.parametrize(
    ("loaded", "slots", "reserved", "room"),
    [
        ([], 1, 0, Room(Need.NOTHING)),
        ([], 1, 1, Room(Need.PATIENCE)),
        (IDLE, 4, 0, Room(Need.NOTHING)),
        (IDLE, 4, 1, Room(Need.EVICTION, "b")),
        (IDLE, 3, 0, Room(Need.EVICTION, "b")),
        (with_b(idle=False), 3, 0, Room(Need.EVICTION, "a")),
        ([replace(one, idle=False) for one in IDLE], 3, 0, Room(Need.PATIENCE)),
        ([Loaded("eager")], 1, 0, Room(Need.NEVER)),
        ([Loaded("eager")] * 20, None, 0, Room(Need.NOTHING)),
        ([Loaded(str(one), str(one)) for one in range(ON_DEMAND_SLOTS)], None, 0, Room(Need.EVICTION, "0")),
        (with_b(leaving=True), 3, 0, Room(Need.PATIENCE)),
        (with_b(leaving=True), 4, 1, Room(Need.PATIENCE)),
        (with_b(leaving=True), 3, 1, Room(Need.EVICTION, "a")),
        (with_b(leaving=True), 2, 0, Room(Need.EVICTION, "a")),
        ([Loaded("a", "a", leaving=True)], 1, 0, Room(Need.PATIENCE)),
        ([Loaded("eager", leaving=True)], 1, 0, Room(Need.PATIENCE)),
        ([Loaded("a", "a", leaving=True), Loaded("eager")], 1, 0, Room(Need.NEVER)),
        ([Loaded(str(one), "x", leaving=not one) for one in range(ON_DEMAND_SLOTS)], None, 0, Room(Need.PATIENCE)),
    ],
)
def test_room(loaded: list[Loaded], slots: int | None, reserved: int, room: Room) -> None:
    assert room_for(loaded, slots, reserved=reserved) == room


BUSY = [Loaded("a", "a", idle=False, loaded_at=2.0), Loaded("b", "b", idle=False, loaded_at=1.0), Loaded("eager")]


@pytest.mark.parametrize(
    ("loaded", "room"),
    [
        (BUSY, Room(Need.EVICTION, "b")),
        ([replace(one, settled=one.name != "b") for one in BUSY], Room(Need.EVICTION, "a")),
        ([replace(one, settled=False) for one in BUSY], Room(Need.PATIENCE)),
        ([replace(one, leaving=one.name == "b") for one in BUSY], Room(Need.PATIENCE)),
        ([replace(BUSY[0], idle=True), *BUSY[1:]], Room(Need.EVICTION, "a")),
        ([Loaded("eager", idle=False)], Room(Need.NEVER)),
    ],
)
def test_one_that_is_in_use_without_an_end_makes_room_in_the_end(loaded: list[Loaded], room: Room) -> None:
    assert room_for(loaded, len(loaded), patient=False) == room


def test_the_best_target() -> None:
    offers = [
        Offer("cold", runs=False), Offer("full", need=Need.EVICTION), Offer("busy", requests=3), Offer("free"),
        Offer("broken", refusal="no such file"),
    ]  # fmt: skip
    order = []
    while (best := best_offer(offers)) is not None:
        order.append(best.target)
        offers.remove(best)
    assert order == ["free", "busy", "full", "cold"]
    assert best_offer([]) is None


# --- histories of one target

SLOTS = st.integers(1, 5)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["asked", "gone", "stays", "used", "ended", "loaded"]), st.integers(0, 9)), max_size=60
)


@given(SLOTS, st.integers(0, 2), EVENTS)
def test_no_more_leave_than_have_to(slots: int, pinned: int, events: list[tuple[str, int]]) -> None:
    """Adapters are asked for one after the other, while others are used, leave, and fail to leave."""
    names = [f"old-{one}" for one in range(slots)]
    held = {one: Loaded(one, one if at >= pinned else None, used_at=-at) for at, one in enumerate(names)}
    reserved: list[str] = []
    asked = made = 0
    for at, (event, draw) in enumerate(events, 1):
        staying = [one for one in held.values() if not one.leaving]
        leaving = [one for one in held.values() if one.leaving]
        if event == "asked":
            asked += 1
        elif event == "gone" and leaving:
            del held[leaving[draw % len(leaving)].name]
        elif event == "stays" and leaving:  # a request to it did not end in time
            one = leaving[draw % len(leaving)]
            held[one.name] = replace(one, leaving=False, idle=False, used_at=float(at))
        elif event in ("used", "ended") and staying:
            one = staying[draw % len(staying)]
            held[one.name] = replace(one, idle=event == "ended", used_at=float(at))
        elif event == "loaded" and reserved:
            name = reserved.pop(0)
            held[name] = Loaded(name, name, used_at=float(at), idle=False)
        if not asked:
            continue
        room = room_for(held.values(), slots, reserved=len(reserved))
        fits = len(held) + len(reserved) < slots
        assert (room.need is Need.NOTHING) == fits
        if fits:
            asked, made = asked - 1, made + 1
            reserved.append(f"on-demand-{made}")
        if room.victim is not None:
            assert sum(not one.leaving for one in held.values()) + len(reserved) >= slots, "enough have left already"
            one = held[room.victim]
            assert (one.idle, one.leaving, one.on_demand) == (True, False, room.victim), "neither in use nor pinned"
            idle = [other for other in held.values() if other.on_demand and other.idle and not other.leaving]
            assert one.used_at == min(other.used_at for other in idle), "the one that was not used for longest"
            held[room.victim] = replace(one, leaving=True)
        assert len(held) + len(reserved) <= slots


# --- a target that is full while requests wait


@dataclass
class Full:
    """The target `edge` with a slot for each of `names`, all loaded; `new` and `other` are not.

    Attributes:
        asked: what was to make room at each look of the agent, in order.
    """

    names: tuple[str, ...] = ("a", "b")
    patience: float = 30.0
    residency: float = 10.0

    def __post_init__(self) -> None:
        specs = [adapter(name) for name in (*self.names, "new", "other")]
        self.records = AdapterRecords(SimpleNamespace(), ())  # type: ignore[arg-type]  # nothing is read
        self.records.slots = {"edge": len(self.names)}
        self.records._at = {"edge": {("edge", one.lora_name) for one in specs}}
        self.records._names = {("edge", one.served_name): one for one in specs}
        self.records._know(declarations=(Declaration(stack="lab", adapters=tuple(specs)),))
        self.served(*self.names)
        instances: Any = SimpleNamespace(
            settings=ManagerSettings(
                start_timeout=20.0, limits=Limits(patience=self.patience, residency=self.residency)
            )
        )
        self.asked: list[str] = []
        self.loads = AdapterLoads(self.records, instances, SimpleNamespace(), self._look)  # type: ignore[arg-type]

    def served(self, *names: str) -> None:
        """Take what is on record as loaded."""
        self.records._know(resources={"edge": [resource(name) for name in names]})

    def leaving(self, *names: str) -> None:
        self.records.keep_away({("edge", name) for name in names})
        self.loads.tell()

    async def use(self, *names: str) -> None:
        """Have requests to them in progress, without an end."""
        while True:
            self.loads.in_use({"target:edge": names})
            self.loads.tell()
            await asyncio.sleep(0.01)

    def _look(self, _target: str) -> None:
        self.asked += sorted(name for _, name in self.loads.demand().unwanted)


def adapter(name: str) -> AdapterDeclaration:
    return AdapterDeclaration(target="edge", label=name, lora_name=name, lora_path=f"/{name}", on_demand=True)


def resource(name: str) -> Resource:
    return Resource(
        key=Key("edge", ADAPTER_TYPE, name), label=name, spec=adapter(name).to_json(), parent="base", stack="lab",
        at=datetime(2026, 1, 1, tzinfo=UTC), served_path=f"/{name}", operation=Operation.CREATED,
    )  # fmt: skip


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.001)


async def test_while_one_leaves_no_other_has_to() -> None:
    full = Full()
    waiting = asyncio.create_task(full.loads.ready([("edge", "new")]))
    await until(lambda: full.asked == ["a"])
    full.leaving("a")  # and its last request has not ended
    for _ in range(20):
        full.loads.tell()
        await asyncio.sleep(0.001)
    assert set(full.asked) == {"a"}
    assert full.loads.demand().unwanted == frozenset()
    assert full.loads.demand().wanted == frozenset(), "its slot is not free yet"
    full.served("b")
    full.leaving()
    await until(lambda: full.loads.demand().wanted == {("edge", "new")})
    full.served("b", "new")
    full.loads.tell()
    assert await waiting == ("target:edge", None)
    assert set(full.asked) == {"a"}


async def test_another_one_makes_room_where_the_first_is_in_use_after_all() -> None:
    full = Full()
    waiting = asyncio.create_task(full.loads.ready([("edge", "new")]))
    await until(lambda: full.asked == ["a"])
    full.leaving("a")
    full.loads.in_use({"target:edge": ["a"]})
    full.leaving()  # it stays
    await until(lambda: "b" in full.asked)
    waiting.cancel()


async def test_requests_that_never_end_do_not_keep_the_others_out() -> None:
    """Two adapters are used all the time. After its patience a third one is loaded, and after its residency the first
    that it drove out comes back."""
    full = Full(patience=0.05, residency=0.2)
    steady = asyncio.create_task(full.use("a", "b"))
    waiting = asyncio.create_task(full.loads.ready([("edge", "new")]))
    await until(lambda: full.asked)
    assert ("edge", "a") not in full.loads.demand().in_use, (
        "so that the agent unloads it when its last request has ended"
    )
    assert ("edge", "b") in full.loads.demand().in_use
    full.leaving("a")
    full.served("b")
    full.leaving()
    await until(lambda: full.loads.demand().wanted)
    full.served("b", "new")
    full.loads.tell()
    assert await waiting == ("target:edge", None)
    steady.cancel()
    steady = asyncio.create_task(full.use("b", "new"))
    began = asyncio.get_running_loop().time()
    full.asked.clear()
    back = asyncio.create_task(full.loads.ready([("edge", "a")]))
    await until(lambda: full.asked)
    assert full.asked[0] == "b", "it was loaded before `new`, which has just come"
    assert asyncio.get_running_loop().time() - began < 1.0
    for task in (steady, back):
        task.cancel()
    await asyncio.gather(steady, back, return_exceptions=True)


async def test_what_was_loaded_for_a_request_does_not_make_room_before_that_uses_it() -> None:
    """The worker says a second later that it is in use."""
    full = Full(("a",))
    new = asyncio.create_task(full.loads.ready([("edge", "new")]))
    await until(lambda: full.asked)
    full.served()
    full.loads.tell()
    await until(lambda: full.loads.demand().wanted)
    full.served("new")
    assert full.loads._room("edge") == Room(Need.PATIENCE), "a request waits for it"
    full.loads.tell()
    assert await new == ("target:edge", None)
    assert full.loads._room("edge") == Room(Need.PATIENCE), "a request is about to use it"
    assert full.loads.demand().in_use == {("edge", "new")}


async def test_adapters_take_turns_and_all_requests_for_one_share_its_turn() -> None:
    full = Full()
    full.loads.in_use({"target:edge": ["a", "b"]})
    names = ("new", "other", "new")
    first, other, again = (asyncio.create_task(full.loads.ready([("edge", name)])) for name in names)
    await asyncio.sleep(0.01)
    full.served("b")
    full.loads.tell()
    await until(lambda: full.loads.demand().wanted == {("edge", "new")})
    full.served("b", "new")
    full.loads.tell()
    async with asyncio.timeout(1):
        assert await first == await again == ("target:edge", None)
    assert not other.done()
    full.served("new")
    full.loads.tell()
    await until(lambda: full.loads.demand().wanted == {("edge", "other")})
    full.served("new", "other")
    full.loads.tell()
    assert await other == ("target:edge", None)
    assert full.asked == [], "none had to make room"


async def test_the_next_has_its_turn_when_nobody_waits_for_the_first_any_more() -> None:
    full = Full()
    new = asyncio.create_task(full.loads.ready([("edge", "new")]))
    other = asyncio.create_task(full.loads.ready([("edge", "other")]))
    await until(lambda: full.asked == ["a"])
    new.cancel()
    await asyncio.sleep(0.001)
    full.served("b")
    full.loads.tell()
    await until(lambda: full.loads.demand().wanted == {("edge", "other")})
    other.cancel()
    await asyncio.gather(new, other, return_exceptions=True)
    assert full.loads.demand().wanted == full.loads.demand().unwanted == frozenset()


async def test_each_waiter_is_told_why_a_load_failed() -> None:
    full = Full()
    full.served("a")
    waiting = [asyncio.create_task(full.loads.ready([("edge", "new")])) for _ in range(3)]
    await until(lambda: full.loads.demand().wanted)
    failed: Any = SimpleNamespace(outcomes=(), failed={Key("edge", ADAPTER_TYPE, "new"): "rank 99 is too high"})
    full.loads.repaired(failed)
    for one in waiting:
        with pytest.raises(NotReadyError, match="rank 99 is too high"):
            await one
    assert full.loads.demand().wanted == frozenset(), "its slot is free for others"


async def test_one_that_is_not_declared_any_more_while_it_loads_keeps_no_other_out() -> None:
    full = Full(("a",))
    full.records.slots = {"edge": 2}
    new = asyncio.create_task(full.loads.ready([("edge", "new")]))
    await until(lambda: full.loads.demand().wanted == {("edge", "new")})
    specs = [adapter(name) for name in ("a", "other")]
    full.records._at = {"edge": {("edge", one.lora_name) for one in specs}}
    full.records._know(declarations=(Declaration(stack="lab", adapters=tuple(specs)),))
    other = asyncio.create_task(full.loads.ready([("edge", "other")]))
    await asyncio.sleep(0.01)
    assert not other.done(), "it waits for a slot"
    full.loads.tell()
    with pytest.raises(NotFoundError):
        await new
    full.loads.tell()
    await until(lambda: full.loads.demand().wanted == {("edge", "other")})
    full.served("a", "other")
    full.loads.tell()
    assert await other == ("target:edge", None)
