"""What is kept of requests and their answers, where the settings ask for that."""

import pytest
from gateway_lab import Conn, GatewayLab, Message, chat
from lab_keys import key, told_keys

from garrison.gateway.link.reports import CAPTURE_MARGIN, CaptureValue

SECRETS = (
    b"api-key", b"x-goog-api-key", b"apikey", b"X-Auth-Token", b"X-Amz-Security-Token", b"x-forwarded-access-token",
    b"Ocp-Apim-Subscription-Key", b"CF-Access-Client-Secret", b"X-Original-Authorization", b"X-Password", b"X-Auth",
)  # fmt: skip
HEADS = (
    b"Authorization: Bearer sk-client", b"Cookie: a=b", *(name + b": sk-client" for name in SECRETS), b"X-Other: 1",
)  # fmt: skip


async def asked(lab: GatewayLab, size: int = 10, **fields: int) -> Message:
    async def answers(conn: Conn) -> None:
        await conn.request()
        head = b"HTTP/1.1 200 OK\r\nSet-Cookie: s=1\r\nX-Engine: e\r\nContent-Length: %d\r\n\r\n" % size
        conn.send(head + b"y" * (size // 2))
        conn.send(b"y" * (size - size // 2))

    await lab.serve(answers)
    return await (await lab.client()).ask(chat(b'{"model":"m","x":"%b"}' % (b"x" * size), *HEADS))


def captures(lab: GatewayLab) -> list[CaptureValue]:
    return lab.plane.finished.take_captures()


async def test_heads_without_credentials_and_bodies(lab: GatewayLab) -> None:
    lab.set(captures=5, capture_bytes=100)
    await asked(lab)
    await lab.quiet()
    (one,) = captures(lab)
    assert one.answer is not None
    assert (one.request.start, one.answer.start) == ("POST /v1/chat/completions", "200")
    assert [name for name, _ in one.request.headers] == ["Host", "Content-Length", "X-Other"]
    assert [name for name, _ in one.answer.headers] == ["X-Engine", "Content-Length"]
    assert (one.request.body, one.answer.body) == (b'{"model":"m","x":"xxxxxxxxxx"}', b"yyyyyyyyyy")
    assert "sk-client" not in repr(one)
    assert captures(lab) == []


async def test_no_more_is_kept_of_a_body_than_the_bound(lab: GatewayLab) -> None:
    lab.set(captures=5, capture_bytes=100)
    answer = await asked(lab, 5000)
    await lab.quiet()
    (one,) = captures(lab)
    assert one.answer is not None
    assert len(one.request.body) == len(one.answer.body) == 100 + CAPTURE_MARGIN
    assert (one.answer.size, len(answer.body)) == (5000, 5000)
    assert one.request.size > 5000


async def test_no_more_are_kept_than_the_bound(lab: GatewayLab) -> None:
    lab.set(captures=2, capture_bytes=100)
    for _ in range(3):
        await asked(lab)
    await lab.quiet()
    assert len(captures(lab)) == 2


async def test_a_request_that_was_refused_has_no_answer(lab: GatewayLab) -> None:
    lab.set(captures=2, capture_bytes=100)
    assert (await (await lab.client()).ask(chat())).status == 404
    await lab.quiet()
    (one,) = captures(lab)
    assert one.answer is None


async def test_requests_of_strangers_push_out_no_capture(lab: GatewayLab) -> None:
    lab.set(captures=2, capture_bytes=100, open_inference=False)
    lab.plane.callers.set_keys(told_keys(key("mine")))
    await lab.serve(answering)
    known = await (await lab.client()).ask(chat(b'{"model":"m"}', b"Authorization: Bearer mine"))
    assert known.status == 200
    for _ in range(3):
        stranger = await (await lab.client()).ask(chat(b'{"model":"m"}', b"Authorization: Bearer other"))
        assert stranger.status == 401
    await lab.quiet()
    (one,) = captures(lab)
    assert one.answer is not None


async def answering(conn: Conn) -> None:
    await conn.request()
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize("most", [0, None])
async def test_nothing_is_kept_unless_the_settings_say_so(lab: GatewayLab, most: int | None) -> None:
    if most is not None:
        lab.set(captures=most, capture_bytes=100)
    await asked(lab)
    await lab.quiet()
    assert captures(lab) == []
