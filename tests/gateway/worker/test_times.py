"""When a request of a route is given up: no connection, no first byte, no further byte, or simply too long."""

import asyncio
import socket
from typing import Any

import pytest
from gateway_lab import OK, Conn, GatewayLab, chat

from garrison.gateway.link.route_settings import LimitsValue, QueueValue, TimeoutsValue

PIECE = b"3\r\nabc\r\n"
HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(autouse=True)
async def swept(lab: GatewayLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.gateway.worker.sweeping._SWEEP_SECONDS", 0.01)
    lab.sweep()


async def silent(conn: Conn) -> None:
    await conn.request()
    await conn.ended()


async def drips(conn: Conn) -> None:
    """Answers a piece every 20 ms."""
    await conn.request()
    conn.send(HEAD)
    while not conn.writer.is_closing() and not conn.reader.at_eof():
        conn.send(PIECE)
        await asyncio.sleep(0.02)


def tell(lab: GatewayLab, url: str | None, **times: Any) -> None:
    lab.tell(url, route={"timeouts": TimeoutsValue(**times)})


async def test_the_first_byte(lab: GatewayLab) -> None:
    upstream = await lab.upstream(silent)
    tell(lab, upstream.url, first_byte=0.05)
    client = await lab.client()
    answer = await client.ask(chat())
    assert (answer.status, b"sent nothing for 0.05 s" in answer.body) == (504, True), answer.body
    assert lab.target().breaker.failures == 1
    await lab.until(lambda: upstream.ended_at, told=lambda: "the target hears of it")


async def test_between_two_bytes(lab: GatewayLab) -> None:
    async def stops(conn: Conn) -> None:
        await conn.request()
        conn.send(HEAD + PIECE)
        await conn.ended()

    upstream = await lab.upstream(stops)
    tell(lab, upstream.url, between_bytes=0.05)
    client = await lab.client()
    client.send(chat())
    rest = await client.rest()
    assert rest.endswith(PIECE), "cut off, so that it does not look complete"
    await lab.until(lambda: upstream.ended_at)


async def test_pieces_that_keep_coming_are_not_cut_off(lab: GatewayLab) -> None:
    more, passed = asyncio.Semaphore(0), 0.0

    async def answers(conn: Conn) -> None:
        await conn.request()
        conn.send(HEAD)
        while True:
            await more.acquire()
            conn.send(PIECE)

    upstream = await lab.upstream(answers)
    tell(lab, upstream.url, first_byte=10.0, between_bytes=10.0)
    now = asyncio.get_running_loop().time
    lab.plane.now = lambda: now() + passed
    client = await lab.client()
    client.send(chat())
    await client.reader.readuntil(b"\r\n\r\n")
    for _ in range(5):
        passed += 6.0
        await asyncio.sleep(0.03)  # so that it is looked at
        more.release()
        await client.reader.readuntil(PIECE)
    client.close()
    await lab.quiet()


async def test_the_whole_of_an_answer(lab: GatewayLab) -> None:
    upstream = await lab.upstream(drips)
    tell(lab, upstream.url, whole=0.15)
    client = await lab.client()
    client.send(chat())
    rest = await client.rest()
    assert rest.count(PIECE) >= 2
    assert not rest.endswith(b"0\r\n\r\n")
    assert lab.target().breaker.failures == 0, "the target is not to blame"


async def test_the_whole_ends_before_the_first_byte(lab: GatewayLab) -> None:
    upstream = await lab.upstream(silent)
    tell(lab, upstream.url, whole=0.05, first_byte=60.0)
    client = await lab.client()
    answer = await client.ask(chat())
    assert (answer.status, b"took longer than 0.05 s" in answer.body) == (504, True), answer.body
    assert lab.target().breaker.failures == 0


async def test_the_whole_counts_the_waiting(lab: GatewayLab) -> None:
    upstream = await lab.upstream(silent)
    limits = {"limits": LimitsValue(concurrent=1), "queue": QueueValue(busy=60.0)}
    lab.tell(upstream.url, route=limits | {"timeouts": TimeoutsValue(whole=0.1)})
    clients = [await lab.client() for _ in range(2)]
    answers = await asyncio.gather(*(one.ask(chat()) for one in clients))
    assert [one.status for one in answers] == [504, 504]
    tell(lab, None, whole=0.05)
    answer = await clients[0].ask(chat())
    assert (answer.status, b"took longer" in answer.body) == (504, True), "for a model that does not run, too"
    assert lab.link.abandoned == [1]


async def test_a_connection(lab: GatewayLab) -> None:
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    blocked = [socket.socket() for _ in range(4)]
    for one in blocked:  # the queue of the listener is full, so that a further connection waits
        one.setblocking(False)
        one.connect_ex(full.getsockname())
    try:
        tell(lab, f"http://127.0.0.1:{full.getsockname()[1]}", connect=0.05)
        client = await lab.client()
        answer = await client.ask(chat())
        assert (answer.status, b"no connection within 0.05 s" in answer.body) == (502, True), answer.body
    finally:
        for one in (*blocked, full):
            one.close()
        await asyncio.sleep(0)


async def test_nothing_cuts_a_long_answer_off_where_the_route_says_nothing(lab: GatewayLab) -> None:
    assert lab.plane.silence_seconds == 86_400
    held = asyncio.Event()

    async def slow(conn: Conn) -> None:
        await conn.request()
        await held.wait()
        conn.send(OK)

    upstream = await lab.serve(slow)
    client = await lab.client()
    client.send(chat())
    await lab.until(lambda: upstream.requests)
    (exchange,) = lab.plane._timed
    assert exchange.deadline - lab.plane.now() > 86_000
    held.set()
    assert (await client.answer()).status == 200


async def test_the_kernel_watches_whether_the_machine_of_a_target_is_still_there(lab: GatewayLab) -> None:
    upstream = await lab.upstream(silent)
    lab.tell(upstream.url)
    client = await lab.client()
    client.send(chat())
    await lab.until(lambda: upstream.connections)
    await lab.until(lambda: lab.plane.inbound and next(iter(lab.plane.inbound)).work._upstream)
    own = next(iter(lab.plane.inbound)).work._upstream._transport.get_extra_info("socket")
    assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    client.close()
    await lab.quiet()
