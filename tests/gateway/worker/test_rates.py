"""Limits of keys and of routes, and what answers say about them."""

import json

import pytest
from gateway_lab import OK, Conn, GatewayLab, Message, chat
from lab_keys import key, told_keys

from garrison.access.buckets import Standing
from garrison.access.limiter import LimitKind
from garrison.access.permissions import Limits
from garrison.gateway.link.route_settings import LimitsValue
from garrison.gateway.worker.table.rates import rate_headers


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


def by(token: str) -> bytes:
    return chat(b'{"model": "m"}', b"X-API-Key: " + token.encode())


def rates(answer: Message) -> dict[str, str]:
    return {
        name.decode().removeprefix("x-ratelimit-"): value.decode()
        for name, value in answer.headers
        if name.startswith(b"x-ratelimit-")
    }


def test_headers_are_those_of_openai() -> None:
    found = rate_headers([{LimitKind.REQUESTS: Standing(60, 59, 1.0), LimitKind.TOKENS: Standing(1000, 0, 75.5)}])
    assert [f"{name.decode()}: {value.decode()}" for name, value in found] == [
        "x-ratelimit-limit-requests: 60",
        "x-ratelimit-remaining-requests: 59",
        "x-ratelimit-reset-requests: 1s",
        "x-ratelimit-limit-tokens: 1000",
        "x-ratelimit-remaining-tokens: 0",
        "x-ratelimit-reset-tokens: 1m15.5s",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, b"0s"), (0.004, b"0s"), (0.05, b"0.05s"), (59.999, b"1m0s"), (60, b"1m0s"), (125, b"2m5s")],
)
def test_times(seconds: float, text: bytes) -> None:
    assert rate_headers([{LimitKind.REQUESTS: Standing(1, 1, seconds)}])[2][1] == text


def test_of_two_limits_that_of_which_less_is_left_is_told() -> None:
    found = dict(
        rate_headers(
            [
                {LimitKind.REQUESTS: Standing(60, 5, 1.0), LimitKind.CONCURRENT: Standing(4, 3, 0.0)},
                {LimitKind.REQUESTS: Standing(10, 9, 1.0)},
            ]
        )
    )
    assert found[b"x-ratelimit-limit-requests"] == b"60"
    assert found[b"x-ratelimit-remaining-concurrent"] == b"3"
    assert b"x-ratelimit-reset-concurrent" not in found


async def test_a_key_with_limits_is_told_what_is_left(lab: GatewayLab) -> None:
    limits = Limits(requests_per_minute=3, tokens_per_minute=1000, concurrent=2)
    lab.plane.callers.set_keys(told_keys(key("k", limits=limits), key("free")))
    await lab.serve(answers)
    client = await lab.client()
    told = [rates(await client.ask(by("k"))) for _ in range(3)]
    assert [one["remaining-requests"] for one in told] == ["2", "1", "0"]
    assert (told[0]["limit-requests"], told[0]["limit-tokens"]) == ("3", "1000")
    assert (told[0]["limit-concurrent"], told[0]["remaining-concurrent"]) == ("2", "1"), "this one is in progress"
    refused = await client.ask(by("k"))
    assert (refused.status, rates(refused)["remaining-requests"]) == (429, "0")
    assert float(rates(refused)["reset-requests"].removesuffix("s").split("m")[-1]) >= 0
    assert int(refused.get(b"retry-after") or b"") >= 1
    assert rates(await client.ask(by("free"))) == {}
    assert rates(await client.ask(chat())) == {}


async def test_what_the_target_says_of_its_own_limits_is_passed_on_unless_there_are_some_here(lab: GatewayLab) -> None:
    lab.plane.callers.set_keys(told_keys(key("k", limits=Limits(concurrent=2))))

    async def says(conn: Conn) -> None:
        while True:
            await conn.request()
            conn.send(b"HTTP/1.1 200 OK\r\nX-RateLimit-Remaining-Requests: 7\r\nContent-Length: 2\r\n\r\nok")

    await lab.serve(says)
    client = await lab.client()
    for _ in range(2):  # the second is of a head that repeats
        assert (await client.ask(chat())).get(b"x-ratelimit-remaining-requests") == b"7"
        limited = await client.ask(by("k"))
        assert (limited.get(b"x-ratelimit-remaining-requests"), limited.body) == (None, b"ok")
        assert limited.get(b"x-ratelimit-limit-concurrent") == b"2"
        assert limited.get(b"content-length") == b"2"


async def test_a_route_carries_so_many_requests_whoever_asks(lab: GatewayLab) -> None:
    lab.plane.callers.set_keys(told_keys(key("k", limits=Limits(requests_per_minute=100))))
    upstream = await lab.upstream(answers)
    lab.tell(upstream.url, route={"limits": LimitsValue(requests_per_minute=3)})
    client = await lab.client()
    found = [await client.ask(one) for one in (chat(), by("k"), chat(), by("k"), chat())]
    assert [one.status for one in found] == [200, 200, 200, 429, 429]
    assert b"the route m may do no more than 3 requests per minute" in found[-1].body
    assert [rates(one).get("remaining-requests") for one in found] == ["2", "1", "0", "0", "0"]
    assert len(upstream.requests) == 3
    standing = lab.plane.callers.limiter.standings(1, Limits(requests_per_minute=100), lab.plane.now())
    assert standing[LimitKind.REQUESTS].remaining == 99, "what the route refuses does not count for the key"


async def test_a_route_carries_so_many_tokens(lab: GatewayLab) -> None:
    body = json.dumps({"usage": {"prompt_tokens": 300, "completion_tokens": 800}}).encode()

    async def counts(conn: Conn) -> None:
        while True:
            await conn.request()
            conn.send(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )

    upstream = await lab.upstream(counts)
    lab.tell(upstream.url, route={"limits": LimitsValue(tokens_per_minute=1000)})
    client = await lab.client()
    assert (await client.ask(chat())).status == 200
    refused = await client.ask(chat())
    assert (refused.status, b"1000 tokens per minute" in refused.body) == (429, True)
    assert upstream.requests[0].all(b"accept-encoding") == [b"identity"]
    lab.tell(upstream.url, route={"limits": LimitsValue(tokens_per_minute=5000)})
    assert (await client.ask(chat())).status == 200, "what was used so far stays used, and more is allowed"
