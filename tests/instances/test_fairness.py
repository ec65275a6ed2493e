"""Room for one and callers of several models: how long anybody waits, and how often engines are swapped.

Minutes of traffic pass on a virtual clock. The bounds follow from the limits:

- a caller waits at most `patience`, or until the one that was swapped in just now has had its `residency`, then for the
  requests that this one is still serving, a stop and a start; and that for each other model whose callers came before;
- two swaps are at least `residency` apart, and at least `patience` while both models are always busy.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.instances.manager import InstanceManager
from garrison.instances.room.values import HOST, Device, Limits
from garrison.instances.settings import ManagerSettings
from garrison.instances.values.spec import InstanceSpec
from garrison.testing.instances import MemoryDevices, MemoryInstances, MemoryRunner
from garrison.testing.thread_pool import DirectPool
from garrison.testing.virtual_loop import LoopClock, VirtualLoop

LOOK = 0.1
"""For the steps of the loop between two events."""


@dataclass
class Traffic:
    """What callers of a machine with room for `room` of its models saw.

    Attributes:
        waits: seconds, by model.
    """

    patience: float
    residency: float
    room: int = 1
    start: float = 1.0
    stop: float = 0.2
    waits: dict[str, list[float]] = field(default_factory=dict)
    starts: list[tuple[float, str]] = field(default_factory=list)

    def run(self, seconds: float, callers: Callable[["Traffic"], list[Awaitable[None]]], models: str) -> None:
        async def whole() -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            self.end = seconds
            needs: dict[str, tuple[int | None, int]] = dict.fromkeys(models, (10, 0))
            devices = MemoryDevices([Device(HOST, 10 * self.room, 10 * self.room)], needs)
            limits = Limits(residency=self.residency, patience=self.patience)
            options = ManagerSettings(limits=limits, drain_timeout=600.0, start_timeout=3600.0, queue=10_000)
            self.manager = InstanceManager(
                MemoryInstances(), self.runner, devices, options, clock=LoopClock(loop), pool=DirectPool()
            )
            await self.manager.startup()
            for name in models:
                await self.manager.create(InstanceSpec(name=name))
            await asyncio.gather(*callers(self))
            await self.manager.shutdown(stop=True)

        self.runner = MemoryRunner(start_seconds=self.start, stop_seconds=self.stop)
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(whole())
        assert self.runner.most_alive <= self.room

    async def caller(self, name: str, serve: float, pause: float, begin: float = 0.0) -> None:
        """One client, that asks, is served for `serve` seconds, and pauses, until the end."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(begin)
        while loop.time() < self.end:
            asked = loop.time()
            lease = await self.manager.acquire(name)
            self.waits.setdefault(name, []).append(loop.time() - asked)
            await asyncio.sleep(serve)
            lease.release()
            await asyncio.sleep(pause)

    def turn(self, serve: float) -> float:
        """The longest that one model waits for another to make room."""
        swap = self.stop + self.start
        return max(self.patience, swap + self.residency) + serve + swap + LOOK

    def swaps_per_minute(self, seconds: float) -> float:
        return (len(self.runner.starts) - 1) / (seconds / 60)


@pytest.mark.parametrize(("patience", "residency"), [(10.0, 5.0), (30.0, 10.0), (2.0, 10.0), (0.0, 20.0)])
def test_two_models_asked_for_in_turn(patience: float, residency: float) -> None:
    seconds, serve = 1800.0, 0.5
    traffic = Traffic(patience, residency)
    traffic.run(seconds, lambda one: [one.caller(name, serve, 0.0) for name in "aabb"], "ab")
    longest = max(max(waits) for waits in traffic.waits.values())
    assert longest <= traffic.turn(serve)
    assert traffic.swaps_per_minute(seconds) <= 60 / max(patience, residency)
    counts = [len(waits) for waits in traffic.waits.values()]
    assert min(counts) >= 0.8 * max(counts), "neither is served at the cost of the other"


def test_steady_traffic_to_the_warm_one_starves_nobody() -> None:
    """Twenty clients keep `a` busy without a pause, and one asks for `b` now and then."""
    seconds, serve = 1800.0, 2.0
    traffic = Traffic(patience=15.0, residency=5.0)
    traffic.run(
        seconds,
        lambda one: [
            *(one.caller("a", serve, 0.0, begin=number / 10) for number in range(20)),
            one.caller("b", serve, 60.0, begin=30.0),
        ],
        "ab",
    )
    assert max(traffic.waits["b"]) <= traffic.turn(serve)
    assert len(traffic.waits["b"]) >= 20
    assert max(traffic.waits["a"]) <= traffic.turn(serve)
    # A client of `a` waits only while `b` is served: at most its residency, two swaps and a request each time.
    assert sum(traffic.waits["a"]) / len(traffic.waits["a"]) < 2.0


def test_a_caller_who_pauses_lets_the_other_in_without_patience() -> None:
    traffic = Traffic(patience=300.0, residency=5.0)
    traffic.run(600.0, lambda one: [one.caller("a", 1.0, 20.0), one.caller("b", 1.0, 20.0, begin=3.0)], "ab")
    assert max(max(waits) for waits in traffic.waits.values()) <= 5.0 + 1.0 + 1.2 + LOOK, "residency, not patience"
    assert traffic.swaps_per_minute(600.0) <= 60 / 5.0


@pytest.mark.parametrize("room", [1, 2, 3])
def test_five_models_share_room_for_fewer(room: int) -> None:
    seconds, serve = 600.0, 1.0
    traffic = Traffic(patience=10.0, residency=5.0, room=room)
    traffic.run(seconds, lambda one: [one.caller(name, serve, 0.0) for name in "abcde"], "abcde")
    longest = max(max(waits) for waits in traffic.waits.values())
    assert longest <= 5 * traffic.turn(serve), "each other model has its turn before"
    assert traffic.swaps_per_minute(seconds) <= room * 60 / traffic.residency
    assert set(traffic.waits) == set("abcde")


@given(
    st.integers(0, 2**32),
    st.floats(1, 60),
    st.floats(0.5, 30),
    st.integers(2, 4),
    st.integers(1, 2),
)
@settings(max_examples=25, deadline=None)
def test_any_traffic_is_served_within_the_bound(
    seed: int, patience: float, residency: float, models: int, room: int
) -> None:
    chance = random.Random(seed)
    names = "abcd"[:models]
    traffic = Traffic(patience, residency, room)

    def callers(one: Traffic) -> list[Awaitable[None]]:
        return [
            one.caller(chance.choice(names), chance.uniform(0.1, 5), chance.uniform(0, 20), chance.uniform(0, 30))
            for _ in range(chance.randint(1, 8))
        ]

    traffic.run(600.0, callers, names)
    longest = max(max(waits) for waits in traffic.waits.values())
    assert longest <= models * traffic.turn(5.0)
