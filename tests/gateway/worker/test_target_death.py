"""The target dies at every byte of its answer: no client takes what arrived for the whole."""

import asyncio
from dataclasses import dataclass

import pytest
from gateway_lab import Client, Conn, GatewayLab, Message, chat, read_message

SIZED = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nabcdefgh"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n5;x=y\r\ndefgh\r\n0\r\nX-Sum: 1\r\n\r\n"
)
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nabcdefgh"
ANSWERS = {"sized": SIZED, "chunked": CHUNKED}


@dataclass
class Dies:
    """Sends so many bytes of an answer, and ends the connection."""

    answer: bytes
    sent: int
    end: str

    async def __call__(self, conn: Conn) -> None:
        await conn.request()
        conn.send(self.answer[: self.sent])
        await asyncio.sleep(0.002)
        getattr(conn, self.end)()


async def seen(client: Client) -> Message | None:
    """Return the answer, if its client takes it for a whole one."""
    try:
        return await asyncio.wait_for(read_message(client.reader), 5)
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return None


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"], ids=["http11", "http10"])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
async def test_at_every_byte(lab: GatewayLab, answer: bytes, version: bytes, end: str) -> None:
    upstream = await lab.upstream(Dies(answer, 0, end))
    head = answer.index(b"\r\n\r\n") + 4
    for sent in range(len(answer)):
        upstream.script = Dies(answer, sent, end)
        lab.tell(upstream.url)
        for target in lab.plane.table.targets.values():
            target.set(target.value)  # each time for the first time: its breaker would end the test
        before = len(upstream.requests)
        client = await lab.client()
        client.send(chat().replace(b"HTTP/1.1", b"HTTP/" + version))
        found = await seen(client)
        if sent < head:
            assert found is not None, f"no answer to a target that dies at byte {sent}"
            assert found.status == 502
        else:
            assert found is None, f"{found} looks whole at byte {sent}"
            assert len(upstream.requests) == before + 1, "it was asked again after its answer had begun"
        await lab.quiet()
        client.close()


async def test_one_that_ends_with_its_connection_may_not_end_with_a_reset(lab: GatewayLab) -> None:
    for end, whole in (("close", True), ("reset", False)):
        upstream = await lab.upstream(Dies(UNTIL_CLOSE, len(UNTIL_CLOSE), end))
        lab.tell(upstream.url)
        for version in (b"1.1", b"1.0"):
            client = await lab.client()
            client.send(chat().replace(b"HTTP/1.1", b"HTTP/" + version))
            found = await seen(client)
            assert (found is not None) == whole, (end, version)
            if found is not None:
                assert found.body == b"abcdefgh"
        await lab.quiet()


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    ],
    ids=["no http", "bad length", "two framings", "coding", "version", "switch", "large head"],
)
async def test_what_is_no_answer_is_a_502(lab: GatewayLab, answer: bytes) -> None:
    async def wrong(conn: Conn) -> None:
        await conn.request()
        conn.send(answer)
        await conn.ended()

    await lab.serve(wrong)
    assert (await (await lab.client()).ask(chat())).status == 502


async def test_bytes_after_an_answer_are_no_answer_to_the_next_request(lab: GatewayLab) -> None:
    async def talks(conn: Conn) -> None:
        await conn.request()
        conn.send(SIZED + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await conn.ended()

    upstream = await lab.serve(talks)
    client = await lab.client()
    for _ in range(2):
        assert (await client.ask(chat())).body == b"abcdefgh"
    assert len(upstream.connections) == 2
