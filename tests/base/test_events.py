"""The event bus: order, bounds, slow and failing subscribers, threads."""

import asyncio
import threading
from typing import Any

import pytest

from garrison.base.events import EventBus


async def test_every_subscriber_gets_every_event_in_order() -> None:
    bus = EventBus[int]()
    heard: list[int] = []
    bus.listen(heard.append)
    with bus.subscribe() as first, bus.subscribe(wants=lambda event: event % 2 == 0) as even:
        for number in range(4):
            bus.publish(number)
        assert heard == [], "nothing runs within `publish`"
        assert [await anext(first) for _ in range(4)] == [(0, 0), (1, 0), (2, 0), (3, 0)]
        assert [await anext(even) for _ in range(2)] == [(0, 0), (2, 0)]
    await bus.settled()
    assert heard == [0, 1, 2, 3]


async def test_a_slow_reader_loses_the_oldest_and_is_told_how_many() -> None:
    bus = EventBus[int]()
    with bus.subscribe(limit=3) as slow, bus.subscribe() as quick:
        for number in range(10):
            bus.publish(number)
        assert await anext(slow) == (7, 7)
        bus.publish(10)
        assert [await anext(slow) for _ in range(3)] == [(8, 0), (9, 0), (10, 0)]
        assert await anext(quick) == (0, 0), "one slow reader costs no other an event"


async def test_a_slow_listener_loses_the_oldest_and_is_told_how_many() -> None:
    bus = EventBus[int]()
    said: list[Any] = []
    bus.listen(said.append, missed=lambda count: said.append(f"missed {count}"), limit=2)
    for number in range(5):
        bus.publish(number)
    await bus.settled()
    assert said == ["missed 3", 3, 4]


async def test_a_listener_that_fails_loses_that_event_alone() -> None:
    bus = EventBus[int]()
    errors: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context["exception"]))
    heard: list[int] = []

    def deliver(event: int) -> None:
        if event == 1:
            raise ZeroDivisionError
        heard.append(event)

    bus.listen(deliver)
    for number in range(3):
        bus.publish(number)
    await bus.settled()
    assert heard == [0, 2]
    assert [type(error) for error in errors] == [ZeroDivisionError]


async def test_a_burst_does_not_keep_the_loop_from_other_work() -> None:
    bus = EventBus[int]()
    order: list[Any] = []
    bus.listen(order.append)
    for number in range(200):
        bus.publish(number)
    asyncio.get_running_loop().call_soon(order.append, "other work")
    await bus.settled()
    assert order.index("other work") < 100
    assert len(order) == 201


async def test_a_reader_waits_for_events_of_other_threads() -> None:
    bus = EventBus[int]()

    def publish() -> None:
        for number in range(500):
            bus.publish(number)

    with bus.subscribe() as events:
        reader = asyncio.create_task(_read(events, 500))
        await asyncio.sleep(0)
        thread = threading.Thread(target=publish)
        thread.start()
        async with asyncio.timeout(10):
            assert await reader == list(range(500))
        await asyncio.to_thread(thread.join)


async def _read(events: Any, count: int) -> list[int]:
    return [(await anext(events)).event for _ in range(count)]


async def test_closing_ends_the_reader_and_the_calls() -> None:
    bus = EventBus[int]()
    heard: list[int] = []
    events, listener = bus.subscribe(), bus.listen(heard.append)
    reader = asyncio.create_task(_all(events))
    await asyncio.sleep(0)
    bus.publish(1)
    await bus.settled()
    await asyncio.sleep(0)
    listener.close()
    events.close()
    events.close()
    bus.publish(2)
    async with asyncio.timeout(10):
        assert await reader == [1]
    await bus.settled()
    assert heard == [1]


async def _all(events: Any) -> list[int]:
    return [delivery.event async for delivery in events]


def test_publishing_after_the_loop_of_a_subscriber_has_ended_is_harmless() -> None:
    bus = EventBus[int]()
    heard: list[int] = []

    async def listen() -> None:
        bus.listen(heard.append)

    asyncio.run(listen())
    bus.publish(1)
    assert heard == []


async def test_a_limit_keeps_at_least_one() -> None:
    with pytest.raises(ValueError, match="a limit of 0"):
        EventBus[int]().subscribe(limit=0)
