"""Answers on the wire: as the target sent them, in a framing that the client understands."""

import asyncio
import gzip

import pytest
from gateway_lab import Client, Conn, GatewayLab, Message, chat

OK = b"HTTP/1.1 200 OK\r\n"


async def asked(lab: GatewayLab, *raw: bytes, version: bytes = b"HTTP/1.1") -> tuple[Client, Message]:
    async def answers(conn: Conn) -> None:
        await conn.request()
        for piece in raw:
            conn.send(piece)
            await asyncio.sleep(0.002)

    await lab.serve(answers)
    client = await lab.client()
    return client, await client.ask(chat(b'{"model": "m"}', b"Connection: keep-alive").replace(b"HTTP/1.1", version))


BODIES: dict[str, tuple[bytes, ...]] = {
    "sized": (OK + b"Content-Length: 5\r\n\r\nhello",),
    "sized, in pieces": (OK + b"Content-", b"Length: 5\r\n\r", b"\nhel", b"lo"),
    "chunked": (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",),
    "chunked, in pieces": (
        OK + b"Transfer-Encoding: chunked\r\n\r\n3",
        b";a=b\r\nhe",
        b"l\r\n2\r\nlo\r\n",
        b"0\r\n\r\n",
    ),
    "until it closes": (OK + b"\r\nhel", b"lo"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello",),
}


@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
@pytest.mark.parametrize("pieces", BODIES.values(), ids=BODIES.keys())
async def test_bodies(lab: GatewayLab, pieces: tuple[bytes, ...], version: bytes) -> None:
    client, answer = await asked(lab, *pieces, version=version)
    assert (answer.status, answer.body) == (200, b"hello")
    sized = b"Content-Length" in b"".join(pieces)
    assert (answer.get(b"content-length") == b"5") == sized
    assert answer.get(b"transfer-encoding") == (None if sized or version == b"HTTP/1.0" else b"chunked")
    said = {(b"HTTP/1.1", True): None, (b"HTTP/1.1", False): None, (b"HTTP/1.0", True): b"keep-alive"}
    assert answer.get(b"connection") == said.get((version, sized), b"close")
    if said.get((version, sized), b"close") != b"close":
        assert (await client.ask(b"GET /v1/nowhere HTTP/1.1\r\n\r\n")).status == 404


async def test_trailers_are_carried(lab: GatewayLab) -> None:
    raw = OK + b"Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-B: \xe9\r\n\r\n"
    client, answer = await asked(lab, raw)
    assert (answer.body, answer.trailers) == (b"a", [(b"X-Sum", b"1"), (b"X-B", b"\xe9")])
    assert answer.get(b"trailer") == b"X-Sum"
    assert (await client.ask(b"GET /v1/nowhere HTTP/1.1\r\n\r\n")).status == 404


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("more", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_answers_without_a_body(lab: GatewayLab, status: int, more: bytes) -> None:
    client, answer = await asked(lab, b"HTTP/1.1 %d X\r\nX-A: b\r\n%b\r\n" % (status, more))
    assert (answer.status, answer.get(b"x-a"), answer.get(b"transfer-encoding")) == (status, b"b", None)
    assert (await client.ask(b"GET /v1/nowhere HTTP/1.1\r\n\r\n")).status == 404, "the next answer was read as a body"


@pytest.mark.parametrize("more", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_head(lab: GatewayLab, more: bytes) -> None:
    async def answers(conn: Conn) -> None:
        await conn.request()
        conn.send(OK + more + b"\r\n")
        await conn.ended()

    await lab.control(answers)
    client = await lab.client()
    answer = await client.ask(b"HEAD /ui/ HTTP/1.1\r\n\r\n")
    assert answer.status == 200
    assert answer.get(b"content-length") == (b"5" if b"Length" in more else None)
    assert (await client.ask(b"HEAD /v1/nowhere HTTP/1.1\r\n\r\n")).status == 404
    listed = await client.ask(b"HEAD /v1/models HTTP/1.1\r\n\r\n")
    assert int(listed.get(b"content-length") or b"0") > 0
    assert (await client.ask(b"GET /v1/models HTTP/1.1\r\n\r\n")).status == 200


EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


async def test_early_answers_are_passed_on(lab: GatewayLab) -> None:
    client, first = await asked(lab, b"HTTP/1.1 100 Continue\r\n\r\n" + EARLY, OK + b"Content-Length: 1\r\n\r\na")
    assert (first.status, first.get(b"link")) == (103, b"</a>")
    assert (await client.answer()).body == b"a"


async def test_early_answers_do_not_wait_for_the_final_one(lab: GatewayLab) -> None:
    seen = asyncio.Event()

    async def answers(conn: Conn) -> None:
        await conn.request()
        conn.send(EARLY)
        await seen.wait()
        conn.send(OK + b"Content-Length: 1\r\n\r\na")

    await lab.serve(answers)
    client = await lab.client()
    assert (await client.ask(chat())).status == 103
    seen.set()
    assert (await client.answer()).body == b"a"


async def test_early_answers_are_not_for_http_1_0(lab: GatewayLab) -> None:
    _, answer = await asked(lab, EARLY, OK + b"Content-Length: 1\r\n\r\na", version=b"HTTP/1.0")
    assert (answer.status, answer.body) == (200, b"a")


async def test_a_coded_body_is_not_touched(lab: GatewayLab) -> None:
    body = gzip.compress(b"hello" * 100)
    raw = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    _, answer = await asked(lab, raw)
    assert (answer.body, answer.get(b"content-encoding")) == (body, b"gzip")


async def test_what_belongs_to_the_other_connection_is_dropped(lab: GatewayLab) -> None:
    raw = (
        OK + b"Connection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: x\r\n"
        b"Upgrade: h2c\r\nX-Two: 1\r\nX-Two: 2\r\nSet-Cookie: a=b\r\nServer: e\r\nContent-Length: 1\r\n\r\na"
    )
    client, answer = await asked(lab, raw)
    assert [one for one in answer.headers if one[0] not in (b"x-request-id", b"server-timing")] == [
        (b"X-Two", b"1"), (b"X-Two", b"2"), (b"Set-Cookie", b"a=b"), (b"Server", b"e"), (b"Content-Length", b"1"),
    ]  # fmt: skip
    assert (await client.ask(b"GET /v1/nowhere HTTP/1.1\r\n\r\n")).status == 404, "only the target's connection ends"


async def test_a_target_cannot_have_the_length_dropped(lab: GatewayLab) -> None:
    """Without it the client would take the next answer for the rest of this one."""
    client, answer = await asked(lab, OK + b"Connection: Content-Length\r\nContent-Length: 1\r\n\r\na")
    assert answer.body == b"a"
    assert (await client.ask(b"GET /v1/nowhere HTTP/1.1\r\n\r\n")).status == 404


async def test_an_event_stream_arrives_as_it_is_sent(lab: GatewayLab) -> None:
    async def streams(conn: Conn) -> None:
        await conn.request()
        conn.send(OK + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            event = b"data: %d\n\n" % number
            conn.send(b"%x\r\n%b\r\n" % (len(event), event))
            await read.wait()
            read.clear()
        conn.send(b"0\r\n\r\n")
        await conn.ended()

    read = asyncio.Event()
    await lab.serve(streams)
    client = await lab.client()
    client.send(chat())
    for number in range(3):
        await asyncio.wait_for(client.reader.readuntil(b"data: %d\n\n\r\n" % number), 5)
        read.set()
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"
