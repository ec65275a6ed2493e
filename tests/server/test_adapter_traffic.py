"""Requests that stay away from an adapter while it is unloaded."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from garrison.base.errors import NotReadyError
from garrison.fleet.values.demand import NOTHING_ASKED
from garrison.server.adapters.records import AdapterRecords
from garrison.server.adapters.traffic import GatewayTraffic


class Lab:
    """A gateway in which requests to an adapter end when `left` is set.

    Attributes:
        done: what the traffic had others do, in order: what is kept away is written at each `refresh`.
    """

    def __init__(self) -> None:
        self.records = AdapterRecords(SimpleNamespace(), ())  # type: ignore[arg-type]  # nothing is read
        self.left = asyncio.Event()
        self.done: list[Any] = []
        self.unreadable = False
        self.traffic = GatewayTraffic()
        loads: Any = SimpleNamespace(demand=lambda: NOTHING_ASKED)
        self.traffic.begin(
            self.records, loads, read_again=self._read, refresh=self._refresh, left=self._left,
            look_now=self.done.append,
        )  # fmt: skip

    async def _read(self) -> None:
        self.done.append("read")
        if self.unreadable:
            raise NotReadyError("the store is away")

    def _refresh(self) -> None:
        self.done.append(set(self.records.known().leaving))

    async def _left(self, _target: str, _model: str) -> bool:
        await self.left.wait()
        return True


SQL = ("edge", "sql")


async def test_they_come_back_when_what_happened_was_read() -> None:
    lab = Lab()
    lab.left.set()
    async with lab.traffic.leaving(*SQL, 5.0) as unused:
        assert unused
        assert lab.done == ["read", {SQL}]
    assert lab.done == ["read", {SQL}, "read", set()]


async def test_they_come_back_where_nothing_can_be_read() -> None:
    lab = Lab()
    lab.left.set()
    async with lab.traffic.leaving(*SQL, 5.0):
        lab.unreadable = True
    assert lab.done[-1] == set()


async def test_two_at_a_time() -> None:
    lab = Lab()
    lab.left.set()
    async with lab.traffic.leaving(*SQL, 5.0):
        async with lab.traffic.leaving(*SQL, 5.0):
            pass
        assert lab.done[-1] == {SQL}, "one of them still keeps requests away"
    assert lab.done[-1] == set()


async def test_one_that_stays_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.server.adapters.traffic._LOOK_SECONDS", 0.0)
    lab = Lab()
    async with lab.traffic.leaving(*SQL, 0.01) as unused:
        assert not unused
    async with asyncio.timeout(5):
        while "edge" not in lab.done:
            await asyncio.sleep(0.001)
    await lab.traffic.shutdown()
