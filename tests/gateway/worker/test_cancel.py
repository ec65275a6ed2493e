"""The client goes away: whatever its request was doing ends, and its target sees that within 100 ms."""

import asyncio
import time
from collections.abc import Callable

import pytest
from gateway_lab import OK, Client, Conn, GatewayLab, chat

from garrison.gateway.worker import plane as plane_module

GONE: dict[str, Callable[[Client], None]] = {"closed": Client.close, "reset": Client.reset}
_SOON = 0.1


@pytest.fixture(params=GONE.values(), ids=GONE.keys())
def go(request: pytest.FixtureRequest) -> Callable[[Client], None]:
    return request.param


async def silent(conn: Conn) -> None:
    await conn.request()
    await conn.ended()


async def test_while_it_uploads(lab: GatewayLab, go: Callable[[Client], None]) -> None:
    upstream = await lab.serve(silent)
    client = await lab.client()
    client.send(chat()[:-5])
    await lab.until(lambda: not all(one.quiet() for one in lab.plane.inbound) and lab.plane.inbound)
    go(client)
    await lab.until(lambda: not lab.plane.inbound, _SOON)
    assert upstream.connections == []


async def test_while_it_uploads_to_the_control_process(lab: GatewayLab, go: Callable[[Client], None]) -> None:
    control = await lab.control(silent)
    client = await lab.client()
    client.send(b"POST /api/v1/x HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    await lab.until(lambda: control.connections)
    at = time.monotonic()
    go(client)
    await lab.until(lambda: control.connections[0].reader.at_eof() or control.connections[0].reader.exception(), _SOON)
    assert time.monotonic() - at < _SOON


async def test_while_it_waits_for_a_cold_target(lab: GatewayLab, go: Callable[[Client], None]) -> None:
    lab.tell(None)
    client = await lab.client()
    client.send(chat())
    await lab.until(lambda: lab.link.waiting)
    go(client)
    await lab.until(lambda: lab.link.abandoned == [1], _SOON)


async def test_while_connecting(lab: GatewayLab, go: Callable[[Client], None], monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = await lab.serve(silent)
    entered, may_go_on, connect = asyncio.Event(), asyncio.Event(), plane_module.connect

    async def slow(target):
        entered.set()
        await may_go_on.wait()
        return await connect(target)

    monkeypatch.setattr(plane_module, "connect", slow)
    client = await lab.client()
    client.send(chat())
    await entered.wait()
    go(client)
    await lab.until(lambda: not lab.plane.inbound and lab.target().running == 0, _SOON)
    may_go_on.set()
    await lab.quiet()
    assert upstream.requests == []
    assert len(lab.target().idle) == 1


async def test_before_the_first_byte(lab: GatewayLab, go: Callable[[Client], None]) -> None:
    upstream = await lab.serve(silent)
    client = await lab.client()
    client.send(chat())
    await lab.until(lambda: upstream.requests)
    at = time.monotonic()
    go(client)
    await lab.until(lambda: upstream.ended_at)
    assert upstream.ended_at[0] - at < _SOON
    assert lab.in_progress() == []


async def test_mid_stream(lab: GatewayLab, go: Callable[[Client], None]) -> None:
    async def begins(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await conn.ended()

    upstream = await lab.serve(begins)
    client = await lab.client()
    client.send(chat())
    await client.reader.readuntil(b"abc")
    at = time.monotonic()
    go(client)
    await lab.until(lambda: upstream.ended_at)
    assert upstream.ended_at[0] - at < _SOON
    assert len(upstream.connections) == 1, "it was asked again"


async def test_mid_stream_while_it_does_not_read(lab: GatewayLab) -> None:
    async def floods(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n" + bytes(2**24))
        await conn.ended()

    upstream = await lab.serve(floods)
    client = await lab.client()
    client.writer.transport.pause_reading()
    client.send(chat())
    await lab.until(lambda: any(one.congested for one in lab.plane.inbound))
    at = time.monotonic()
    client.reset()
    await lab.until(lambda: not lab.plane.inbound, _SOON)
    await lab.until(lambda: upstream.ended_at)
    assert upstream.ended_at[0] - at < 3 * _SOON, "the target had megabytes to be read first"


async def test_half_closed_and_not_reading(lab: GatewayLab) -> None:
    async def floods(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n" + bytes(2**24))
        await conn.ended()

    upstream = await lab.serve(floods)
    client = await lab.client()
    client.writer.transport.pause_reading()
    client.send(chat())
    await lab.until(lambda: any(one.congested for one in lab.plane.inbound))
    client.writer.write_eof()
    await lab.until(lambda: not lab.plane.inbound, _SOON)
    await lab.until(lambda: upstream.ended_at)


async def test_between_pipelined_requests(lab: GatewayLab, go: Callable[[Client], None]) -> None:
    async def second_is_silent(conn: Conn) -> None:
        await conn.request()
        conn.send(OK)
        await conn.request()
        await conn.ended()

    upstream = await lab.serve(second_is_silent)
    client = await lab.client()
    client.send(chat() * 3)
    assert (await client.answer()).body == b"ok"
    await lab.until(lambda: len(upstream.requests) == 2)
    at = time.monotonic()
    go(client)
    await lab.until(lambda: upstream.ended_at)
    assert upstream.ended_at[0] - at < _SOON
    await asyncio.sleep(0.05)
    assert len(upstream.requests) == 2, "a request of a client that has gone was sent"


async def test_behind_a_request_that_cannot_be_read(lab: GatewayLab, go: Callable[[Client], None]) -> None:
    upstream = await lab.serve(silent)
    client = await lab.client()
    client.send(chat() + b"NONSENSE\r\n\r\n")
    await lab.until(lambda: upstream.requests)
    go(client)
    await lab.until(lambda: not lab.plane.inbound, _SOON)
    await lab.until(lambda: upstream.ended_at)
