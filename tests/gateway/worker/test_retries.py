"""A request is sent again only while its client has seen nothing of an answer, and never for one that has gone."""

import asyncio

import pytest
from gateway_lab import OK, Conn, GatewayLab, chat

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


async def closed_port(lab: GatewayLab) -> str:
    gone = await lab.upstream(answers)
    gone.stop_listening()
    await asyncio.sleep(0)
    return gone.url


async def test_refused_connections_end_in_502(lab: GatewayLab) -> None:
    lab.tell(await closed_port(lab))
    client = await lab.client()
    answer = await client.ask(chat())
    assert answer.status == 502
    assert b"Connection refused" in answer.body or b"refused" in answer.body
    assert (await client.ask(chat())).status == 502, "the connection goes on"


async def test_a_refused_connection_leads_to_another_target(lab: GatewayLab) -> None:
    upstream = await lab.upstream(answers)
    lab.tell(await closed_port(lab), upstream.url)
    client = await lab.client()
    for _ in range(4):
        assert (await client.ask(chat())).body == b"ok"
    assert len(upstream.requests) == 4


@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_used_connection_that_ends_without_a_byte_is_replaced_once(lab: GatewayLab, end: str) -> None:
    async def once(conn: Conn) -> None:
        await conn.request()
        conn.send(OK)
        await conn.request()
        if len(upstream.connections) == 1:
            getattr(conn, end)()
            return
        conn.send(OK)
        await conn.ended()

    upstream = await lab.serve(once)
    client = await lab.client()
    assert (await client.ask(chat())).body == b"ok"
    assert (await client.ask(chat())).body == b"ok"
    assert len(upstream.connections) == 2
    assert len(upstream.requests) == 3


async def test_a_target_that_never_answers_is_not_asked_for_ever(lab: GatewayLab) -> None:
    async def closes(conn: Conn) -> None:
        await conn.request()

    upstream = await lab.serve(closes)
    client = await lab.client()
    assert (await client.ask(chat())).status == 502
    assert 1 <= len(upstream.requests) <= 3


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("begun", [CHUNKED, SIZED], ids=["chunked", "sized"])
async def test_never_after_bytes_were_sent(lab: GatewayLab, begun: bytes, end: str) -> None:
    async def dies(conn: Conn) -> None:
        await conn.request()
        conn.send(begun)
        await go_on.wait()
        getattr(conn, end)()

    go_on = asyncio.Event()
    upstream = await lab.serve(dies)
    client = await lab.client()
    client.send(chat())
    await client.reader.readuntil(b"abc")
    go_on.set()
    assert await client.rest() in (b"", b"\r\n"), "the answer is cut off, not completed"
    assert len(upstream.requests) == 1


async def test_never_after_a_cancel(lab: GatewayLab) -> None:
    async def closes(conn: Conn) -> None:
        await conn.request()
        await go_on.wait()

    go_on = asyncio.Event()
    upstream = await lab.serve(closes)
    client = await lab.client()
    client.send(chat())
    await lab.until(lambda: upstream.requests)
    client.close()
    go_on.set()
    await lab.quiet()
    await asyncio.sleep(0.05)
    assert len(upstream.requests) == 1


async def test_a_target_that_moves_keeps_no_connection_to_its_old_address(lab: GatewayLab) -> None:
    async def slow(conn: Conn) -> None:
        await conn.request()
        await moved.wait()
        conn.send(OK)
        await conn.ended()

    moved = asyncio.Event()
    before = await lab.serve(slow)
    after = await lab.upstream(answers)
    client = await lab.client()
    client.send(chat())
    await lab.until(lambda: before.requests)
    lab.tell(after.url)
    moved.set()
    assert (await client.answer()).body == b"ok"
    assert (await client.ask(chat())).body == b"ok"
    assert (len(before.requests), len(after.requests)) == (1, 1)


async def test_a_silent_target_ends_in_504(lab: GatewayLab, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(conn: Conn) -> None:
        await conn.request()
        await conn.ended()

    monkeypatch.setattr("garrison.gateway.worker.sweeping._SWEEP_SECONDS", 0.01)
    lab.plane.silence_seconds = 0.05
    lab.sweep()
    upstream = await lab.serve(silent)
    client = await lab.client()
    assert (await client.ask(chat())).status == 504
    await lab.until(lambda: upstream.ended_at)
    assert len(upstream.requests) == 1
