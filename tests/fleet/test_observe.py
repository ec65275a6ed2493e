"""Many targets at once: one sighting each, and nobody waits for the slow ones."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.values.observation import Cause, Presence, Served, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.net.errors import TransportCause
from garrison.net.transport import Connection, TransportError
from garrison.testing.clock import FakeClock
from garrison.testing.targets import MemoryFault, MemoryTarget, MemoryTargets, json_answer, refusal

PROBES = ["/health", "/version", "/v1/load_lora_adapter", "/metrics"]


def a_look(name: str, **options: Any) -> Look:
    return Look(target=TargetSpec(name=name, base_url="http://unused"), **options)


async def seen_by(targets: MemoryTargets, *looks: Look, **options: Any) -> dict[str, Sighting]:
    return await Observer(targets, FakeClock(), **options).observe(looks)


def paths(targets: MemoryTargets) -> list[str]:
    return [request.path for request in targets.requests]


class Gated(MemoryTargets):
    """Requests to `held` targets wait until `gate` opens."""

    def __init__(self, names: Iterable[str], held: Iterable[str]) -> None:
        super().__init__({name: MemoryTarget() for name in names})
        self.held = set(held)
        self.gate = asyncio.Event()
        self.open_now = 0
        self.most = 0

    @asynccontextmanager
    async def open(self, target: TargetSpec) -> AsyncIterator[Connection]:
        self.open_now += 1
        self.most = max(self.most, self.open_now)
        try:
            if target.name in self.held:
                await self.gate.wait()
            async with super().open(target) as connection:
                yield connection
        finally:
            self.open_now -= 1


async def test_one_request_a_target() -> None:
    targets = MemoryTargets({name: MemoryTarget(served={"sql": "/sql"}) for name in "abc"})
    clock, told = FakeClock(), list[str]()
    found = await Observer(targets, clock).observe(map(a_look, "abc"), lambda one: told.append(one.target))
    assert paths(targets) == ["/v1/models"] * 3
    assert sorted(told) == list("abc")
    assert list(found) == told
    assert found["a"].served == {
        "acme/tiny": Served("acme/tiny", "acme/tiny"),
        "sql": Served("sql", "/sql", "acme/tiny"),
    }
    assert (found["a"].base, found["a"].at, found["a"].capabilities) == ("acme/tiny", clock.now(), None)
    assert (found["a"].presence("sql"), found["a"].presence("no")) == (Presence.PRESENT, Presence.ABSENT)


async def test_no_targets() -> None:
    assert await seen_by(MemoryTargets()) == {}


async def test_exactly_one_sighting_whatever_happens() -> None:
    targets = MemoryTargets({name: MemoryTarget() for name in ("up", "down", "busy", "odd", "other")})
    targets["down"].down = TransportError(TransportCause.REFUSED, "connection refused")
    busy = json_answer({}, 503)
    targets["busy"].faults.append(MemoryFault("/v1/models", type(busy)(503, b"", {"retry-after": "9"})))
    targets["odd"].faults.append(MemoryFault("/v1/models", json_answer({})))
    found = await seen_by(
        targets, *map(a_look, ["up", "down", "busy", "odd", "gone"]), a_look("other", base="acme/large")
    )
    assert {name: one.cause for name, one in found.items()} == {
        "up": None,
        "down": Cause.REFUSED,
        "busy": Cause.SERVER_ERROR,
        "odd": Cause.MALFORMED,
        "gone": Cause.DNS,
        "other": Cause.WRONG_BASE,
    }
    assert (found["busy"].retry_after, found["down"].detail) == (9.0, "connection refused")


async def test_an_unchanged_list_takes_no_memory() -> None:
    targets = MemoryTargets({"a": MemoryTarget(served={"sql": "/sql"})})
    first = (await seen_by(targets, a_look("a")))["a"].served
    again = (await seen_by(targets, a_look("a", served=first)))["a"]
    assert again.served is first
    assert paths(targets) == ["/v1/models"] * 2


# --- capabilities


async def test_probed_when_asked() -> None:
    targets = MemoryTargets({"a": MemoryTarget(max_loras=4, prefix_caching=False)})
    found = (await seen_by(targets, a_look("a", probe=True)))["a"].capabilities
    assert found is not None
    assert found.to_json() == {
        "version": "0.32.0",
        "healthy": True,
        "lora_routes": True,
        "max_loras": 4,
        "max_lora_rank": None,
        "prefix_caching": False,
        "started_at": 1_700_000_000.0,
    }
    assert (paths(targets), targets.opened) == (["/v1/models", *PROBES], {"a": 1})


async def test_probed_when_an_adapter_is_gone() -> None:
    targets = MemoryTargets({"a": MemoryTarget(static={"kept": "/kept"}, served={"sql": "/sql"})})
    before = (await seen_by(targets, a_look("a")))["a"].served
    targets["a"].restart()
    targets["a"].lora_routes = False
    found = (await seen_by(targets, a_look("a", served=before)))["a"]
    assert found.capabilities is not None
    assert (found.capabilities.started_at, found.capabilities.lora_routes) == (1_700_000_001.0, False)
    assert found.presence("sql") is Presence.UNKNOWN
    assert found.presence("kept") is Presence.PRESENT


async def test_not_probed_when_one_is_new_or_the_list_is_not_believed() -> None:
    targets = MemoryTargets({"a": MemoryTarget()})
    before = (await seen_by(targets, a_look("a")))["a"].served
    targets["a"].served["sql"] = "/sql"
    await seen_by(targets, a_look("a", served=before))
    await seen_by(targets, a_look("a", base="acme/large", probe=True))
    assert paths(targets) == ["/v1/models"] * 3


@pytest.mark.parametrize(
    "fault",
    [
        MemoryFault("/health", TransportError(TransportCause.RESET, "x", sent=True)),
        MemoryFault("/metrics", TransportError(TransportCause.TIMEOUT, "x", sent=True)),
        MemoryFault("/version", refusal(500, "InternalServerError", "no")),
    ],
    ids=["health-reset", "metrics-timeout", "version-500"],
)
async def test_a_probe_that_fails_takes_nothing_from_the_list(fault: MemoryFault) -> None:
    targets = MemoryTargets({"a": MemoryTarget(served={"sql": "/sql"}, faults=[fault])})
    found = (await seen_by(targets, a_look("a", probe=True)))["a"]
    assert found.presence("sql") is Presence.PRESENT
    assert found.capabilities is not None


# --- places


async def test_slow_targets_give_their_places_back() -> None:
    names = [f"t{at}" for at in range(60)]
    held = names[:20]  # first in the queue, and ten times the places
    targets, told = Gated(names, held), list[str]()
    observer = Observer(targets, FakeClock(), places=2, second_lane=40, patience=0.01)
    cycle = asyncio.create_task(observer.observe(map(a_look, names), lambda one: told.append(one.target)))
    async with asyncio.timeout(10):
        while len(told) < 40:
            await asyncio.sleep(0.005)
    assert not set(told) & set(held)
    targets.gate.set()
    assert sorted(await cycle) == sorted(names)
    assert targets.most <= 42


async def test_the_second_lane_is_bounded() -> None:
    names = [f"t{at}" for at in range(20)]
    targets = Gated(names, names)
    observer = Observer(targets, FakeClock(), places=2, second_lane=4, patience=0.005)
    cycles = [asyncio.create_task(observer.observe(map(a_look, names[at::2]))) for at in range(2)]
    for _ in range(20):
        await asyncio.sleep(0.005)
    assert targets.open_now == 2 * 2 + 4  # the places of each call, and one lane for both
    targets.gate.set()
    found = [await cycle for cycle in cycles]
    assert sorted([*found[0], *found[1]]) == sorted(names)
    assert observer._slow == 0


async def test_doubtful_targets_take_no_place() -> None:
    names = [f"t{at}" for at in range(30)]
    held = names[:15]
    targets, told = Gated(names, held), list[str]()
    observer = Observer(targets, FakeClock(), places=1, second_lane=40, patience=3600.0)
    looks = [a_look(name, doubtful=name in held) for name in names]
    cycle = asyncio.create_task(observer.observe(looks, lambda one: told.append(one.target)))
    async with asyncio.timeout(10):
        while len(told) < 15:
            await asyncio.sleep(0)
    assert not set(told) & set(held)
    targets.gate.set()
    assert len(await cycle) == 30


async def test_more_doubtful_ones_than_the_lane_is_wide() -> None:
    targets = Gated(map(str, range(30)), [])
    found = await seen_by(targets, *(a_look(str(at), doubtful=True) for at in range(30)), places=2, second_lane=4)
    assert len(found) == 30
    assert targets.most <= 2


async def test_a_cancelled_cycle_leaves_nothing_behind() -> None:
    names = [f"t{at}" for at in range(20)]
    targets = Gated(names, names)
    observer = Observer(targets, FakeClock(), places=4, second_lane=8, patience=0.005)
    tasks = asyncio.all_tasks()
    cycle = asyncio.create_task(observer.observe([a_look(name, doubtful=name < "t12") for name in names]))
    while targets.open_now < 8:
        await asyncio.sleep(0.005)
    cycle.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cycle
    assert (targets.open_now, observer._slow, asyncio.all_tasks()) == (0, 0, tasks)


async def test_a_cancelled_cycle_starts_no_look() -> None:
    """Those in progress may take a while to end, in which others would get their places."""

    class Slow(Gated):
        @asynccontextmanager
        async def open(self, target: TargetSpec) -> AsyncIterator[Connection]:
            opened.append(target.name)
            try:
                async with super().open(target) as connection:
                    yield connection
            finally:
                await asyncio.sleep(0.05)

    names, opened = [f"t{at}" for at in range(20)], list[str]()
    targets = Slow(names, names)
    observer = Observer(targets, FakeClock(), places=2, second_lane=40, patience=0.02)
    cycle = asyncio.create_task(observer.observe(map(a_look, names)))
    while not opened:
        await asyncio.sleep(0)
    cycle.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cycle
    assert len(opened) == 2
    assert (targets.open_now, observer._slow) == (0, 0)
