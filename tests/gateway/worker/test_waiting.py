"""Requests that wait: for a place of their route, or for a target that does not run. Bounded, fair, and told."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from gateway_lab import OK, Client, Conn, GatewayLab, Message, chat
from lab_keys import key, told_keys

from garrison.access.permissions import Limits
from garrison.base.errors import NotReadyError
from garrison.gateway.link.messages import RouteValue, Tables
from garrison.gateway.link.reports import Phase
from garrison.gateway.link.route_settings import LimitsValue, QueueValue
from garrison.gateway.worker.accounts.finished import finished_value
from garrison.gateway.worker.live import live_requests


class Held:
    """A target that answers when it is told to; `asked` names who asks, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._waiting: list[Conn] = []

    async def __call__(self, conn: Conn) -> None:
        while True:
            request = await conn.request()
            self.asked.append((request.get(b"x-who") or b"").decode())
            self._waiting.append(conn)

    def answer(self, count: int = 1) -> None:
        for _ in range(count):
            self._waiting.pop(0).send(OK)


class Waits:
    """A lab with the route `m` over one held target."""

    def __init__(self, lab: GatewayLab, held: Held, url: str) -> None:
        self.lab, self.held, self.url = lab, held, url
        self.clients: list[Client] = []

    def route(self, *, places: int | None = 1, url: str | None = "", **queue: Any) -> None:
        limits = None if places is None else LimitsValue(concurrent=places)
        route = {"limits": limits, "queue": QueueValue(**queue) if queue else None}
        self.lab.tell(self.url if url == "" else url, route=route)

    async def ask(self, who: str = "", *more: bytes, body: bytes = b'{"model": "m"}') -> Client:
        client = await self.lab.client()
        headers = [b"X-Who: " + who.encode()] + ([b"X-API-Key: " + who[0].encode()] if who else [])
        client.send(chat(body, *headers, *more))
        return client

    async def ask_in_order(self, *who: str) -> list[Client]:
        """Each is in line, or sent, before the next one comes."""
        found = []
        for one in who:
            before = self.line.waiting + self.line.running
            found.append(await self.ask(one))
            await self.lab.until(lambda before=before: self.line.waiting + self.line.running > before)
        return found

    @property
    def line(self) -> Any:
        return self.lab.plane.table.routes["m"].line

    async def sent(self, count: int) -> None:
        await self.lab.until(lambda: len(self.held.asked) == count, told=lambda: self.held.asked)


@pytest.fixture
async def waits(lab: GatewayLab, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Waits]:
    monkeypatch.setattr("garrison.gateway.worker.sweeping._SWEEP_SECONDS", 0.01)
    held = Held()
    served = await lab.upstream(held)
    lab.sweep()
    made = Waits(lab, held, served.url)
    yield made
    lab.link.waiting.clear()


def queued(answer: Message) -> dict[str, float]:
    told = (answer.get(b"x-garrison-queue") or b"").decode()
    assert re.fullmatch(r"[a-z]+=[0-9.]+(, [a-z]+=[0-9.]+)*|", told), told
    return {name: float(value) for name, value in (one.split("=") for one in told.split(", ") if one)}


async def test_more_than_there_are_places_wait_and_say_how_long(waits: Waits) -> None:
    waits.route(places=2)
    clients = await waits.ask_in_order("a1", "a2", "a3", "a4")
    await waits.sent(2)
    assert (waits.line.running, waits.line.waiting) == (2, 2)
    await asyncio.sleep(0.02)
    waits.held.answer()
    await waits.sent(3)
    waits.held.answer(2)
    await waits.sent(4)
    waits.held.answer()
    answers = [await one.answer() for one in clients]
    assert [one.status for one in answers] == [200] * 4
    assert waits.held.asked == ["a1", "a2", "a3", "a4"]
    told = [queued(one) for one in answers]
    assert told[:2] == [{}, {}], "who did not wait is told nothing"
    assert [one["position"] for one in told[2:]] == [1, 2]
    assert all(0.02 <= one["busy"] < 60 for one in told[2:])


async def test_a_key_that_sends_many_does_not_keep_others_waiting(waits: Waits) -> None:
    waits.lab.plane.callers.set_keys(told_keys(key("a"), key("b"), key("c")))
    waits.route()
    await waits.ask_in_order("a0", "a1", "a2", "a3", "b1", "a4", "c1", "b2")
    for count in range(1, 9):
        await waits.sent(count)
        waits.held.answer()
    assert waits.held.asked == ["a0", "a1", "b1", "c1", "a2", "b2", "a3", "a4"]


