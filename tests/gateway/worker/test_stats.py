"""What is reported about requests that have ended."""

import asyncio
import socket
from typing import Any

import pytest
from gateway_lab import Conn, GatewayLab, chat

from garrison.gateway.link.reports import InProgressValue, Used
from garrison.gateway.requests.paths import classify
from garrison.gateway.worker.accounts.account import Account
from garrison.gateway.worker.accounts.ledger import Ledger
from garrison.gateway.worker.accounts.stats import Stats
from garrison.gateway.worker.live import cancel, live_requests
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


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"POST /v1/chat/completions", (7, 3)),
        (b"POST /v1/responses", (7, 3)),
        (b"POST /upstream/m/v1/chat/completions", (7, 3)),
        (b"GET /upstream/m/health", (0, 0)),
        (b"GET /llama-cpp/m/health", (0, 0)),
    ],
)
async def test_tokens_count_where_they_are_used_and_not_where_they_are_read_again(
    lab: GatewayLab, line: bytes, expected: tuple[int, int]
) -> None:
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.send(HEAD % len(ANSWER) + ANSWER)

    await lab.serve(script, engine="llama_cpp" if b"llama" in line else "vllm")
    method, path = line.split()
    answer = await (await lab.client()).ask(chat(path=path).replace(b"POST", method, 1))
    assert answer.status == 200, answer.body
    await lab.quiet()
    rows = lab.plane.stats.take()
    assert (sum(one.tokens_in for one in rows), sum(one.tokens_out for one in rows)) == expected
    assert sum(one.uncounted for one in rows) == 0


@pytest.mark.parametrize("line", [b"GET /v1/responses/resp_1", b"POST /v1/responses/resp_1/cancel"])
async def test_tokens_of_a_response_count_when_it_is_made(lab: GatewayLab, line: bytes) -> None:
    answer = b'{"id":"resp_1","object":"response","usage":{"input_tokens":7,"output_tokens":3}}'

    async def script(conn: Conn) -> None:
        while True:
            await conn.request()
            conn.send(HEAD % len(answer) + answer)

    lab.set()
    await lab.serve(script, engine="vllm")
    client = await lab.client()
    assert (await client.ask(chat(b'{"model":"m","input":"x"}', path=b"/v1/responses"))).status == 200
    method, path = line.split()
    for _ in range(3):
        again = await client.ask(method + b" " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert again.status == 200
    await lab.quiet()
    (row,) = lab.plane.stats.take()
    assert (row.statuses, row.tokens_in, row.tokens_out, row.uncounted) == ({200: 4}, 7, 3, 0)


async def test_tokens_of_an_answer_that_arrives_in_tiny_pieces(lab: GatewayLab) -> None:
    async def script(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        conn.send(b"".join(b"4\r\n%b\r\n" % ANSWER[at : at + 4] for at in range(0, len(ANSWER), 4)) + b"0\r\n\r\n")

    await lab.serve(script)
    await (await lab.client()).ask(chat())
    await lab.quiet()
    (row,) = lab.plane.stats.take()
    assert (row.tokens_in, row.tokens_out) == (7, 3)


async def test_tokens_of_a_stream_of_messages_are_in_its_first_event_and_its_last(lab: GatewayLab) -> None:
    started = b'data: {"type":"message_start","message":{"usage":{"input_tokens":5000,"output_tokens":0}}}\n\n'
    text = started + b'data: {"delta":{"text":"word"}}\n\n' * 1000 + b'data: {"usage":{"output_tokens":8}}\n\n'

    async def script(conn: Conn) -> None:
        await conn.request()
        conn.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(text) + text
        )

    await lab.serve(script)
    await (await lab.client()).ask(chat(path=b"/v1/messages"))
    await lab.quiet()
    (row,) = lab.plane.stats.take()
    assert (row.tokens_in, row.tokens_out) == (5000, 8)


@pytest.mark.parametrize("how", ["cut off", "stopped", "client left", "stopped before"])
async def test_how_a_request_ended_counts_and_not_only_how_its_answer_began(lab: GatewayLab, how: str) -> None:
    goes_on = asyncio.Event()

    async def script(conn: Conn) -> None:
        await conn.request()
        if how != "stopped before":
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        if how == "cut off":
            await goes_on.wait()
            conn.writer.transport.abort()
        else:
            await conn.ended()

    await lab.serve(script)
    client = await lab.client()
    client.send(chat())
    await lab.until(lambda: live_requests(lab.plane, 9, 0.0)[0])
    if how != "stopped before":
        await asyncio.wait_for(client.reader.readuntil(b"abc\r\n"), 5)
    ((one,), _) = live_requests(lab.plane, 9, 0.0)
    if how.startswith("stopped"):
        cancel(lab.plane, one.id)
    elif how == "client left":
        client.close()
    goes_on.set()
    await lab.quiet()
    ledger = Ledger("w")
    ledger.add(lab.plane.stats.take())
    batch = ledger.next()
    assert batch is not None
    (row,) = batch.rows
    left = how == "client left"
    assert (row.requests, row.failed, row.client_left) == (1, not left, left)


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
