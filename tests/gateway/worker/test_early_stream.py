"""Comments to a client that waits for a stream while its model loads, and what then becomes of its answer."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from gateway_lab import Client, Conn, GatewayLab, chat

from garrison.base.errors import NotReadyError
from garrison.gateway.link.messages import TargetValue
from garrison.gateway.link.route_settings import FilterValue

STREAM = b'{"model": "m", "stream": true}'
EVENTS = b'data: {"a": 1}\n\ndata: [DONE]\n\n'


def answer(body: bytes, kind: bytes, status: int = 200, *, sized: bool = False) -> bytes:
    head = b"HTTP/1.1 %d X\r\nContent-Type: %b\r\n" % (status, kind)
    if sized:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    return (
        head
        + b"Transfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces)
        + b"0\r\n\r\n"
    )


def answers(data: bytes) -> Callable[[Conn], Awaitable[None]]:
    async def script(conn: Conn) -> None:
        while True:
            await conn.request()
            conn.send(data)

    return script


class Cold:
    """A lab with a cold target, and comments as often as can be."""

    def __init__(self, lab: GatewayLab) -> None:
        self.lab = lab
        self.upstream: Any = None

    async def serve(self, script: Callable[[Conn], Awaitable[None]], **route: Any) -> None:
        self.upstream = await self.lab.upstream(script)
        self.lab.tell(None, route=route)

    async def ask(self, body: bytes = STREAM, *headers: bytes, path: bytes = b"/v1/chat/completions") -> Client:
        client = await self.lab.client()
        self.lab.target().loading = {"phase": "loading\nweights", "remaining": 12.0}
        client.send(chat(body, *headers, path=path))
        await self.lab.until(lambda: self.lab.link.waiting)
        return client

    async def begun(self, *headers: bytes, path: bytes = b"/v1/chat/completions", body: bytes = STREAM) -> Client:
        """A client that has read the head of its answer, and a comment."""
        client = await self.ask(body, *headers, path=path)
        self.head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"loading" in await client.reader.readuntil(b"\n\n\r\n")
        return client

    def wake(self) -> None:
        target = self.lab.target()
        target.set(TargetValue(id=target.id, url=self.upstream.url))
        self.exchange().activated()

    def refuse(self) -> None:
        self.exchange().refused(NotReadyError("no memory is free", details={"retry_after": 7}))

    def exchange(self) -> Any:
        return self.lab.link.waiting.popitem()[1][1]


@pytest.fixture
async def cold(lab: GatewayLab) -> Cold:
    lab.set(loading_comments=0.01)
    return Cold(lab)


async def rest(client: Client) -> str:
    """What is left of the body, without comments."""
    body = b""
    while size := int(await client.reader.readuntil(b"\r\n"), 16):
        body += await client.reader.readexactly(size)
        assert await client.reader.readexactly(2) == b"\r\n"
    assert await client.reader.readexactly(2) == b"\r\n"
    return "".join(one + "\n\n" for one in body.decode().split("\n\n") if one and not one.startswith(":"))


async def test_a_client_is_told_where_its_model_is_and_then_has_its_stream(cold: Cold) -> None:
    await cold.serve(answers(answer(EVENTS, b"text/event-stream; charset=utf-8")))
    client = await cold.ask()
    head = (await client.reader.readuntil(b"\r\n\r\n")).decode()
    assert head.startswith("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n")
    assert "x-garrison-queue: position=1, loading=0." in head
    assert "x-request-id: " in head
    seen = (await client.reader.readuntil(b"\n\n\r\n")).decode()
    assert seen.split("\r\n")[1].startswith(": loading"), seen
    assert "\n" not in seen.split("\r\n")[1].rstrip("\n"), "an engine's log has a say in the phase"
    assert "about 12 s left" in seen
    cold.wake()
    assert await rest(client) == EVENTS.decode()
    client.send(chat(STREAM))
    assert (await client.answer()).body == EVENTS, "the connection goes on"
    assert [one.all(b"accept-encoding") for one in cold.upstream.requests] == [[b"identity"], []]


async def test_the_first_answer_must_not_be_compressed(cold: Cold) -> None:
    await cold.serve(answers(answer(EVENTS, b"text/event-stream")))
    client = await cold.begun(b"Accept-Encoding: gzip")
    cold.wake()
    assert await rest(client) == EVENTS.decode()
    assert cold.upstream.requests[0].all(b"accept-encoding") == [b"identity"]


@pytest.mark.parametrize("sized", [True, False])
async def test_an_error_of_the_engine_is_an_event(cold: Cold, sized: bool) -> None:
    error = {"error": {"message": "too\nlong", "type": "BadRequestError", "code": 400}}
    await cold.serve(answers(answer(json.dumps(error, indent=1).encode(), b"application/json", 400, sized=sized)))
    client = await cold.begun()
    cold.wake()
    event, done, _ = (await rest(client)).split("\n\n")
    assert json.loads(event.removeprefix("data: ")) == error
    assert done == "data: [DONE]"
    row = cold.lab.plane.stats.take()[0]
    assert row.statuses == {400: 1}, "what the target answered, not what the client saw first"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/v1/chat/completions", 'data: {"error":{"type":"service_unavailable_error","message":"no memory is free"'),
        (b"/v1/messages", 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"no mem'),
        (b"/v1/responses", 'event: error\ndata: {"type":"error","code":"not-ready","message":"no memory is free"'),
    ],
)
async def test_a_model_that_cannot_be_had_is_an_event_of_each_api(cold: Cold, path: bytes, expected: str) -> None:
    await cold.serve(answers(b""))
    client = await cold.begun(path=path)
    cold.refuse()
    body = await rest(client)
    assert body.startswith(expected), body
    assert body.endswith("data: [DONE]\n\n") is (path == b"/v1/chat/completions")


async def test_an_engine_that_dies_before_it_answers_is_an_event(cold: Cold) -> None:
    async def dies(conn: Conn) -> None:
        await conn.request()
        conn.close()

    await cold.serve(dies)
    client = await cold.begun()
    cold.wake()
    assert "did not answer" in await rest(client)


async def test_an_engine_that_dies_in_its_answer_cuts_it_off(cold: Cold) -> None:
    async def dies(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: x\n\n")
        await conn.writer.drain()
        conn.reset()

    await cold.serve(dies)
    client = await cold.begun()
    cold.wake()
    assert not (await client.rest()).endswith(b"0\r\n\r\n"), "it does not look complete"


async def test_an_answer_that_is_no_stream_is_one_event(cold: Cold) -> None:
    await cold.serve(answers(answer(b'{"id":\n "x"}', b"application/json")))
    client = await cold.begun()
    cold.wake()
    assert await rest(client) == 'data: {"id":"x"}\n\ndata: [DONE]\n\n'


@pytest.mark.parametrize("body", [b"<html>", b"", b"x" * 300_000, b"[1]", b'{"detail": "no"}'])
async def test_an_error_that_is_no_openai_error_becomes_one(cold: Cold, body: bytes) -> None:
    await cold.serve(answers(answer(body, b"text/html", 422)))
    client = await cold.begun()
    cold.wake()
    event = json.loads((await rest(client)).split("\n\n")[0].removeprefix("data: "))
    assert event["error"]["code"] == "422"
    assert 0 < len(event["error"]["message"]) <= 1000


async def test_a_connection_that_is_not_kept_ends_with_the_stream(cold: Cold) -> None:
    await cold.serve(answers(answer(EVENTS, b"text/event-stream")))
    client = await cold.begun(b"Connection: close")
    assert b"connection: close\r\n" in cold.head
    cold.wake()
    assert await rest(client) == EVENTS.decode()
    assert await client.rest() == b""


async def test_a_client_that_leaves_is_not_waited_for(cold: Cold) -> None:
    await cold.serve(answers(b""))
    client = await cold.begun()
    client.close()
    await cold.lab.quiet()
    assert cold.lab.link.abandoned == [1]


async def test_a_client_that_does_not_read_is_not_told_more(cold: Cold, monkeypatch: pytest.MonkeyPatch) -> None:
    await cold.serve(answers(answer(EVENTS, b"text/event-stream")))
    client = await cold.begun()
    (inbound,) = cold.lab.plane.inbound
    sent: list[bytes] = []
    monkeypatch.setattr(type(inbound), "congested", property(lambda _: True))
    monkeypatch.setattr(inbound.__class__, "send", lambda _, data: sent.append(data))
    early = next(iter(cold.lab.link.waiting.values()))[1]._early
    early.comment("more")
    assert sent == []
    monkeypatch.undo()
    cold.wake()
    assert await rest(client) == EVENTS.decode()


@pytest.mark.parametrize(
    ("body", "headers", "path", "route"),
    [
        (b'{"model": "m"}', (), b"/v1/chat/completions", {}),
        (b'{"model": "m", "stream": false}', (), b"/v1/chat/completions", {}),
        (STREAM, (), b"/v1/chat/completions", {"filters": {"m": FilterValue(set={"stream": "false"})}}),
        (STREAM, (), b"/upstream/m/v1/chat/completions", {}),
    ],
)
async def test_who_does_not_wait_for_a_stream_is_sent_no_comments(
    cold: Cold, body: bytes, headers: tuple[bytes, ...], path: bytes, route: dict[str, Any]
) -> None:
    await cold.serve(answers(answer(b"{}", b"application/json", sized=True)), **route)
    client = await cold.ask(body, *headers, path=path)
    assert next(iter(cold.lab.link.waiting.values()))[1]._comments is None
    cold.wake()
    found = await client.answer()
    assert (found.status, found.body) == (200, b"{}")


async def test_nobody_is_sent_comments_where_the_setting_says_so(cold: Cold) -> None:
    cold.lab.set(loading_comments=0.0)
    await cold.serve(answers(answer(EVENTS, b"text/event-stream")))
    client = await cold.ask()
    assert next(iter(cold.lab.link.waiting.values()))[1]._comments is None
    cold.wake()
    found = await client.answer()
    assert found.body == EVENTS
    assert (found.get(b"x-garrison-queue") or b"").startswith(b"position=1, loading=")


async def test_one_of_http_1_0_is_sent_no_comments(cold: Cold) -> None:
    await cold.serve(answers(answer(EVENTS, b"text/event-stream")))
    client = await cold.lab.client()
    client.send(chat(STREAM).replace(b"HTTP/1.1", b"HTTP/1.0"))
    await cold.lab.until(lambda: cold.lab.link.waiting)
    assert next(iter(cold.lab.link.waiting.values()))[1]._comments is None
    cold.wake()
    assert (await client.answer()).body == EVENTS
