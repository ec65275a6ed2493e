"""Clients that read or write slowly: memory is bounded, and what takes too long ends."""

import asyncio
import hashlib
import socket

import pytest
from gateway_lab import OK, Conn, GatewayLab, chat

_SIZE = 64 * 2**20
_PIECE = 2**18
_MOST = 512 * 1024
_SWEEPING = "garrison.gateway.worker.sweeping"


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


def buffered(lab: GatewayLab) -> int:
    """Bytes that the worker holds for its clients and their targets."""
    found = 0
    for client in lab.plane.inbound:
        found += client._transport.get_write_buffer_size() + sum(map(len, getattr(client.work, "_out", ())))
        upstream = getattr(client.work, "_upstream", None)
        if upstream is not None:
            found += upstream._transport.get_write_buffer_size()
    return found


@pytest.mark.parametrize("framing", [b"Content-Length: %d" % _SIZE, b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/api/v1/x"], ids=["model", "control"])
async def test_a_client_that_stops_reading(lab: GatewayLab, path: bytes, framing: bytes) -> None:
    """Its target is not read from meanwhile; then every byte arrives."""
    chunked = b"chunked" in framing
    piece = bytes(range(256)) * (_PIECE // 256)
    sent = 0

    async def streams(conn: Conn) -> None:
        nonlocal sent
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        while sent < _SIZE:
            conn.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            await conn.writer.drain()
            sent += len(piece)
        if chunked:
            conn.send(b"0\r\n\r\n")
        await conn.ended()

    await lab.serve(streams)
    await lab.control(streams)
    loop = asyncio.get_running_loop()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", lab.port))
        await loop.sock_sendall(client, chat(path=path))
        most, before = 0, -1
        while sent != before or not sent:
            before = sent
            for _ in range(20):
                await asyncio.sleep(0.005)
                most = max(most, buffered(lab))
        assert sent < _SIZE / 2, "the target was not stopped"
        found, digest = b"", hashlib.sha256()
        while b"\r\n\r\n" not in found:
            found += await loop.sock_recv(client, 65536)
        found = found.partition(b"\r\n\r\n")[2]
        seen, end = 0, b""
        while True:
            digest.update(found)
            seen += len(found)
            end = (end + found)[-5:]
            most = max(most, buffered(lab))
            if (chunked and end == b"0\r\n\r\n") or (not chunked and seen == _SIZE):
                break
            found = await asyncio.wait_for(loop.sock_recv(client, 2**20), 10)
            assert found
        assert most < _MOST
        assert seen >= _SIZE
        if not chunked:
            assert digest.digest() == hashlib.sha256(piece * (_SIZE // _PIECE)).digest()
    await lab.quiet()


async def test_pipelined_answers_wait_for_a_client_that_does_not_read(lab: GatewayLab) -> None:
    body = bytes(200_000)  # one piece, and more than may wait for the client
    many = 100

    async def large(conn: Conn) -> None:
        while True:
            await conn.request()
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    upstream = await lab.serve(large)
    client = await lab.client()
    client.writer.transport.pause_reading()
    client.send(chat() * many)
    most = 0
    for _ in range(60):
        await asyncio.sleep(0.005)
        most = max(most, buffered(lab))
    assert most < _MOST
    assert len(upstream.requests) < many
    client.writer.transport.resume_reading()
    for _ in range(many):
        assert (await client.answer()).body == body


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of time that a test can wait for."""
    monkeypatch.setattr(f"{_SWEEPING}._SWEEP_SECONDS", 0.01)
    monkeypatch.setattr(f"{_SWEEPING}._HEAD_SECONDS", 0.15)
    monkeypatch.setattr(f"{_SWEEPING}._BODY_SECONDS", 0.15)
    monkeypatch.setattr(f"{_SWEEPING}._IDLE_SECONDS", 0.3)
    monkeypatch.setattr("garrison.gateway.worker.connections.inbound._LINGER_SECONDS", 0.1)
    monkeypatch.setattr("garrison.gateway.worker.connections.inbound._UNREAD_SECONDS", 0.1)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("before", [b"", chat()], ids=["first", "second"])
async def test_a_head_that_trickles_is_closed(lab: GatewayLab, before: bytes) -> None:
    """Each byte comes in time; the head as a whole does not."""
    await lab.serve(answers)
    lab.sweep()
    client = await lab.client()
    if before:
        assert (await client.ask(before)).body == b"ok"
    loop = asyncio.get_running_loop()
    began = loop.time()
    client.send(b"GET /v1/models HTTP/1.1\r\nX: ")
    while lab.plane.inbound:
        client.send(b"y")
        await asyncio.sleep(0.01)
        assert loop.time() - began < 2
    assert loop.time() - began > 0.1


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/api/v1/x", b"/v1/nowhere"])
async def test_a_body_that_stops_is_closed(lab: GatewayLab, path: bytes) -> None:
    async def reads(conn: Conn) -> None:
        await conn.request()

    await lab.serve(answers)
    await lab.control(reads)
    lab.sweep()
    client = await lab.client()
    client.send(chat(path=path)[:-1])
    assert await client.rest() == b""


@pytest.mark.usefixtures("short")
async def test_a_body_that_goes_on_slowly_is_not_closed(lab: GatewayLab) -> None:
    await lab.serve(answers)
    lab.sweep()
    client = await lab.client()
    head, end, body = chat().partition(b"\r\n\r\n")
    client.send(head + end)
    for at in range(0, len(body), 4):
        client.send(body[at : at + 4])
        await asyncio.sleep(0.05)
    assert (await client.answer()).body == b"ok"


@pytest.mark.usefixtures("short")
async def test_an_idle_connection_is_closed_so_long_after_its_last_answer(lab: GatewayLab) -> None:
    async def late(conn: Conn) -> None:
        await conn.request()
        await asyncio.sleep(0.4)  # longer than an idle connection is kept
        conn.send(OK)
        await conn.ended()

    await lab.serve(late)
    lab.sweep()
    client = await lab.client()
    loop = asyncio.get_running_loop()
    assert (await client.ask(chat())).body == b"ok"
    answered = loop.time()
    assert await client.rest() == b""
    assert 0.2 < loop.time() - answered < 2


@pytest.mark.usefixtures("short")
async def test_a_client_that_sends_nothing_at_all_is_closed(lab: GatewayLab) -> None:
    lab.sweep()
    client = await lab.client()
    assert await client.rest() == b""


@pytest.mark.usefixtures("short")
async def test_a_last_answer_that_nobody_reads_is_given_up(lab: GatewayLab) -> None:
    async def as_much_as_there_is_room_for(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not buffered(lab):
            conn.send(b"8000\r\n%b\r\n" % bytes(0x8000))
            await asyncio.sleep(0.001)
        conn.send(b"0\r\n\r\n")
        await conn.ended()

    await lab.serve(as_much_as_there_is_room_for)
    lab.sweep()
    client = await lab.client()
    client.writer.transport.pause_reading()
    client.send(chat(b'{"model": "m"}', b"Connection: close"))
    await lab.until(lambda: lab.plane.inbound and all(one.ends for one in lab.plane.inbound), 10)
    assert buffered(lab), "it is written already"
    await lab.until(lambda: not lab.plane.inbound)