async def test_a_key_of_a_higher_priority_goes_first(waits: Waits) -> None:
    waits.lab.plane.callers.set_keys(told_keys(key("a"), key("b", priority=1), key("c", priority=-1)))
    waits.route()
    await waits.ask_in_order("a0", "c1", "a1", "b1", "b2")
    for count in range(1, 6):
        await waits.sent(count)
        waits.held.answer()
    assert waits.held.asked == ["a0", "b1", "b2", "a1", "c1"]


async def test_waiting_makes_up_for_a_lower_priority(waits: Waits) -> None:
    waits.lab.plane.callers.set_keys(told_keys(key("a"), key("b", priority=1), key("c")))
    waits.route(ageing=0.05)
    await waits.ask_in_order("a0", "c1")
    await asyncio.sleep(0.1)
    await waits.ask_in_order("b1")
    for count in range(1, 4):
        await waits.sent(count)
        waits.held.answer()
    assert waits.held.asked == ["a0", "c1", "b1"]


async def test_without_keys_clients_take_turns_by_their_address(waits: Waits) -> None:
    waits.route()
    first, second = await waits.lab.client(), await waits.lab.client()
    seen = {waits.lab.plane.callers.holder_of(None, one.peer) for one in waits.lab.plane.inbound}
    assert seen == {("127.0.0.1", 0)}
    first.close()
    second.close()


@pytest.mark.parametrize(("queue", "bodies"), [({"length": 2}, [20, 20, 20]), ({"bytes": 4000}, [1000, 2900, 200])])
async def test_the_line_is_bounded(waits: Waits, queue: dict[str, int], bodies: list[int]) -> None:
    waits.route(**queue)
    clients = await waits.ask_in_order("a")
    await waits.sent(1)
    for size in bodies[:-1]:
        before = waits.line.waiting
        clients.append(await waits.ask("w", body=b'{"model":"m","x":"%b"}' % (b"x" * size)))
        await waits.lab.until(lambda before=before: waits.line.waiting > before)
    refused = await waits.ask("w", body=b'{"model":"m","x":"%b"}' % (b"x" * bodies[-1]))
    answer = await refused.answer()
    assert (answer.status, b"wait for it already" in answer.body) == (429, True), answer.body
    assert b'"code":"busy"' in answer.body
    assert int(answer.get(b"retry-after") or b"0") >= 1
    for count in range(2, 4):
        waits.held.answer()
        await waits.sent(count)
    waits.held.answer()
    assert [(await one.answer()).status for one in clients] == [200, 200, 200]
    assert (waits.line.waiting, waits.line.size) == (0, 0)


async def test_one_large_body_waits_alone(waits: Waits) -> None:
    waits.route(bytes=100)
    clients = await waits.ask_in_order("a")
    clients.append(await waits.ask("w", body=b'{"model":"m","x":"%b"}' % (b"x" * 1000)))
    await waits.lab.until(lambda: waits.line.waiting == 1)
    waits.held.answer()
    await waits.sent(2)
    waits.held.answer()
    assert [(await one.answer()).status for one in clients] == [200, 200]


async def test_nobody_waits_where_nobody_may(waits: Waits) -> None:
    waits.route(length=0)
    await waits.ask_in_order("a")
    assert (await (await waits.ask("b")).answer()).status == 429
    await waits.sent(1)
    waits.held.answer()


async def test_who_waits_too_long_for_a_busy_engine_gets_429(waits: Waits) -> None:
    waits.route(busy=0.05)
    first, second = await waits.ask_in_order("a", "b")
    answer = await second.answer()
    assert (answer.status, answer.get(b"retry-after")) == (429, b"1"), answer.body
    assert queued(answer)["busy"] >= 0.05
    assert b"has waited for 0 s" in answer.body
    await waits.sent(1)
    waits.held.answer()
    assert (await first.answer()).status == 200


async def test_a_client_that_leaves_makes_room_in_the_line_and_gives_its_place_on(waits: Waits) -> None:
    waits.route(length=1)
    first, second = await waits.ask_in_order("a", "b")
    second.close()
    await waits.lab.until(lambda: waits.line.waiting == 0)
    (third,) = await waits.ask_in_order("c")
    await waits.sent(1)
    first.reset()
    await waits.sent(2)
    waits.held._waiting.pop(0)
    waits.held.answer()
    assert (await third.answer()).status == 200
    assert waits.held.asked == ["a", "c"]


