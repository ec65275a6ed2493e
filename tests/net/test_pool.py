"""Connections that are kept for the next request: which, how many, and for how long."""

import asyncio
import contextlib
import shutil
import ssl
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from framing import MemoryTransport
from served import Certify, StartRaw, StartSim

from garrison.net.client import HttpDialer
from garrison.net.endpoint import Secret, Server, Tls
from garrison.net.errors import TransportCause, TransportError
from garrison.net.exchange import Exchange
from garrison.net.origin import origin_of
from garrison.net.pool import Pool, PoolKey
from garrison.net.secrets import Secrets

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
    pool = Pool(per_key=2, total=3, monotonic=Time())
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


async def test_an_old_connection_is_not_used_however_busy() -> None:
    now = Time()
    pool = Pool(age_seconds=60, monotonic=now)
    exchange = idle()
    exchange.opened_at = 0.0
    for at in range(0, 60, 2):
        now.now = exchange.idle_since = at
        pool.give(exchange)
        assert pool.take(key()) is exchange
    now.now = exchange.idle_since = 60
    pool.give(exchange)
    assert is_closed(exchange)
    assert len(pool) == 0


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


# --- by sender: settings and secrets count, too


def kept(**options: Any) -> Pool:
    return Pool(per_key=1, idle_seconds=10, by_sender=True, **options)


async def asked(dialer: HttpDialer, endpoint: Server, **options: Any) -> bytes:
    async with dialer.open(endpoint, **options) as connection:
        return (await connection.request("GET", "/", timeout=5)).body


@pytest.mark.system
async def test_a_change_of_settings_or_secrets_needs_a_new_connection(start_raw: StartRaw) -> None:
    server = await start_raw(*[OK] * 9)
    given = {"KEY": "first-secret"}
    pool = kept()
    dialer = HttpDialer(secrets=Secrets(given), pool=pool)
    base = Server(base_url=server.url, api_key=Secret("env", "KEY"), headers={"x-site": "lab"})
    for endpoint in (base, base, replace(base, timeout=9.0)):
        await asked(dialer, endpoint)
    assert server.connections == 1
    for number, endpoint in enumerate(
        (
            replace(base, headers={"x-site": "hall"}),
            replace(base, base_url=f"{server.url}/v2"),
            replace(base, headers={}),
        ),
        2,
    ):
        await asked(dialer, endpoint)
        await asked(dialer, endpoint)
        assert server.connections == number
    given["KEY"] = "second-secret"
    await asked(dialer, base)
    assert server.connections == 5
    assert not any(b"secret" in repr(key).encode() for key in pool._idle)
    pool.close()


@pytest.mark.system
async def test_a_secret_that_is_renewed_after_a_refusal_goes_over_a_new_connection(
    start_raw: StartRaw, tmp_path: Path
) -> None:
    refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"
    server = await start_raw(OK, refusal, OK)
    secret, now = tmp_path / "key", Time()
    secret.write_text("old-secret")
    pool = kept()
    dialer = HttpDialer(secrets=Secrets(monotonic=now), pool=pool)
    endpoint = Server(base_url=server.url, api_key=Secret("file", str(secret)))
    assert await asked(dialer, endpoint) == b"ok"
    secret.write_text("new-secret")
    now.now += 10
    assert await asked(dialer, endpoint) == b"ok"
    assert [b"new-secret" in head for head in server.heard] == [False, False, True]
    assert server.connections == 2
    pool.close()


@pytest.mark.system
@pytest.mark.parametrize(("method", "connections"), [("GET", 1), ("POST", 2)])
async def test_only_get_uses_one_that_the_server_may_have_closed(
    start_raw: StartRaw, method: str, connections: int
) -> None:
    server = await start_raw(OK, OK)
    pool = kept()
    dialer = HttpDialer(pool=pool)
    await asked(dialer, Server(base_url=server.url))
    for idles in pool._idle.values():
        idles[0].idle_since -= 5
    async with dialer.open(Server(base_url=server.url)) as connection:
        await connection.request(method, "/", timeout=5)
    assert server.connections == connections
    pool.close()


@pytest.mark.system
@pytest.mark.parametrize("where", ["ipv6", "unix"])
async def test_connections_are_kept_wherever_they_lead(where: str, tmp_path: Path) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)

    path = str(tmp_path / "engine.sock")
    if where == "unix":
        server = await asyncio.start_unix_server(serve, path)
        url, options = "http://localhost", {"uds": path}
    else:
        server = await asyncio.start_server(serve, "::1", 0)
        url, options = f"http://[::1]:{server.sockets[0].getsockname()[1]}", {}
    pool = kept()
    dialer = HttpDialer(pool=pool)
    for _ in range(3):
        assert await asked(dialer, Server(base_url=url), **options) == b"ok"
    assert (len(writers), len(pool)) == (1, 1)
    pool.close()
    server.close()
    writers[0].transport.abort()
    await asyncio.sleep(0.01)


@pytest.mark.system
async def test_a_dialer_that_keeps_shares_the_rest(start_raw: StartRaw) -> None:
    server = await start_raw(OK, OK)
    plain, pool = HttpDialer(), kept()
    keeping = plain.keeping(pool)
    assert (keeping.secrets, keeping.resolver, keeping.contexts) == (plain.secrets, plain.resolver, plain.contexts)
    for dialer in (keeping, keeping, plain):
        await asked(dialer, Server(base_url=server.url))
    assert (server.connections, len(pool), plain.pool) == (2, 1, None)
    pool.close()
