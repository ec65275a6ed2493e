"""Requests on the wire: what is carried, what is refused, and that what follows is never read as something else."""

import asyncio
import json
from dataclasses import dataclass

import pytest
from gateway_lab import JSON, Conn, GatewayLab, Message, chat

POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
_MANY = 2_000


async def echoes(conn: Conn) -> None:
    """Answer with the body of the request."""
    while True:
        asked = await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(asked.body) + asked.body)


def chunks(body: bytes, *sizes: int) -> bytes:
    found, at = b"", 0
    for size in sizes:
        found += b"%X;ext=1\r\n%b\r\n" % (len(body[at : at + size]), body[at : at + size])
        at += size
    return found + b"%x\r\n%b\r\n0\r\nX-Trailer: 1\r\n\r\n" % (len(body[at:]), body[at:])


@pytest.mark.parametrize("step", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("request_bytes", [chat(), CHUNKED + chunks(JSON, 1, 2, 5)], ids=["content-length", "chunked"])
async def test_a_request_in_odd_pieces(lab: GatewayLab, request_bytes: bytes, step: int) -> None:
    upstream = await lab.serve(echoes)
    client = await lab.client()
    for at in range(0, len(request_bytes), step):
        client.send(request_bytes[at : at + step])
        await asyncio.sleep(0)
    assert (await client.answer()).body == JSON
    assert (await client.ask(chat())).body == JSON, "the connection goes on"
    assert upstream.requests[0].get(b"transfer-encoding") is None
    assert upstream.requests[0].get(b"content-length") == b"%d" % len(JSON)
    assert upstream.requests[0].get(b"x-trailer") is None


REFUSED: dict[str, tuple[bytes, int]] = {
    "a chunk size that is no number": (CHUNKED + b"zz\r\n", 400),
    "a negative chunk size": (CHUNKED + b"-1\r\nx\r\n", 400),
    "a huge chunk size": (CHUNKED + b"fffffffffffffffff\r\nx\r\n", 400),
    "a chunk without its line end": (CHUNKED + b"1\r\nab\r\n0\r\n\r\n", 400),
    "a bare line feed in a chunk size": (CHUNKED + b"1\na\r\n0\r\n\r\n", 400),
    "length and chunks": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "chunks and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "the same length twice": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a negative length": (POST + b"Content-Length: -5\r\n\r\nhello", 400),
    "a signed length": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "a length that overflows": (POST + b"Content-Length: 18446744073709551617\r\n\r\nx", 400),
    "a huge length": (POST + b"Content-Length: 9999999999999\r\n\r\nx", 413),
    "another coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked twice": (POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
    "chunked in HTTP/1.0": (CHUNKED.replace(b"1.1", b"1.0") + b"0\r\n\r\n", 400),
    "a folded header": (POST + b"X-A: b\r\n c\r\nContent-Length: 0\r\n\r\n", 400),
    "a bare carriage return in a value": (POST + b"X-A: b\rX-B: c\r\nContent-Length: 0\r\n\r\n", 400),
    "a zero byte in a value": (POST + b"X-A: b\0c\r\nContent-Length: 0\r\n\r\n", 400),
    "a blank before the colon": (POST + b"Content-Length : 5\r\n\r\nhello", 400),
    "a header without a name": (POST + b": x\r\n\r\n", 400),
    "a blank in the target": (b"POST /v1/x y HTTP/1.1\r\n\r\n", 400),
    "no version": (b"POST /v1/chat/completions\r\n\r\n", 505),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/1.2": (b"GET /v1/models HTTP/1.2\r\n\r\n", 400),
    "nonsense": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "a large head": (POST + b"X-A: " + b"b" * 70_000 + b"\r\n\r\n", 431),
    "many headers": (POST + b"X-A: b\r\n" * 10_000 + b"\r\n", 431),
    "a large target": (b"GET /v1/models?" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 431),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused(lab: GatewayLab, name: str) -> None:
    upstream = await lab.serve(echoes)
    raw, status = REFUSED[name]
    client = await lab.client()
    client.send(raw + chat())
    answer = await client.answer()
    assert answer.status == status
    assert answer.get(b"connection") == b"close"
    assert json.loads(answer.body)["error"]["message"]
    assert await client.rest() == b""
    assert not client.reset_seen
    assert upstream.requests == [], "something of it was taken for a request"


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_behind_another_request(lab: GatewayLab, name: str) -> None:
    """It is answered after the one before it, which comes through unharmed."""
    upstream = await lab.serve(echoes)
    raw, status = REFUSED[name]
    client = await lab.client()
    client.send(chat() + raw)
    assert (await client.answer()).body == JSON
    assert (await client.answer()).status == status
    assert await client.rest() == b""
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("raw", [chat(bytes(2**20)), CHUNKED + chunks(bytes(2**20), 2**19)], ids=["sized", "chunked"])
@pytest.mark.parametrize("path", [b"/v1/chat/completions", b"/api/v1/x"], ids=["model", "control"])
async def test_a_body_over_the_limit_is_refused_readably(lab: GatewayLab, raw: bytes, path: bytes) -> None:
    """The client sends all of it before it reads, as many do, and no reset takes the answer from it."""

    async def reads(conn: Conn) -> None:
        await conn.request()

    lab.set(max_body_bytes=2**16)
    await lab.serve(reads)
    await lab.control(reads)
    client = await lab.client()
    raw = raw.replace(b"/v1/chat/completions", path)
    for at in range(0, len(raw), 2**16):
        client.send(raw[at : at + 2**16])
        await client.writer.drain()
        await asyncio.sleep(0.001)
    answer = await client.answer()
    assert answer.status == 413
    assert await client.rest() == b""
    assert not client.reset_seen


async def test_a_client_that_goes_on_sending_after_its_refusal_is_cut_off(
    lab: GatewayLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.gateway.worker.sweeping._SWEEP_SECONDS", 0.01)
    monkeypatch.setattr("garrison.gateway.worker.connections.inbound._LINGER_SECONDS", 0.1)
    lab.sweep()
    client = await lab.client()
    client.send(REFUSED["a huge length"][0])
    assert (await client.answer()).status == 413
    while lab.plane.inbound:
        client.send(b"x" * 1000)
        await asyncio.sleep(0.01)


async def test_100_continue_is_granted(lab: GatewayLab) -> None:
    upstream = await lab.serve(echoes)
    client = await lab.client()
    head, _, body = chat(JSON, b"Expect: 100-continue").partition(b"\r\n\r\n")
    client.send(head + b"\r\n\r\n")
    assert (await client.answer()).status == 100
    client.send(body)
    assert (await client.answer()).body == JSON
    assert upstream.requests[0].get(b"expect") is None


async def test_100_continue_is_granted_for_the_control_process(lab: GatewayLab) -> None:
    await lab.control(echoes)
    client = await lab.client()
    client.send(b"PUT /api/v1/x HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert (await client.answer()).status == 100
    client.send(b"body")
    assert (await client.answer()).body == b"body"


async def test_100_continue_is_not_sent_once_the_body_is_there(lab: GatewayLab) -> None:
    await lab.control(echoes)
    client = await lab.client()
    client.send(b"PUT /api/v1/x HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody")
    answer = await client.answer()
    if answer.status == 100:  # harmless: RFC 9110 lets a server send it
        answer = await client.answer()
    assert answer.body == b"body"


async def test_100_continue_is_refused_for_an_unknown_path(lab: GatewayLab) -> None:
    client = await lab.client()
    client.send(b"POST /v1/nowhere HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
    answer = await client.answer()
    assert answer.status == 404
    assert answer.get(b"connection") == b"close", "whether the body follows is not known"


async def test_nothing_behind_the_last_answer_is_carried_out(lab: GatewayLab) -> None:
    upstream = await lab.serve(echoes)
    client = await lab.client()
    client.send(b"POST /v1/nowhere HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello" + chat())
    assert (await client.answer()).status == 404
    assert await client.rest() == b""
    assert upstream.requests == []


async def test_an_unknown_path_is_refused_and_the_connection_goes_on(lab: GatewayLab) -> None:
    await lab.serve(echoes)
    client = await lab.client()
    for raw in (
        b"GET /v1/nowhere HTTP/1.1\r\n\r\n",
        b"POST /v1/nowhere HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /v1/nowhere HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ):
        answer = await client.ask(raw)
        assert (answer.status, answer.get(b"connection")) == (404, None)
    assert (await client.ask(chat())).body == JSON


async def test_a_long_body_for_an_unknown_path_is_cut_off_readably(lab: GatewayLab) -> None:
    client = await lab.client()
    client.send(b"POST /v1/nowhere HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n" + bytes(900_000))
    answer = await client.answer()
    assert (answer.status, answer.get(b"connection")) == (404, b"close")
    assert await client.rest() == b""
    assert not client.reset_seen


@dataclass(frozen=True)
class Version:
    line: bytes
    connection: bytes | None
    kept: bool


VERSIONS = {
    "1.1": Version(b"HTTP/1.1", None, kept=True),
    "1.1 close": Version(b"HTTP/1.1", b"close", kept=False),
    "1.1 close and more": Version(b"HTTP/1.1", b"x-a, Close", kept=False),
    "1.0": Version(b"HTTP/1.0", None, kept=False),
    "1.0 keep-alive": Version(b"HTTP/1.0", b"keep-alive", kept=True),
    "1.0 Keep-Alive": Version(b"HTTP/1.0", b"Keep-Alive", kept=True),
}


@pytest.mark.parametrize("version", VERSIONS.values(), ids=VERSIONS.keys())
@pytest.mark.parametrize("own", [False, True], ids=["target", "gateway"])
async def test_keep_alive(lab: GatewayLab, version: Version, own: bool) -> None:
    """A request behind `Connection: close` is not carried out."""
    upstream = await lab.serve(echoes)
    client = await lab.client()
    headers = [] if version.connection is None else [b"Connection: " + version.connection]
    raw = chat(JSON, *headers, path=b"/v1/nowhere" if own else b"/v1/chat/completions")
    client.send(raw.replace(b"HTTP/1.1", version.line) * 2)
    first = await client.answer()
    assert first.status == (404 if own else 200)
    if version.kept:
        said = b"keep-alive" if version.line == b"HTTP/1.0" else None
        assert first.get(b"connection") == said
        assert (await client.answer()).status == first.status
    else:
        assert first.get(b"connection") == b"close"
        assert await client.rest() == b""
        assert len(upstream.requests) == (not own)


async def test_twenty_pipelined_requests_are_answered_in_order(lab: GatewayLab) -> None:
    await lab.serve(echoes)
    client = await lab.client()
    bodies = [b'{"model": "m", "n": %d}' % number for number in range(20)]
    client.send(b"".join(chat(one) for one in bodies))
    assert [(await client.answer()).body for _ in bodies] == bodies


async def test_pipelined_requests_of_every_kind_are_answered_in_order(lab: GatewayLab) -> None:
    await lab.serve(echoes)
    await lab.control(echoes)
    client = await lab.client()
    kinds = [
        (chat(), 200), (b"GET /v1/models HTTP/1.1\r\n\r\n", 200), (b"GET /v1/nowhere HTTP/1.1\r\n\r\n", 404),
        (b"PUT /api/v1/x HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", 200), (chat(b"{}"), 400),
        (b"HEAD /v1/models HTTP/1.1\r\n\r\n", 200), (chat(b'{"model": "unknown"}'), 404),
        (b"GET /a/../b HTTP/1.1\r\n\r\n", 400),
    ]  # fmt: skip
    client.send(b"".join(raw for raw, _ in kinds) * 3)
    for raw, status in kinds * 3:
        assert (await client.answer(raw.split(b" ")[0])).status == status, raw


async def test_thousands_of_requests_in_one_piece(lab: GatewayLab) -> None:
    await lab.serve(echoes)
    client = await lab.client()
    client.send(chat() + b"GET /v1/nowhere HTTP/1.1\r\n\r\n" * _MANY)
    assert (await client.answer()).body == JSON
    for _ in range(_MANY):
        assert (await client.answer()).status == 404


async def test_a_client_that_reads_nothing_does_not_fill_the_memory(lab: GatewayLab) -> None:
    """Answers of the gateway's own cost it nothing, so it could be asked for them without end."""
    client = await lab.client()
    client.writer.transport.pause_reading()
    raw = b"GET /v1/nowhere HTTP/1.1\r\n\r\n" * 1000
    most = 0
    for _ in range(2000):
        if client.writer.transport.get_write_buffer_size() > 2**20:
            break
        client.send(raw)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        most = max([most, *(one._transport.get_write_buffer_size() for one in lab.plane.inbound)])
    else:
        pytest.fail("it is read from without end")
    assert most < 256 * 1024
    client.reset()


LINES: dict[str, tuple[bytes, int]] = {
    "absolute form": (b"POST http://h/v1/chat/completions", 400),
    "CONNECT": (b"CONNECT h:443", 400),
    "CONNECT to a path": (b"CONNECT /v1/chat/completions", 404),
    "TRACE": (b"TRACE /v1/chat/completions", 404),
    "OPTIONS": (b"OPTIONS /v1/chat/completions", 404),
    "OPTIONS *": (b"OPTIONS *", 400),
    "GET": (b"GET /v1/chat/completions", 404),
    "a fragment": (b"POST /v1/chat/completions#x", 400),
    "dots": (b"POST /v1/../v1/chat/completions", 400),
}


@pytest.mark.parametrize("name", LINES)
async def test_request_lines_that_reach_no_target(lab: GatewayLab, name: str) -> None:
    upstream = await lab.serve(echoes)
    control = await lab.control(echoes)
    line, status = LINES[name]
    client = await lab.client()
    answer = await client.ask(line + b" HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
    assert answer.status == status
    assert (upstream.requests, control.requests) == ([], [])


async def test_another_protocol_on_a_model_path_is_refused(lab: GatewayLab) -> None:
    upstream = await lab.serve(echoes)
    client = await lab.client()
    answer = await client.ask(chat(JSON, b"Connection: Upgrade", b"Upgrade: websocket"))
    assert answer.status == 400
    assert upstream.requests == []


async def test_http2_is_offered_by_java_and_not_taken(lab: GatewayLab) -> None:
    upstream = await lab.serve(echoes)
    client = await lab.client()
    offer = [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAA"]
    answer = await client.ask(chat(JSON, *offer))
    assert (answer.status, answer.body) == (200, JSON)
    asked = upstream.requests[0]
    assert asked.get(b"upgrade") is asked.get(b"http2-settings") is asked.get(b"connection") is None


async def test_what_reaches_a_target(lab: GatewayLab) -> None:
    upstream = await lab.serve(echoes)
    client = await lab.client()
    dropped = [
        b"Authorization: Bearer " + lab.KEY.encode(), b"X-API-Key: " + lab.KEY.encode(), b"Cookie: session=1",
        b"Connection: keep-alive, X-Mine", b"X-Mine: 1", b"Keep-Alive: timeout=5", b"Proxy-Connection: x",
        b"Proxy-Authorization: x", b"TE: trailers", b"Trailer: X-Sum", b"Forwarded: for=1.2.3.4", b"Origin: http://x",
        b"X-Garrison-Hop: 1",
    ]  # fmt: skip
    kept = [
        b"Content-Type: application/json",
        b"X-Request-Id: abc",
        b"traceparent: 00-1-2-01",
        b"X-Two: 1",
        b"X-Two: 2",
    ]
    await client.ask(chat(JSON, *dropped, *kept))
    asked: Message = upstream.requests[0]
    address = upstream.url.removeprefix("http://").encode()
    assert asked.start == b"POST /v1/chat/completions HTTP/1.1"
    assert sorted(asked.headers) == sorted(
        [
            (b"host", address), (b"authorization", b"Bearer " + lab.ENGINE_KEY.encode()),
            (b"content-length", b"%d" % len(JSON)), (b"Content-Type", b"application/json"), (b"X-Request-Id", b"abc"),
            (b"traceparent", b"00-1-2-01"), (b"X-Two", b"1"), (b"X-Two", b"2"),
        ]
    )  # fmt: skip
    assert lab.KEY.encode() not in b"".join(value for _, value in asked.headers)


async def test_a_target_without_a_key_gets_none(lab: GatewayLab) -> None:
    lab.ENGINE_KEY = None
    upstream = await lab.serve(echoes)
    client = await lab.client()
    await client.ask(chat(JSON, b"Authorization: Bearer " + lab.KEY.encode(), b"Connection: authorization"))
    assert upstream.requests[0].get(b"authorization") is None


async def test_a_key_that_has_just_been_made_and_a_long_body(lab: GatewayLab) -> None:
    """Much of a stranger's body is not taken, and whether it is a stranger's is asked before that is decided."""
    lab.set(open_inference=False)
    upstream = await lab.serve(echoes)
    keys = lab.plane.callers
    book, keys._book = keys._book, None
    lab.link.news = lambda: setattr(keys, "_book", book)
    body = JSON[:-1] + b', "x": "' + b"y" * 300_000 + b'"}'
    client = await lab.client()
    answer = await client.ask(chat(body, b"Authorization: Bearer " + lab.KEY.encode()))
    assert (answer.status, answer.body) == (200, body)
    assert len(upstream.requests) == 1


async def test_a_long_body_of_a_stranger_is_cut_off_readably(lab: GatewayLab) -> None:
    lab.set(open_inference=False)
    client = await lab.client()
    client.send(chat(bytes(1_000_000)))
    answer = await client.answer()
    assert (answer.status, answer.get(b"connection")) == (401, b"close")
    assert await client.rest() == b""
    assert not client.reset_seen
