"""Connections that are kept for the next request: which, how many, and for how long."""

import asyncio
import shutil
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from framing import MemoryTransport
from served import Certify, StartRaw, StartSim

from garrison.net.client import HttpDialer
from garrison.net.endpoint import Server, Tls
from garrison.net.errors import TransportCause, TransportError
from garrison.net.exchange import Exchange
from garrison.net.origin import origin_of
from garrison.net.pool import Pool, PoolKey

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def key(url: str = "http://h", context: ssl.SSLContext | None = None, uds: str | None = None) -> PoolKey:
    return PoolKey.of(origin_of(url), context, uds)


def idle(since: float = 0.0, of: PoolKey | None = None) -> Exchange:
    exchange = Exchange()
    exchange.key = of or key()
    MemoryTransport().attach(exchange)
    exchange.idle_since = since
    return exchange


def is_closed(exchange: Exchange) -> bool:
    return exchange._transport is None or exchange._transport.is_closing()


async def test_the_last_one_is_used_first() -> None:
    pool = Pool(monotonic=Time())
    first, second = idle(), idle()
    pool.give(first)
    pool.give(second)
    assert (pool.take(key()), pool.take(key()), pool.take(key()), len(pool)) == (second, first, None, 0)


async def test_only_for_the_same_server_and_trust() -> None:
    pool = Pool(monotonic=Time())
    mine = key("https://h:1/prefix", ssl.create_default_context())
    pool.give(idle(of=mine))
    others = [
        key("https://h:1", ssl.create_default_context()),
        key("http://h:1"),
        key("https://h:2", mine.context),
        key("https://i:1", mine.context),
        key("https://h:1", mine.context, "/run/x"),
    ]
    assert [pool.take(other) for other in others] == [None] * 5
    assert pool.take(key("https://h:1/other", mine.context)) is not None


async def test_bounds() -> None:
    pool = Pool(per_origin=2, total=3, monotonic=Time())
    given = [idle(of=key(url)) for url in ("http://a", "http://a", "http://a", "http://b", "http://c")]
    for exchange in given:
        pool.give(exchange)
    assert [is_closed(exchange) for exchange in given] == [False, False, True, False, True]
    assert len(pool) == 3
    pool.close()
    assert all(map(is_closed, given))
    assert len(pool) == 0


async def test_too_old_or_closed_ones_are_not_used() -> None:
    now = Time()
    pool = Pool(idle_seconds=3, monotonic=now)
    old, young, closed, answering = idle(0), idle(2), idle(2), idle(2)
    for exchange in (old, young, closed):
        pool.give(exchange)
    answering.start(b"x", method="GET", limit=1, timeout=9, whole=True)
    pool.give(answering)  # in the middle of a response
    now.now = 4
    closed._transport.lose()
    assert (pool.take(key()), pool.take(key()), len(pool)) == (young, None, 0)
    assert is_closed(old)
    assert is_closed(answering)


async def test_what_nobody_takes_is_closed_in_time() -> None:
    pool = Pool(idle_seconds=0.05)
    left = [idle(time.monotonic(), key(f"http://h{at % 2}")) for at in range(3)]
    for exchange in left:
        pool.give(exchange)
    async with asyncio.timeout(5):
        while len(pool):
            await asyncio.sleep(0.01)
    assert all(map(is_closed, left))
    assert pool._sweeper is None
    assert pool._idle == {}


async def test_bytes_that_nobody_asked_for_close_an_idle_connection() -> None:
    pool = Pool(monotonic=Time())
    exchange = idle()
    pool.give(exchange)
    exchange.data_received(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
    assert is_closed(exchange)
    assert pool.take(key()) is None


@pytest.mark.system
async def test_a_dialer_keeps_connections_from_one_open_to_the_next(start_raw: StartRaw) -> None:
    server = await start_raw(OK, OK, OK, OK)
    pool = Pool()
    dialer = HttpDialer(pool=pool)
    for _ in range(3):
        async with dialer.open(Server(base_url=server.url)) as connection:
            assert (await connection.request("GET", "/", timeout=5)).body == b"ok"
        assert len(pool) == 1
    async with (
        dialer.open(Server(base_url=server.url)) as connection,
        connection.stream("GET", "/", timeout=5) as response,
    ):
        assert await response.read() == b"ok"
    assert (server.connections, len(pool)) == (1, 1)
    pool.close()


@pytest.mark.system
async def test_a_pooled_connection_that_the_server_closed_costs_nothing(start_raw: StartRaw) -> None:
    """A GET that got no byte of an answer is sent again; a POST may have acted and is not."""
    server = await start_raw(OK, None)
    dialer = HttpDialer(pool=Pool())

    async def ask(method: str) -> Any:
        async with dialer.open(Server(base_url=server.url)) as connection:
            return (await connection.request(method, "/", timeout=5)).body

    assert (await ask("GET"), await ask("GET"), server.connections) == (b"ok", b"ok", 2)
    with pytest.raises(TransportError):
        await ask("POST")
    assert len(server.heard) == 4


@pytest.mark.system
async def test_streams_left_early_are_not_kept(start_sim: StartSim) -> None:
    sim = await start_sim(max_model_len=100_000)
    pool = Pool()
    body = {"model": "acme/tiny", "prompt": "hi", "max_tokens": 50_000, "ignore_eos": True, "stream": True}
    async with (
        HttpDialer(pool=pool).open(Server(base_url=sim.url)) as connection,
        connection.stream("POST", "/v1/completions", json=body, timeout=5) as response,
    ):
        await anext(aiter(response))
    assert len(pool) == 0
    async with asyncio.timeout(5):
        while sim.open_connections:
            await asyncio.sleep(0.01)


@pytest.mark.system
async def test_a_connection_made_with_an_old_ca_serves_no_new_one(
    start_raw: StartRaw, certify: Certify, tmp_path: Path
) -> None:
    good, other = certify("good"), certify("other")
    ca = tmp_path / "ca.pem"
    shutil.copy(good.cert, ca)
    server = await start_raw(OK, OK, tls=good.server())
    dialer = HttpDialer(pool=Pool())
    endpoint = Server(base_url=server.url.replace("http:", "https:"), tls=Tls(ca=str(ca)))
    async with dialer.open(endpoint) as connection:
        await connection.request("GET", "/", timeout=5)
        shutil.copy(other.cert, tmp_path / "new.pem")
        (tmp_path / "new.pem").replace(ca)
        await dialer.connector.context(endpoint.tls, 5)
    with pytest.raises(TransportError) as caught:
        async with dialer.open(endpoint) as connection:
            await connection.request("GET", "/", timeout=5)
    assert caught.value.cause is TransportCause.TLS


@pytest.mark.system
async def test_https_connections_are_kept(start_raw: StartRaw, certify: Certify) -> None:
    good = certify("good")
    server = await start_raw(OK, OK, tls=good.server())
    pool = Pool()
    dialer = HttpDialer(pool=pool)
    endpoint = Server(base_url=server.url.replace("http:", "https:"), tls=Tls(ca=good.cert))
    for _ in range(2):
        async with dialer.open(endpoint) as connection:
            assert (await connection.request("GET", "/", timeout=5)).status == 200
    assert (server.connections, len(pool)) == (1, 1)
    pool.close()
