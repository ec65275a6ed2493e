"""What is reported about requests that have ended."""

import asyncio
import socket
from typing import Any

from gateway_lab import Conn, GatewayLab, chat

from garrison.gateway.link.reports import InProgressValue, Used
from garrison.gateway.requests.paths import classify
from garrison.gateway.worker.account import Account
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
    assert sum(row.seconds.counts) == sum(row.first_bytes.counts) == sum(row.overheads.counts) == 2
    assert 0 < row.overheads.total < 1
    assert sum(row.waits.counts) == sum(row.first_tokens.counts) == row.uncounted == 0
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
    assert sum(row.first_bytes.counts) == 0


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


def account(**values: Any) -> Account:
    """One that has ended."""
    made = Account(None, classify(b"POST", b"/v1/chat/completions"), 0.0, b"id", b"id", "")  # type: ignore[arg-type]
    plain = {"route": "a", "target": "instance:a", "key": 3, "status": 200, "seconds": 1.0, "bytes_in": 0}
    for name, value in (plain | values).items():
        setattr(made, name, value)
    return made


def test_totals_are_sums_and_histograms() -> None:
    stats, totals = Stats(), Totals()
    for seconds in (0.005, 0.2, 700.0):
        stats.record(account(seconds=seconds, first_byte=seconds))
    totals.add("w", Used(uses=stats.take()))
    stats.record(account(status=503, seconds=0.2, tries=3, waited=2.0))
    totals.add("w", Used(uses=stats.take()))
    found = {metric.name: metric for metric in totals.collect()}
    assert {(one.labels["status"], one.value) for one in found["garrison_gateway_requests"].samples} == {
        ("200", 3.0), ("503", 1.0),
    }  # fmt: skip
    counts = {one.labels["le"]: one.value for one in found["garrison_gateway_seconds"].samples if "le" in one.labels}
    assert (counts["0.01"], counts["0.25"], counts["600.0"], counts["+Inf"]) == (1, 3, 3, 4)
    (retries,) = found["garrison_gateway_retries"].samples
    assert retries.value == 2
    waits = {
        one.labels["le"]: one.value for one in found["garrison_gateway_queue_seconds"].samples if "le" in one.labels
    }
    assert (waits["1.0"], waits["2.5"]) == (0, 1)


def test_what_is_in_progress_and_the_breakers_are_those_of_all_workers() -> None:
    totals = Totals(lambda: ("t", "u", "v"))
    one = InProgressValue(route="a", target="t", key_id=None, count=3, waiting=1)
    totals.add("w1", Used(uses=[], in_progress=[one], breakers={"t": "half-open", "gone": "open"}))
    totals.add("w2", Used(uses=[], in_progress=[one], breakers={"t": "open", "u": "half-open"}))

    def values(name: str) -> list[float]:
        return [sample.value for metric in totals.collect() if metric.name == name for sample in metric.samples]

    assert (values("garrison_gateway_in_flight"), values("garrison_gateway_queued")) == ([6], [2])
    assert values("garrison_gateway_breaker") == [2, 1, 0]
    totals.forget("w2")
    assert (values("garrison_gateway_in_flight"), values("garrison_gateway_breaker")) == ([3], [1, 0, 0])


def test_rows_are_bounded() -> None:
    stats, totals = Stats(), Totals()
    for number in range(10_050):
        stats.record(account(key=number))
    rows = stats.take()
    assert len(rows) <= 10_001
    assert sum(row.statuses[200] for row in rows) == 10_050
    totals.add("w", Used(uses=rows))
    (requests,) = [metric for metric in totals.collect() if metric.name == "garrison_gateway_requests"]
    assert len(requests.samples) <= 1001
    assert sum(one.value for one in requests.samples) == 10_050
