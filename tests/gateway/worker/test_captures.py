"""What is kept of requests and their answers, where the settings ask for that."""

import pytest
from gateway_lab import Conn, GatewayLab, Message, chat

from garrison.gateway.link.reports import CAPTURE_MARGIN, CaptureValue

HEADS = (b"Authorization: Bearer sk-client", b"Cookie: a=b", b"X-Other: 1")


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


@pytest.mark.parametrize("most", [0, None])
async def test_nothing_is_kept_unless_the_settings_say_so(lab: GatewayLab, most: int | None) -> None:
    if most is not None:
        lab.set(captures=most, capture_bytes=100)
    await asked(lab)
    await lab.quiet()
    assert captures(lab) == []
