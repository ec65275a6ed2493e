"""The feed: each event of the history once, in order, whoever recorded it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from store_samples import event

from garrison.base.errors import GarrisonError, UnreachableError
from garrison.base.events import EventBus
from garrison.store import history_feed
from garrison.store.history_feed import HistoryFeed
from garrison.store.records import Event
from garrison.testing.store import MemoryStore


class Setting:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self.bus = EventBus[Event]()
        self.reads = 0
        self.broken = False
        self.errors: list[GarrisonError] = []
        self.feed = HistoryFeed(self.store, self.bus, self.read, failed=self.errors.append)

    async def read(self, call: Callable[[], Any]) -> Any:
        self.reads += 1
        if self.broken:
            raise UnreachableError("the server is down")
        return call()

    def record(self, *names: str) -> None:
        self.store.add_events([event(name=name) for name in names])


async def test_events_from_the_start_on_are_published_once_and_in_order() -> None:
    setting = Setting()
    setting.record("before")
    await setting.feed.start()
    setting.record("a", "b")
    with setting.bus.subscribe() as events:
        assert await setting.feed.pull() is False
        await setting.feed.start()
        setting.record("c")
        await asyncio.gather(setting.feed.pull(), setting.feed.pull())
        assert [(await anext(events)).event.name for _ in range(3)] == ["a", "b", "c"]


async def test_a_long_backlog_comes_in_pages() -> None:
    setting = Setting()
    await setting.feed.start()
    setting.record(*map(str, range(1200)))
    assert [await setting.feed.pull() for _ in range(3)] == [True, True, False]


async def test_overlapping_users_share_one_reader_that_ends_with_the_last() -> None:
    setting = Setting()
    with setting.bus.subscribe() as events:
        async with setting.feed.running():
            async with setting.feed.running():
                tasks = len(asyncio.all_tasks())
                setting.record("a")
                setting.feed.written()
                async with asyncio.timeout(10):
                    assert (await anext(events)).event.name == "a"
            assert len(asyncio.all_tasks()) == tasks
            setting.record("b")
            setting.feed.written()
            async with asyncio.timeout(10):
                assert (await anext(events)).event.name == "b"
        assert len(asyncio.all_tasks()) == tasks - 1


async def test_a_bug_is_reported_and_costs_the_followers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history_feed, "_LONGEST_WAIT", 0.01)
    setting = Setting()
    await setting.feed.start()
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    events, broken = setting.store.events, True

    def found(**asked: Any) -> list[Event]:
        if broken:
            raise ZeroDivisionError
        return events(**asked)

    monkeypatch.setattr(setting.store, "events", found)
    with setting.bus.subscribe() as following:
        async with setting.feed.running(), asyncio.timeout(10):
            while len(told) < 2:
                await asyncio.sleep(0.01)
            broken = False
            setting.record("a")
            assert (await anext(following)).event.name == "a"
    assert {type(error) for error in told} == {ZeroDivisionError}


async def test_a_store_that_fails_is_reported_and_read_again() -> None:
    setting = Setting()
    await setting.feed.start()
    with setting.bus.subscribe() as events:
        setting.broken = True
        async with setting.feed.running(), asyncio.timeout(10):
            while not setting.errors:
                await asyncio.sleep(0.01)
            setting.broken = False
            setting.record("a")
            setting.feed.written()
            assert (await anext(events)).event.name == "a"
