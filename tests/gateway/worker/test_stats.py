"""What is reported about requests that have ended."""

import asyncio
import socket

from gateway_lab import Conn, GatewayLab, chat

from garrison.gateway.worker.stats import Stats
from garrison.server.workers.totals import Totals

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
ANSWER = b'{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}'


async def test_answers_refusals_and_clients_that_leave(lab: GatewayLab) -> None:
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
        )

    upstream = await lab.upstream(script)
    lab.tell(upstream.url)
    client = await lab.client()
    assert (await client.ask(chat())).status == 200
    assert (await client.ask(chat())).status == 200
    await lab.quiet()
    (row,) = lab.plane.stats.take()
    assert (row.statuses, row.tokens_in, row.tokens_out, row.bytes_out) == ({200: 2}, 14, 6, 2 * len(ANSWER))
    assert sum(row.seconds) == sum(row.first_bytes) == 2
    assert lab.plane.stats.take() == []

    async def silent(conn: Conn) -> None:
        await conn.request()
        await asyncio.sleep(5)

    other = await lab.upstream(silent)
    lab.tell(other.url)
    leaving = await lab.client()
    leaving.send(chat())
    await asyncio.sleep(0.1)
    leaving.close()
    await lab.quiet()
    (row,) = lab.plane.stats.take()
    assert row.statuses == {499: 1}
    assert row.first_bytes == [0] * len(row.first_bytes)


async def test_two_targets_that_refuse_connections_leave_a_try_for_the_third(lab: GatewayLab) -> None:
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.send(HEAD % len(ANSWER) + ANSWER)

    live = await lab.upstream(script)
    with socket.socket() as one, socket.socket() as other:  # bound, and not listening
        for held in (one, other):
            held.bind(("127.0.0.1", 0))
        dead = [f"http://127.0.0.1:{held.getsockname()[1]}" for held in (one, other)]
        lab.tell(*dead, live.url, policy="pin")
        client = await lab.client()
        assert (await client.ask(chat())).status == 200
    await lab.quiet()
    (row,) = lab.plane.stats.take()
    assert (row.statuses, row.retries) == ({200: 1}, 2)


def test_totals_are_sums_and_histograms() -> None:
    stats, totals = Stats(), Totals()
    for seconds in (0.005, 0.2, 700.0):
        stats.record("a", "instance:a", 3, status=200, seconds=seconds, first_byte=seconds)
    totals.add(stats.take())
    stats.record("a", "instance:a", 3, status=503, seconds=0.2, first_byte=None, retries=2)
    totals.add(stats.take())
    found = {metric.name: metric for metric in totals.collect()}
    assert {(one.labels["status"], one.value) for one in found["garrison_gateway_requests"].samples} == {
        ("200", 3.0), ("503", 1.0),
    }  # fmt: skip
    counts = {one.labels["le"]: one.value for one in found["garrison_gateway_seconds"].samples if "le" in one.labels}
    assert (counts["0.01"], counts["0.25"], counts["600.0"], counts["+Inf"]) == (1, 3, 3, 4)
    (retries,) = found["garrison_gateway_retries"].samples
    assert retries.value == 2


def test_rows_are_bounded() -> None:
    stats = Stats()
    for number in range(10_050):
        stats.record("a", "t", number, status=200, seconds=1.0, first_byte=None)
    rows = stats.take()
    assert len(rows) <= 10_001
    assert sum(row.statuses[200] for row in rows) == 10_050
