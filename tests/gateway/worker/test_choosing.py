"""Which target of a route a request goes to, and what happens when that one fails: over real connections."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from routed import Routed, body_of, refuse

from garrison.base.errors import NotReadyError
from garrison.gateway.choose.breaker import BreakerState
from garrison.gateway.link.messages import RouteValue, TargetValue
from garrison.gateway.worker.exchange.exchange import Exchange
from garrison.gateway.worker.table.targets import Target


@pytest.fixture
async def two() -> AsyncIterator[Routed]:
    async with Routed("a", "b") as made:
        yield made


@pytest.fixture
async def three() -> AsyncIterator[Routed]:
    async with Routed("a", "b", "c") as made:
        yield made


def cold(routed: Routed, *names: str) -> None:
    routed.tell(targets=[TargetValue(id=f"instance:{name}") for name in names])


def state(routed: Routed, name: str) -> BreakerState:
    return routed.target(name).breaker.state(routed.plane.now())


async def test_turns_keep_to_the_weights(two: Routed) -> None:
    two.route("a", "b", weights=(3.0, 1.0))
    assert Counter(await two.answers(40)) == {"a": 30, "b": 10}
    assert two.counted() == {}


async def test_the_fewest_requests_in_progress(two: Routed) -> None:
    two.route("a", "b", policy="least-outstanding")
    two.places["a"].how = two.places["b"].how = "held"
    open_ones = [await two.begin() for _ in range(6)]
    await two.until(lambda: two.target("a").running + two.target("b").running == 6)
    assert (two.target("a").running, two.target("b").running) == (3, 3)
    for _, writer in open_ones:
        writer.close()
    await two.until(lambda: two.counted() == {})


async def test_the_load_of_a_target_counts_in_all_its_routes(two: Routed) -> None:
    two.route("a", "b", policy="least-outstanding", weights=(2.0, 2.0))
    two.tell(routes=[RouteValue(name="only-a", targets=("instance:a",))])
    two.places["a"].how = "held"
    _, writer = await two.begin(body_of("only-a"))
    await two.until(lambda: two.target("a").running == 1)
    assert await two.answers(4) == ["b"] * 4
    writer.close()
    await two.until(lambda: two.counted() == {})


async def test_a_cold_target_is_left_to_sleep_while_another_is_warm(two: Routed) -> None:
    two.route("a", "b")
    cold(two, "a")
    assert await two.answers(4) == ["b"] * 4
    assert two.link.activated == []


async def test_the_first_is_woken_when_all_are_cold(two: Routed) -> None:
    values = {one.value.id: one.value for one in two.places.values()}
    two.route("b", "a")
    cold(two, "a", "b")

    def wake(target: Target, exchange: Exchange) -> None:
        target.set(values[target.id])
        exchange.activated()

    two.link.on_activate = wake
    assert await two.answers(1) == ["b"]
    assert two.link.activated == ["instance:b"]


async def test_another_is_woken_when_the_first_cannot_be(two: Routed) -> None:
    two.route("a", "b")
    cold(two, "a", "b")
    two.link.on_activate = refuse(NotReadyError("no memory is free", details={"retry_after": 7}))
    status, head, text = await two.ask()
    assert two.link.activated == ["instance:a", "instance:b"]
    assert (status, "no memory is free" in text) == (503, True)
    assert "retry-after: 7" in head
    assert state(two, "a") is BreakerState.CLOSED, "a refusal says nothing about its health"


async def test_spill_goes_to_the_next_when_the_first_is_full(two: Routed) -> None:
    two.route("a", "b", policy="spill")
    two.places["a"].how = "held"
    open_ones = [await two.begin() for _ in range(8)]
    await two.until(lambda: two.target("a").running == 8)
    assert await two.answers(1) == ["b"]
    for _, writer in open_ones:
        writer.close()


async def test_pin_keeps_to_the_first_and_wakes_it(two: Routed) -> None:
    two.route("a", "b", policy="pin")
    assert await two.answers(3) == ["a"] * 3
    cold(two, "a")
    two.link.on_activate = refuse(NotReadyError("not now"))
    assert await two.answers(1) == ["b"], "the other stands in"
    assert two.link.activated == ["instance:a"]


async def test_warm_first(two: Routed) -> None:
    two.route("a", "b", policy="warm-first")
    assert await two.answers(3) == ["a"] * 3
    cold(two, "a")
    assert await two.answers(3) == ["b"] * 3


@pytest.mark.parametrize("how", ["refused", "lost", 503])
async def test_another_target_answers_for_one_that_fails(two: Routed, how: int | str) -> None:
    two.route("a", "b", policy="pin")
    if how == "refused":
        await two.places["a"].close()
    two.places["a"].how = how
    assert await two.answers(1) == ["b"]
    assert two.target("a").breaker.failures == 1
    assert two.counted() == {}


async def test_what_a_target_says_is_passed_on_when_there_is_no_other(two: Routed) -> None:
    two.route("a", "b")
    two.places["a"].how = two.places["b"].how = 503
    status, _, text = await two.ask()
    assert (status, text) in [(503, "a"), (503, "b")]
    assert len(two.places["a"].asked) == len(two.places["b"].asked) == 1


async def test_two_lost_answers_are_the_end(three: Routed) -> None:
    three.route("a", "b", "c")
    for one in three.places.values():
        one.how = "lost"
    status, _, text = await three.ask()
    assert status == 502, text
    assert sum(len(one.asked) for one in three.places.values()) == 2, "a third could be lost to the same request"


async def test_nothing_is_sent_again_after_the_first_byte(two: Routed) -> None:
    two.route("a", "b", policy="pin")
    two.places["a"].how = "half"
    status, _, text = await two.ask()
    assert (status, text) in [(200, "half"), (0, "")]
    assert two.places["b"].asked == []
    assert two.counted() == {}


async def test_the_only_target_is_not_asked_twice_for_what_it_failed_at(two: Routed) -> None:
    two.route("a")
    two.places["a"].how = "lost"
    status, _, _ = await two.ask()
    assert (status, len(two.places["a"].asked)) == (502, 1)


async def test_a_stale_connection_is_replaced_by_a_fresh_one(two: Routed) -> None:
    two.route("a")
    place = two.places["a"]
    place.how, place.closes_after = "held", 1
    first = [await two.begin() for _ in range(3)]
    await two.until(lambda: len(place.asked) == 3)
    place.release.set()
    for reader, writer in first:
        await reader.read()
        writer.close()
    assert len(two.target("a").idle) == 3
    assert await two.answers(1) == ["a"]
    assert (len(place.asked), place.opened) == (5, 4), "not another idle one, which is as old"
    assert two.target("a").breaker.failures == 0, "nobody's failure"
    assert two.counted() == {}


async def test_a_target_that_died_with_idle_connections_is_replaced(two: Routed) -> None:
    two.route("a", "b", policy="pin")
    place = two.places["a"]
    await two.answers(1)
    place.how = "lost"
    assert await two.answers(1) == ["b"], "first stale, then lost: one target has been lost, not two"
    assert place.opened == 2


async def test_retries_have_a_budget(two: Routed) -> None:
    two.route("a", "b", policy="pin")
    two.places["a"].how = 503
    assert [(await two.ask())[0] for _ in range(4)] == [200, 200, 200, 503]


async def test_a_target_that_is_gone_costs_no_budget(two: Routed) -> None:
    two.route("a", "b", policy="pin")
    await two.places["a"].close()
    assert await two.answers(8) == ["b"] * 8
    assert state(two, "a") is BreakerState.OPEN


async def test_a_target_that_fails_again_and_again_is_left_alone_and_tried_later(two: Routed) -> None:
    two.route("a")
    place = two.places["a"]
    place.how = "lost"
    for _ in range(5):
        assert (await two.ask())[0] == 502
    status, head, text = await two.ask()
    assert (status, "retry-after: 1" in head) == (503, True), (head, text)
    assert "left alone" in text
    assert len(place.asked) == 5
    place.how = 200
    two.passed += 1.1
    assert await two.answers(2) == ["a", "a"]
    assert state(two, "a") is BreakerState.CLOSED


async def test_one_request_tries_a_target_again_and_makes_room_when_it_is_cancelled(two: Routed) -> None:
    two.route("a")
    place = two.places["a"]
    place.how = "lost"
    for _ in range(5):
        await two.ask()
    place.how = "held"
    two.passed += 1.1
    _, writer = await two.begin()
    await two.until(lambda: len(place.asked) == 6)
    assert (await two.ask())[0] == 503, "only one at a time"
    writer.close()
    await two.until(lambda: two.target("a").running == 0)
    place.how = 200
    assert await two.answers(1) == ["a"], "the next one tries"


async def test_a_target_that_is_opened_anew_has_no_past(two: Routed) -> None:
    two.route("a")
    two.places["a"].how = "lost"
    for _ in range(6):
        await two.ask()
    two.places["a"].how = 200
    cold(two, "a")
    two.tell(targets=[two.places["a"].value])
    assert await two.answers(1) == ["a"]


async def test_a_session_stays_where_it_is(three: Routed) -> None:
    three.route("a", "b", "c", policy="hash")
    assert len({(await three.answers(1, headers=f"X-Session-Id: {n}\r\n"))[0] for n in range(12)}) > 1
    for number in range(6):
        assert len(set(await three.answers(3, headers=f"X-Session-Id: {number}\r\n"))) == 1
    body = body_of("r", user="u1")
    assert len(set(await three.answers(4, body=body))) == 1


async def test_prompts_that_begin_alike_go_where_the_first_went(three: Routed) -> None:
    three.route("a", "b", "c", policy="prefix")
    begins = ["x" * 1500, "y" * 1500, "z" * 1500]
    for begin in begins:
        bodies = [body_of("r", prompt=begin + str(n), messages=None) for n in range(4)]
        assert len({name for one in bodies for name in await three.answers(1, body=one)}) == 1


async def test_two_adapters_of_one_target(two: Routed) -> None:
    two.route("a", "a", models=("v1", "v2"), weights=(3.0, 1.0))
    await two.answers(8)
    assert Counter(one["model"] for one in two.places["a"].asked) == {"v1": 6, "v2": 2}


async def test_what_a_policy_remembers_outlives_news_that_do_not_concern_it(two: Routed) -> None:
    two.route("a", "b", weights=(3.0, 1.0))
    route = two.plane.table.routes["r"]
    ends = route.ends
    two.route("a", "b", weights=(3.0, 1.0), facts={"state": "running"})
    assert two.plane.table.routes["r"] is route
    assert route.ends is ends
    two.route("a", "b", weights=(1.0, 1.0))
    assert route.ends is not ends
    assert two.target("a").ends == set(), "the ends of before count nothing any more"
    assert Counter(await two.answers(10)) == {"a": 5, "b": 5}


async def test_a_target_that_went_and_came_back(two: Routed) -> None:
    two.route("a", "b")
    two.tell(gone_targets=["instance:a"])
    assert await two.answers(2) == ["b", "b"]
    two.tell(targets=[two.places["a"].value])
    assert set(await two.answers(2)) == {"a", "b"}
    two.tell(gone_targets=["instance:a", "instance:b"])
    status, head, _ = await two.ask()
    assert (status, "retry-after" in head) == (503, True)


async def test_an_engine_without_the_path_is_passed_over(two: Routed) -> None:
    two.route("a", "b", policy="pin")
    value = two.places["a"].value
    two.tell(targets=[TargetValue(id=value.id, url=value.url, engine="llama_cpp")])
    status, _, text = await two.ask(path="/v1/score")
    assert (status, text) == (200, "b")
    assert two.counted() == {}


async def test_a_client_that_leaves_between_two_attempts(three: Routed) -> None:
    three.route("a", "b", "c", policy="pin")
    for name in ("a", "b"):
        await three.places[name].close()
    three.plane.later = lambda _seconds, call: asyncio.get_running_loop().call_later(0.2, call)  # type: ignore[method-assign]  # its seam
    _, writer = await three.begin()
    await three.until(lambda: three.target("b").breaker.failures == 1)
    writer.close()
    await asyncio.sleep(0.3)
    assert three.places["c"].asked == []
    assert three.counted() == {}
