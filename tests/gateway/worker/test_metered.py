"""What an instance's own paths are asked through the management API counts against the limits of the key."""

import json
from typing import Any

import pytest
from gateway_lab import OK, Client, Conn, GatewayLab
from lab_keys import key, told_keys

from garrison.access.limiter import LimitKind
from garrison.access.permissions import Limits

PATH = b"/api/v1/instances/a/proxy/v1/chat/completions"


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


def request(path: bytes = PATH, body: bytes = b"{}", token: bytes = b"k") -> bytes:
    lines = [b"POST " + path + b" HTTP/1.1", b"Authorization: Bearer " + token, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\nAccept-Encoding: gzip\r\n\r\n" + body


def limited(lab: GatewayLab, **limits: int) -> None:
    lab.plane.callers.set_keys(told_keys(key("k", manages=True, limits=Limits(**limits)), key("free", manages=True)))


def left(lab: GatewayLab, kind: LimitKind, **limits: int) -> int:
    return lab.plane.callers.limiter.standings(1, Limits(**limits), lab.plane.now())[kind].remaining


async def test_requests_of_a_key(lab: GatewayLab) -> None:
    limited(lab, requests_per_minute=2)
    control = await lab.control(answers)
    client = await lab.client()
    assert [(await client.ask(request())).status for _ in range(3)] == [200, 200, 429]
    assert len(control.requests) == 2, "the third was not passed on"
    assert (await client.ask(request(b"/api/v1/instances/a"))).status == 200, "other calls do not count"
    assert [(await client.ask(request(token=b"free"))).status for _ in range(4)] == [200] * 4
    assert control.requests[0].all(b"accept-encoding") == [b"gzip"], "nobody has to read the answer"


async def test_they_are_calls_of_the_management_api_and_not_reported_as_requests_to_models(lab: GatewayLab) -> None:
    lab.set(report_requests=True)
    limited(lab, requests_per_minute=2)
    await lab.control(answers)
    assert (await (await lab.client()).ask(request())).status == 200
    await lab.quiet()
    assert (lab.plane.finished.take(), lab.plane.stats.take()) == (([], 0), [])


async def test_requests_at_once(lab: GatewayLab) -> None:
    limited(lab, concurrent=1)
    waiting: list[Conn] = []

    async def held(conn: Conn) -> None:
        while True:
            await conn.request()
            waiting.append(conn)

    await lab.control(held)
    first, second = await lab.client(), await lab.client()
    first.send(request())
    await lab.until(lambda: waiting)
    assert (await second.ask(request())).status == 429
    waiting.pop().send(OK)
    assert (await first.answer()).status == 200
    second.send(request())
    await lab.until(lambda: waiting)
    second.close()
    await lab.quiet()
    assert left(lab, LimitKind.CONCURRENT, concurrent=1) == 1, "a client that leaves gives its place back"


@pytest.mark.parametrize("stream", [False, True])
async def test_tokens_of_a_key(lab: GatewayLab, stream: bool) -> None:
    limited(lab, tokens_per_minute=1000)
    usage: dict[str, Any] = {"usage": {"prompt_tokens": 100, "completion_tokens": 200}}
    body = json.dumps(usage).encode()
    kind = b"text/event-stream" if stream else b"application/json"
    data = b"data: " + body + b"\n\n" if stream else body

    async def counts(conn: Conn) -> None:
        await conn.request()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (kind, len(data))
        conn.send(head + data)
        await conn.ended()

    control = await lab.control(counts)
    client = await lab.client()
    answer = await client.ask(request(body=b'{"messages": [{"content": "hi"}]}'))
    assert answer.body == data
    await lab.quiet()
    assert left(lab, LimitKind.TOKENS, tokens_per_minute=1000) == pytest.approx(700, abs=20)
    assert control.requests[0].all(b"accept-encoding") == [b"identity"]
    lab.targets[-1].drop_idle()


async def test_an_upgrade_counts_as_one_request_until_it_ends(lab: GatewayLab) -> None:
    limited(lab, concurrent=1)

    async def echoes(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        while data := await conn.reader.read(100):
            conn.send(data)

    await lab.control(echoes)
    client: Client = await lab.client()
    lines = b"GET %b HTTP/1.1\r\nAuthorization: Bearer k\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" % PATH
    assert (await client.ask(lines)).status == 101
    client.send(b"ping")
    assert await client.reader.readexactly(4) == b"ping"
    other = await lab.client()
    assert (await other.ask(request())).status == 429
    client.close()
    await lab.quiet()
    assert left(lab, LimitKind.CONCURRENT, concurrent=1) == 1
