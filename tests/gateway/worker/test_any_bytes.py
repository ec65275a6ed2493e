"""Whatever bytes arrive, cut at any place: nothing raises, every counter returns to zero, and answers are whole."""

import asyncio
import random

import uvloop
from gateway_lab import JSON, Client, Conn, GatewayLab, chat
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

PIECES = [
    chat(), chat(JSON, b"Connection: close"), chat(JSON, b"Expect: 100-continue"),
    b"POST /v1/chat/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\nX: 1\r\n\r\n"
    % (len(JSON), JSON),
    b"GET /v1/models HTTP/1.1\r\n\r\n", b"HEAD /v1/models HTTP/1.1\r\n\r\n", b"GET /v1/nowhere HTTP/1.1\r\n\r\n",
    b"POST /v1/nowhere HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", b"GET /ui/ HTTP/1.1\r\nHost: h\r\n\r\n",
    b"PUT /api/v1/x HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", chat(b'{"model": "unknown"}'), chat(b"\xff{"),
    b"GET /ui/ HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"\r\n",
    chat().replace(b"HTTP/1.1", b"HTTP/1.0"), b"CONNECT h:1 HTTP/1.1\r\n\r\n", b"0\r\n\r\n",
]  # fmt: skip
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: 1\r\n\r\n",
    b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nhello",
]

damage = st.tuples(st.floats(0, 1), st.sampled_from(["cut", "drop", "twice", "set", "insert"]), st.binary(max_size=3))
_BUDGET = settings(
    max_examples=60, deadline=None, phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


def damaged(data: bytes, changes: list[tuple[float, str, bytes]]) -> bytes:
    for place, kind, more in changes:
        at = int(place * len(data))
        match kind:
            case "cut":
                data = data[:at]
            case "drop":
                data = data[:at] + data[at + 1 + len(more) :]
            case "twice":
                data = data[:at] + data[at : at + 20] + data[at:]
            case "set":
                data = data[:at] + more + data[at + len(more) :]
            case _:
                data = data[:at] + more + data[at:]
    return data


async def send(client: Client, data: bytes, rng: random.Random) -> None:
    at = 0
    while at < len(data):
        step = rng.choice((1, 2, 5, 30, 1000, 100_000))
        if client.writer.is_closing():
            return
        client.send(data[at : at + step])
        at += step
        if rng.random() < 0.3:
            await asyncio.sleep(0)


@_BUDGET
@given(
    asked=st.lists(st.sampled_from(PIECES), min_size=1, max_size=8),
    changes=st.lists(damage, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_requests(tmp_path, asked: list[bytes], changes: list[tuple[float, str, bytes]], seed: int) -> None:
    async def main() -> None:
        lab = GatewayLab(tmp_path)
        await lab.start()
        rng = random.Random(seed)

        async def answers(conn: Conn) -> None:
            while True:
                found = await conn.request()
                conn.send(rng.choice(ANSWERS[:3]))
                if found.all(b"upgrade"):
                    return

        try:
            await lab.serve(answers)
            (tmp_path / "control").unlink(missing_ok=True)
            await lab.control(answers)
            client = await lab.client()
            await send(client, damaged(b"".join(asked), changes), rng)
            await asyncio.sleep(0.002)
            if rng.random() < 0.5:
                client.reset()
            client.close()
            await lab.settled()
        finally:
            await lab.close()

    uvloop.run(main())


@_BUDGET
@given(answer=st.sampled_from(ANSWERS), changes=st.lists(damage, min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_answers(tmp_path, answer: bytes, changes: list[tuple[float, str, bytes]], seed: int) -> None:
    async def main() -> None:
        lab = GatewayLab(tmp_path)
        await lab.start()
        rng = random.Random(seed)
        raw = damaged(answer, changes)

        async def wrong(conn: Conn) -> None:
            await conn.request()
            at = 0
            while at < len(raw):
                step = rng.choice((1, 2, 5, 1000))
                conn.send(raw[at : at + step])
                at += step
                await asyncio.sleep(0)
            if rng.random() < 0.5:
                conn.reset()

        try:
            await lab.serve(wrong)
            (tmp_path / "control").unlink(missing_ok=True)
            await lab.control(wrong)
            for request in (chat(), b"GET /ui/ HTTP/1.1\r\nHost: h\r\n\r\n", PIECES[12]):
                client = await lab.client()
                client.send(request)
                await asyncio.sleep(0.01)
                client.close()
            await lab.settled()
        finally:
            await lab.close()

    uvloop.run(main())