async def test_a_client_that_leaves_when_its_turn_has_come_gives_it_on(waits: Waits) -> None:
    waits.route()
    first, second, third = await waits.ask_in_order("a", "b", "c")
    await waits.sent(1)
    second.close()  # in the same moment
    waits.held.answer()
    assert (await first.answer()).status == 200
    await waits.lab.until(lambda: "c" in waits.held.asked)
    for _ in range(len(waits.held.asked) - 1):
        waits.held.answer()
    assert (await third.answer()).status == 200


async def test_more_places_are_filled_at_the_next_end(waits: Waits) -> None:
    waits.route()
    await waits.ask_in_order("a", "b", "c", "d")
    waits.route(places=3)
    await waits.sent(1)
    waits.held.answer()
    await waits.sent(4)
    assert waits.line.running == 3
    waits.held.answer(3)
    await waits.lab.quiet()
    waits.route(places=None)
    assert (await asyncio.gather(*[waits.ask(one) for one in "efgh"])) != []
    await waits.sent(8)
    waits.held.answer(4)


async def test_aliases_share_the_places(waits: Waits) -> None:
    waits.route()
    told = RouteValue(name="m", targets=("target:m0",), aliases=("n",), limits=LimitsValue(concurrent=1))
    waits.lab.plane.apply(Tables(version=9, routes=[told]))
    await waits.ask_in_order("a")
    await waits.ask("b", body=b'{"model": "n"}')
    await waits.lab.until(lambda: waits.line.waiting == 1)
    for count in (1, 2):
        await waits.sent(count)
        waits.held.answer()


async def test_what_waits_counts_for_its_key(waits: Waits) -> None:
    waits.lab.plane.callers.set_keys(told_keys(key("a", limits=Limits(concurrent=2)), key("b")))
    waits.route()
    await waits.ask_in_order("b0", "a1", "a2")
    answer = await (await waits.ask("a3")).answer()
    assert (answer.status, b"requests at once" in answer.body) == (429, True)
    for count in (1, 2, 3):
        await waits.sent(count)
        waits.held.answer()


# --- for a target that does not run


async def test_who_waits_too_long_for_a_model_gets_503_and_is_told_where_it_is(waits: Waits) -> None:
    waits.route(places=None, url=None, loading=0.05)
    client = await waits.ask("a")
    await waits.lab.until(lambda: waits.lab.link.waiting)
    waits.lab.target().loading = {"phase": "loading weights", "remaining": 12.0}
    answer = await client.answer()
    assert (answer.status, answer.get(b"retry-after")) == (503, b"12"), answer.body
    assert b'"loading":{"phase":"loading weights"' in answer.body
    assert queued(answer)["loading"] >= 0.05
    assert waits.lab.link.abandoned == [1]


async def test_how_long_a_route_waits_is_told_to_whoever_starts_the_target(waits: Waits) -> None:
    waits.route(places=None, url=None, loading=600.0)
    told: list[float | None] = []
    activate = waits.lab.link.activate
    waits.lab.link.activate = lambda target, exchange, seconds: (
        told.append(seconds),
        activate(target, exchange, seconds),
    )[1]  # type: ignore[method-assign]
    client = await waits.ask("a")
    await waits.lab.until(lambda: told)
    assert told[0] is not None
    assert 599 < told[0] <= 600
    client.close()
    await waits.lab.quiet()
    waits.route(places=None, url=None)
    client = await waits.ask("a")
    await waits.lab.until(lambda: len(told) == 2)
    assert told[1] is None
    client.close()
    await waits.lab.quiet()


async def test_a_model_that_comes_answers_and_the_wait_is_told(waits: Waits) -> None:
    waits.route(places=None, url=None)
    clients = [await waits.ask(one) for one in "abc"]
    await waits.lab.until(lambda: len(waits.lab.link.waiting) == 3)
    assert waits.line.waiting == 3
    waits.lab.target().set(waits.lab.target().value.__class__(id="target:m0", url=waits.url))
    for number in list(waits.lab.link.waiting):
        _, exchange = waits.lab.link.waiting.pop(number)
        exchange.activated()
    await waits.sent(3)
    waits.held.answer(3)
    told = [queued(await one.answer()) for one in clients]
    assert sorted(one["position"] for one in told) == [1, 2, 3]
    assert all(one["loading"] >= 0 and "busy" not in one for one in told)


