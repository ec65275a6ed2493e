"""Requests to the control process: streamed both ways."""

import asyncio
import hashlib
import json

import pytest
from gateway_lab import OK, Conn, GatewayLab

_SIZE = 20 * 2**20
_PIECE = 2**16


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


@pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
async def test_an_upload_is_streamed_to_a_slow_reader(lab: GatewayLab, chunked: bool) -> None:
    received = hashlib.sha256()

    async def reads_slowly(conn: Conn) -> None:
        await conn.reader.readuntil(b"\r\n\r\n")
        left = _SIZE
        if chunked:
            while size := int(await conn.reader.readuntil(b"\r\n"), 16):
                received.update(await conn.reader.readexactly(size))
                await conn.reader.readexactly(2)
                await asyncio.sleep(0.0005)
        while left and not chunked:
            data = await conn.reader.read(_PIECE)
            received.update(data)
            left -= len(data)
            await asyncio.sleep(0.0005)
        conn.send(OK)
        await conn.ended()

    await lab.control(reads_slowly)
    client = await lab.client()
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % _SIZE
    client.send(b"PUT /api/v1/x HTTP/1.1\r\n" + framing + b"\r\n\r\n")
    sent, most = hashlib.sha256(), 0
    for number in range(_SIZE // _PIECE):
        piece = bytes([number % 251]) * _PIECE
        sent.update(piece)
        client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await client.writer.drain()
        for one in lab.plane.inbound:
            if (work := one.work) is None:
                continue
            upstream = work._upstream
            held = 0 if upstream is None else upstream._transport.get_write_buffer_size()
            most = max(most, held + sum(map(len, work._pending)))
    if chunked:
        client.send(b"0\r\n\r\n")
    assert (await client.answer()).body == b"ok"
    assert received.digest() == sent.digest()
    assert most < 2**20
    assert (await client.ask(b"GET /v1/nowhere HTTP/1.1\r\n\r\n")).status == 404


async def test_what_the_control_process_is_told(lab: GatewayLab) -> None:
    control = await lab.control(answers)
    client = await lab.client()
    await client.ask(
        b"POST /api/v1/x?a=b HTTP/1.1\r\nHost: gateway:1\r\nAuthorization: Bearer k\r\nCookie: a=b\r\nX-Forwarded-For: "
        b"6.6.6.6\r\nx-forwarded-for: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nForwarded: for=6.6.6.6\r\nConnection: "
        b"keep-alive, X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    )
    asked = control.requests[0]
    assert asked.start == b"POST /api/v1/x?a=b HTTP/1.1"
    assert sorted(asked.headers) == [
        (b"Authorization", b"Bearer k"), (b"Cookie", b"a=b"), (b"Host", b"gateway:1"), (b"content-length", b"2"),
        (b"x-forwarded-for", b"127.0.0.1"), (b"x-forwarded-proto", b"http"),
    ]  # fmt: skip
    assert asked.body == b"hi"


async def test_a_client_cannot_have_host_or_length_dropped(lab: GatewayLab) -> None:
    control = await lab.control(answers)
    client = await lab.client()
    await client.ask(
        b"POST /x HTTP/1.1\r\nHost: g\r\nConnection: host, content-length, x-forwarded-for\r\n"
        b"Content-Length: 1\r\n\r\na"
    )
    asked = control.requests[0]
    assert (asked.get(b"host"), asked.get(b"content-length"), asked.body) == (b"g", b"1", b"a")
    assert asked.get(b"x-forwarded-for") == b"127.0.0.1"


async def test_connections_to_the_control_process_are_used_again(lab: GatewayLab) -> None:
    control = await lab.control(answers)
    client = await lab.client()
    for _ in range(3):
        assert (await client.ask(b"GET /ui/ HTTP/1.1\r\n\r\n")).body == b"ok"
    assert len(control.connections) == 1


async def test_one_that_was_idle_for_too_long_is_replaced(lab: GatewayLab) -> None:
    async def one_each(conn: Conn) -> None:
        await conn.request()
        conn.send(OK)
        await conn.request()  # and closes

    control = await lab.control(one_each)
    client = await lab.client()
    for _ in range(3):
        assert (await client.ask(b"GET /ui/ HTTP/1.1\r\n\r\n")).body == b"ok"
    assert len(control.connections) == 3


async def test_without_a_control_process(lab: GatewayLab) -> None:
    client = await lab.client()
    for raw in (b"GET /ui/ HTTP/1.1\r\n\r\n", b"PUT /x HTTP/1.1\r\nContent-Length: 2\r\n\r\nab"):
        answer = await client.ask(raw)
        assert answer.status == 502
        assert "management server" in json.loads(answer.body)["error"]["message"]


async def test_one_that_dies_before_its_answer(lab: GatewayLab) -> None:
    async def dies(conn: Conn) -> None:
        await conn.request()

    control = await lab.control(dies)
    client = await lab.client()
    assert (await client.ask(b"GET /ui/ HTTP/1.1\r\n\r\n")).status == 502
    assert len(control.requests) == 1, "it may have done what it was asked"


async def test_an_answer_before_the_end_of_the_request(lab: GatewayLab) -> None:
    """The client reads it, and the connection ends, since the rest of its body may follow."""

    async def refuses(conn: Conn) -> None:
        await conn.reader.readuntil(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await conn.ended()

    await lab.control(refuses)
    client = await lab.client()
    client.send(b"PUT /x HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n")
    for _ in range(15):
        client.send(bytes(2**16))
        await asyncio.sleep(0.001)
    answer = await client.answer()
    assert (answer.status, answer.body, answer.get(b"connection")) == (403, b"no", b"close")
    assert await client.rest() == b""
    assert not client.reset_seen


async def test_a_body_that_cannot_be_read_ends_both_connections(lab: GatewayLab) -> None:
    async def begins(conn: Conn) -> None:
        await conn.reader.readuntil(b"\r\n\r\n")
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        await conn.ended()

    control = await lab.control(begins)
    client = await lab.client()
    client.send(b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await client.reader.readuntil(b"begun")
    client.send(b"nonsense\r\n")
    await lab.until(lambda: control.ended_at, 0.5)
    assert await client.rest() == b""


async def test_heads_that_repeat_and_bodies_that_do_not(lab: GatewayLab) -> None:
    control = await lab.control(answers)
    client = await lab.client()
    for size in (5, 7, 0, 3, 100_000, 3):
        body = bytes([size % 251]) * size
        found = await client.ask(b"PUT /api/v1/x HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
        assert found.body == b"ok"
        assert found.all(b"content-length") == [b"2"]
        assert control.requests[-1].body == body
        assert control.requests[-1].all(b"content-length") == [b"%d" % size]
    assert len(control.requests) == 6


@pytest.fixture
async def swept(lab: GatewayLab, monkeypatch: pytest.MonkeyPatch) -> GatewayLab:
    monkeypatch.setattr("garrison.gateway.worker.sweeping._SWEEP_SECONDS", 0.01)
    lab.sweep()
    return lab


async def test_a_control_process_that_says_nothing_is_not_waited_for_without_end(swept: GatewayLab) -> None:
    swept.plane.silence_seconds = 0.2

    async def silent(conn: Conn) -> None:
        await conn.request()
        await conn.ended()

    await swept.control(silent)
    client = await swept.client()
    answer = await client.ask(b"GET /api/v1/x HTTP/1.1\r\n\r\n")
    assert (answer.status, b"does not answer" in answer.body) == (504, True), answer.body
    await swept.until(lambda: not swept.plane._timed)


async def test_an_answer_that_stops_is_cut_off_and_one_that_goes_on_is_not(swept: GatewayLab) -> None:
    swept.plane.silence_seconds = 0.8

    async def stops(conn: Conn) -> None:
        while b"stops" not in (await conn.request()).start:
            conn.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
            for piece in (b"a", b"b", b"c"):
                await asyncio.sleep(0.5)
                conn.send(piece)
        conn.send(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nabc")
        await conn.ended()

    await swept.control(stops)
    client = await swept.client()
    client.send(b"GET /api/v1/goes HTTP/1.1\r\n\r\n")
    assert (await client.answer()).body == b"abc"
    client.send(b"GET /api/v1/stops HTTP/1.1\r\n\r\n")
    assert (await asyncio.wait_for(client.reader.read(), 10)).endswith(b"\r\n\r\nabc")


async def test_silence_after_an_upgrade_is_no_failure(swept: GatewayLab) -> None:
    swept.plane.silence_seconds = 0.2

    async def upgrades(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        await asyncio.sleep(1.5)
        conn.send(b"late")
        await conn.ended()

    await swept.control(upgrades)
    client = await swept.client()
    client.send(b"GET /api/v1/x HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")
    assert await asyncio.wait_for(client.reader.readexactly(4), 10) == b"late"
    client.close()