async def test_bodies_that_wait_for_a_model_are_bounded_too(waits: Waits) -> None:
    waits.route(places=None, url=None, bytes=3000)
    body = b'{"model":"m","x":"%b"}' % (b"x" * 2000)
    first = await waits.ask("a", body=body)
    await waits.lab.until(lambda: waits.lab.link.waiting)
    answer = await (await waits.ask("b", body=body)).answer()
    assert (answer.status, b"wait for it already" in answer.body) == (503, True), answer.body
    assert len(waits.lab.link.waiting) == 1
    first.close()
    await waits.lab.quiet()


async def test_as_many_wait_as_the_server_says_where_the_route_does_not(waits: Waits) -> None:
    waits.lab.set(start_queue=1)
    waits.route(places=None, url=None)
    first = await waits.ask("a")
    await waits.lab.until(lambda: waits.lab.link.waiting)
    assert (await (await waits.ask("b")).answer()).status == 503
    first.close()
    await waits.lab.quiet()


async def test_who_waits_for_a_place_while_the_model_loads_has_as_long_as_the_others(waits: Waits) -> None:
    waits.route(url=None, busy=0.03, loading=0.25)
    first, second = await waits.ask_in_order("a", "b")
    answers = [await first.answer(), await second.answer()]
    assert [one.status for one in answers] == [503, 503]
    told = queued(answers[1])
    assert told["busy"] + told.get("loading", 0.0) >= 0.24, "not cut off after 0.03 s"
    assert (waits.line.running, waits.line.waiting) == (0, 0)


async def test_a_refusal_of_whoever_starts_it_frees_the_place(waits: Waits) -> None:
    waits.route(url=None)
    first, second = await waits.ask_in_order("a", "b")
    for client in (first, second):
        await waits.lab.until(lambda: waits.lab.link.waiting)
        _, exchange = waits.lab.link.waiting.popitem()[1]
        exchange.refused(NotReadyError("no memory is free", details={"retry_after": 7}))
        answer = await client.answer()
        assert (answer.status, answer.get(b"retry-after")) == (503, b"7")


async def test_who_waits_may_leave_at_any_time(waits: Waits) -> None:
    waits.route(places=2, url=None)
    clients = await waits.ask_in_order("a", "b", "c", "d")
    await waits.lab.until(lambda: len(waits.lab.link.waiting) == 2)
    for client in clients:
        client.reset()
    await waits.lab.quiet()
    assert (waits.line.running, waits.line.waiting, waits.line.size) == (0, 0, 0)


async def test_the_wait_for_a_place_is_in_server_timing_and_in_the_sums(waits: Waits) -> None:
    waits.lab.set(report_requests=True)
    waits.route()
    first, second = await waits.ask_in_order("a", "b")
    (phase,) = {one.phase for one in live_requests(waits.lab.plane, 9, 0.0)[0]} - {Phase.SENT}
    assert phase is Phase.WAITING
    await asyncio.sleep(0.05)
    waits.held.answer()
    assert b"queue" not in ((await first.answer()).get(b"server-timing") or b"")
    await waits.sent(2)
    waits.held.answer()
    timing = ((await second.answer()).get(b"server-timing") or b"").decode()
    queued = float(re.fullmatch(r"queue;dur=([\d.]+), wake;dur=0\.0, upstream.*", timing)[1])  # type: ignore[index]
    await waits.lab.quiet()
    assert 45 <= queued < 5000
    rows = waits.lab.plane.stats.take()
    assert sum(sum(row.waits.counts) for row in rows) == 1
    assert sum(row.waits.total for row in rows) == pytest.approx(queued / 1e3, abs=1e-3)


async def test_a_client_that_leaves_while_it_waits_has_waited(waits: Waits) -> None:
    waits.lab.set(report_requests=True)
    waits.route()
    first, second = await waits.ask_in_order("a", "b")
    await asyncio.sleep(0.05)
    second.close()
    await waits.lab.until(lambda: not waits.line.waiting)
    (account,), _ = waits.lab.plane.finished.take()
    found = finished_value(account, 0.0)
    assert (found.outcome, found.status, found.first_byte) == ("client-left", 499, None)
    assert 0.045 <= found.queue < 5
    waits.held.answer()
    assert (await first.answer()).status == 200
