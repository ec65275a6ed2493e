"""What a worker reports: sums that are stored once, requests that have ended, those in progress."""

import asyncio
from typing import Any

import pytest
from gateway_lab import OK, Client, Conn, GatewayLab, Message, chat
from link_lab import LinkLab

from garrison.gateway.link import messages
from garrison.gateway.link.peer import Peer
from garrison.gateway.link.reports import (
    Cancel,
    Cancelled,
    Finished,
    FinishedValue,
    InProgressValue,
    ListLive,
    LiveRequests,
    LiveValue,
    Phase,
    Spent,
    SpentStored,
    Used,
)
from garrison.gateway.worker import reporting
from garrison.gateway.worker.accounts import finished

USAGE = b'{"usage":{"prompt_tokens":7,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":2}}}'
COUNTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(USAGE), USAGE)
SILENT = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_SECONDS", 0.02)


async def counted(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(COUNTED)


async def silent(conn: Conn) -> None:
    await conn.request()
    await conn.ended()


async def told(linked: LinkLab, *urls: str | None) -> Client:
    """A client of a worker that knows a model at `urls`."""
    targets = [messages.TargetValue(id=f"target:m{number}", url=url) for number, url in enumerate(urls)]
    route = messages.RouteValue(name="m", targets=tuple(one.id for one in targets))
    linked.control.send(messages.Tables(version=9, whole=True, targets=targets, routes=[route]))
    linked.lab.plane.finished.wanted = True
    await linked.lab.until(lambda: "m" in linked.lab.plane.table.routes)
    return await linked.lab.client()


def stores(message: Any, peer: Peer[Any]) -> None:
    if isinstance(message, Spent):
        peer.send(SpentStored(number=message.number))


async def test_each_batch_is_sent_once_the_one_before_is_on_disk(linked: LinkLab) -> None:
    lab, control = linked.lab, linked.control
    client = await told(linked, (await lab.upstream(counted)).url)
    await client.ask(chat())
    await lab.until(lambda: control.of(Spent))
    for _ in range(3):
        await client.ask(chat())
    await lab.until(lambda: sum(one.statuses[200] for used in control.of(Used) for one in used.uses) == 4)
    (first,) = control.of(Spent)
    assert (first.number, first.source) == (1, lab.plane.name.decode())
    (row,) = first.rows
    assert (row.route, row.key_id, row.requests, row.failed, row.uncounted) == ("m", None, 1, 0, 0)
    assert (row.tokens_in, row.tokens_out, row.tokens_cached, row.bytes_out) == (7, 3, 2, len(USAGE))
    control.script = stores
    control.send(SpentStored(number=1))
    await lab.until(lambda: len(control.of(Spent)) == 2)
    (second,) = control.of(Spent)[1].rows
    assert (control.of(Spent)[1].number, second.requests, second.tokens_in) == (2, 3, 21)


async def test_a_batch_of_which_nothing_was_heard_is_sent_again_and_nothing_is_lost_meanwhile(linked: LinkLab) -> None:
    """The control process was killed: it may have stored the batch, or not."""
    lab, control = linked.lab, linked.control
    client = await told(linked, (await lab.upstream(counted)).url)
    await client.ask(chat())
    await lab.until(lambda: control.of(Spent))
    control.stop()
    await lab.until(lambda: linked.link._peer is None)
    for _ in range(3):
        await client.ask(chat())
    control.script = stores
    await control.start()
    await linked.connected(2)
    await lab.until(lambda: len(control.of(Spent)) == 3)
    first, again, rest = control.of(Spent)
    assert again == first
    assert (rest.number, rest.rows[0].requests) == (2, 3)


async def test_a_worker_that_ends_waits_for_its_last_batch(linked: LinkLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_SECONDS", 60.0)
    lab, control = linked.lab, linked.control
    client = await told(linked, (await lab.upstream(counted)).url)
    await client.ask(chat())
    ending = asyncio.create_task(linked.link.reporting.finish(5.0))
    await lab.until(lambda: control.of(Spent))
    assert not ending.done()
    control.send(SpentStored(number=1))
    await asyncio.wait_for(ending, 5.0)
    began = lab.plane.now()
    await client.ask(chat())
    await linked.link.reporting.finish(0.1)
    assert lab.plane.now() - began < 5.0, "it does not wait for ever"


async def test_a_worker_that_ends_gets_what_came_after_the_batch_under_way_stored(linked: LinkLab) -> None:
    """The control process gathers batches for seconds, unless one says that its worker ends."""
    lab, control = linked.lab, linked.control
    control.script = lambda message, peer: stores(message, peer) if getattr(message, "ends", False) else None
    client = await told(linked, (await lab.upstream(counted)).url)
    await client.ask(chat())
    await lab.until(lambda: control.of(Spent))
    for _ in range(3):
        await client.ask(chat())
    began = lab.plane.now()
    await linked.link.reporting.finish(5.0)
    assert lab.plane.now() - began < 4.0
    first, again, rest = control.of(Spent)
    assert (first.number, first.ends) == (1, False)
    assert (again.number, again.rows, again.ends) == (1, first.rows, True)
    assert (rest.number, rest.rows[0].requests, rest.ends) == (2, 3, True)


async def test_a_worker_that_ends_does_not_miss_that_a_batch_was_stored_while_it_reports(
    linked: LinkLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, control = linked.lab, linked.control
    client = await told(linked, (await lab.upstream(counted)).url)
    await client.ask(chat())
    await lab.until(lambda: control.of(Spent))
    monkeypatch.setattr(reporting, "_SECONDS", 60.0)
    await asyncio.sleep(0.1)
    await client.ask(chat())
    reports = linked.link.reporting
    report = reports.report

    async def slow() -> None:
        await report()
        control.script = stores
        control.send(SpentStored(number=1))
        await asyncio.sleep(0.1)  # it arrives within the report

    reports.report = slow  # type: ignore[method-assign]
    began = lab.plane.now()
    await reports.finish(5.0)
    assert lab.plane.now() - began < 4.0
    assert [row.requests for row in control.of(Spent)[-1].rows] == [1]
    assert control.of(Spent)[-1].number == 2


async def test_a_report_that_fails_is_not_the_last_one(linked: LinkLab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, control = linked.lab, linked.control
    client = await told(linked, (await lab.upstream(counted)).url)
    failures = [OverflowError(), ValueError()]

    def fails(*arguments: Any) -> FinishedValue:
        if failures:
            raise failures.pop()
        return finished.finished_value(*arguments)

    monkeypatch.setattr(reporting, "finished_value", fails)
    await client.ask(chat())
    await lab.until(lambda: len(failures) == 1)
    await client.ask(chat())
    await lab.until(lambda: not failures)
    await client.ask(chat())
    await finished_of(linked, 1)
    await lab.until(lambda: control.of(Spent))


async def test_failures_clients_that_left_and_answers_that_do_not_say_are_told_apart(linked: LinkLab) -> None:
    lab, control = linked.lab, linked.control
    upstream = await lab.upstream(silent)
    client = await told(linked, upstream.url)
    client.send(chat())
    await lab.until(lambda: upstream.requests)
    client.close()

    async def refuses(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\n{}")
        await conn.request()
        conn.send(OK)

    await lab.until(lambda: lab.target().running == 0)
    client = await told(linked, (await lab.upstream(refuses)).url)
    await client.ask(chat())
    await client.ask(chat())
    control.script = stores
    if control.of(Spent):
        control.send(SpentStored(number=control.of(Spent)[-1].number))
    rows = lambda: [row for one in control.of(Spent) for row in one.rows]  # noqa: E731
    await lab.until(lambda: sum(one.requests for one in rows()) == 3)
    sums = [sum(getattr(one, name) for one in rows()) for name in ("client_left", "failed", "uncounted")]
    assert sums == [1, 1, 1]


async def finished_of(linked: LinkLab, count: int) -> list[FinishedValue]:
    found = lambda: [one for told in linked.control.of(Finished) for one in told.requests]  # noqa: E731
    await linked.lab.until(lambda: len(found()) >= count)
    return found()


async def test_each_request_that_has_ended_is_reported(linked: LinkLab) -> None:
    lab = linked.lab
    client = await told(linked, (await lab.upstream(counted)).url)
    answer = await client.ask(chat(b'{"model":"m"}', b"X-Request-Id: mine\x9b[1m"))
    (one,) = await finished_of(linked, 1)
    assert (one.status, one.outcome, one.route, one.target, one.model) == (200, "ok", "m", "target:m0", "m")
    assert (one.path, one.peer, one.tokens, one.retries) == ("/v1/chat/completions", "127.0.0.1", (7, 3, 2), 0)
    assert one.request_id == "mine\ufffd[1m", "no control character goes further"
    assert (one.bytes_in, one.bytes_out) == (13, len(answer.body))
    assert one.id != one.request_id
    assert 0 < one.overhead < 5
    assert one.first_byte is not None


@pytest.mark.parametrize(
    ("body", "path", "expected"),
    [
        (b'{"model":"none\\u0007"}', b"/v1/chat/completions", (404, "not-found", "none\ufffd", "/v1/chat/completions")),
        (b"{}", b"/v1/chat/completions?x=1", (400, "invalid", "", "/v1/chat/completions")),
        (b"{}", b"/llama-cpp/none/props", (404, "not-found", "none", "/llama-cpp/none/props")),
    ],
)
async def test_refusals_are_reported_too(
    linked: LinkLab, body: bytes, path: bytes, expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.gateway.worker.link._SYNC_SECONDS", 0.01)
    client = await told(linked, None)
    await client.ask(chat(body, path=path))
    (one,) = await finished_of(linked, 1)
    assert (one.status, one.outcome, one.model, one.path) == expected
    assert (one.route, one.target, one.first_byte) == ("", "", None)


async def test_too_many_are_counted_and_not_kept(linked: LinkLab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finished, "_MOST", 0)
    client = await told(linked, (await linked.lab.upstream(counted)).url)
    for _ in range(3):
        await client.ask(chat())
    await linked.lab.until(lambda: sum(one.lost for one in linked.control.of(Finished)) == 3)
    assert all(not one.requests for one in linked.control.of(Finished))


@pytest.mark.parametrize("gone_at", [0, 1, 2])
async def test_requests_wait_for_the_next_connection_when_one_ends_within_a_report(
    linked: LinkLab, monkeypatch: pytest.MonkeyPatch, gone_at: int
) -> None:
    monkeypatch.setattr(reporting, "_SECONDS", 60.0)
    monkeypatch.setattr(reporting, "_AT_ONCE", 2)
    client = await told(linked, (await linked.lab.upstream(counted)).url)
    for _ in range(5):
        await client.ask(chat())
    linked.lab.plane.finished.lost = 3
    reports = linked.link.reporting
    sent: list[Finished] = []

    def send(message: object) -> bool:
        if isinstance(message, Finished):
            if len(sent) == gone_at:
                return False
            sent.append(message)
        return True

    monkeypatch.setattr(reports, "_send", send)
    await reports.report()
    gone_at = -1
    await reports.report()
    assert sum(one.lost for one in sent) == 3
    ids = [one.id for told in sent for one in told.requests]
    assert len(ids) == len(set(ids)) == 5


async def live(linked: LinkLab, most: int = 10) -> list[LiveValue]:
    number = 100 + len(linked.control.got)
    linked.control.send(ListLive(id=number, most=most))
    found = lambda: [one for one in linked.control.of(LiveRequests) if one.id == number]  # noqa: E731
    await linked.lab.until(found)
    return list(found()[0].requests)


async def test_requests_in_progress_and_where_they_are(linked: LinkLab) -> None:
    lab = linked.lab

    async def half(conn: Conn) -> None:
        await conn.request()
        conn.send(SILENT + b"abc")
        await conn.ended()

    client = await told(linked, (await lab.upstream(silent)).url)
    reading = await lab.client()
    reading.send(chat(b'{"model":"m"}')[:-4])
    await lab.until(lambda: len(lab.plane.inbound) == 2 and any(one.in_body for one in lab.plane.inbound))
    assert [(one.phase, one.route) for one in await live(linked)] == [(Phase.READING, "")]
    client.send(chat(b'{"model":"m"}', b"X-Request-Id: mine"))
    await lab.until(lambda: lab.target().running)
    first, second = await live(linked)
    assert (first.phase, second.phase) == (Phase.READING, Phase.SENT)
    assert (second.route, second.target, second.request_id) == ("m", "target:m0", "mine")
    reading.close()
    client.close()
    await lab.quiet()
    client = await told(linked, (await lab.upstream(half)).url)
    client.send(chat())
    await asyncio.wait_for(client.reader.readuntil(b"abc"), 5)
    (one,) = await live(linked)
    assert (one.phase, one.bytes_out) == (Phase.ANSWERING, 3)
    client.close()
    await lab.quiet()
    client = await told(linked, None)
    client.send(chat())
    await lab.until(lambda: linked.control.of(messages.Activate))
    assert [one.phase for one in await live(linked)] == [Phase.WAITING]
    waiting = InProgressValue(route="m", target="target:m0", key_id=None, count=1, waiting=1)
    await lab.until(lambda: linked.control.of(Used)[-1].in_progress == [waiting])
    client.close()
    await lab.until(lambda: not linked.control.of(Used)[-1].in_progress)
    assert await live(linked) == []


async def stop(linked: LinkLab, id: str) -> bool:
    linked.control.send(Cancel(id=7, request=id))
    await linked.lab.until(lambda: linked.control.of(Cancelled))
    answer = linked.control.of(Cancelled)[-1]
    return bool(answer.found)


async def test_a_request_without_an_answer_is_ended_at_both_ends(linked: LinkLab) -> None:
    lab = linked.lab
    upstream = await lab.upstream(silent)
    client = await told(linked, upstream.url)
    client.send(chat())
    await lab.until(lambda: upstream.requests)
    (one,) = await live(linked)
    assert await stop(linked, one.id)
    answer: Message = await client.answer()
    assert answer.status == 499
    assert b"stopped by an operator" in answer.body
    await lab.until(lambda: upstream.ended_at, told=lambda: "the target is told")
    (ended,) = await finished_of(linked, 1)
    assert (ended.status, ended.outcome) == (499, "stopped")


async def test_a_stream_that_is_ended_breaks_off(linked: LinkLab) -> None:
    lab = linked.lab

    async def streams(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await conn.ended()

    upstream = await lab.upstream(streams)
    client = await told(linked, upstream.url)
    client.send(chat())
    await asyncio.wait_for(client.reader.readuntil(b"abc\r\n"), 5)
    (one,) = await live(linked)
    assert await stop(linked, one.id)
    assert await client.rest() == b"", "no last chunk, so that the client sees that something is missing"
    await lab.until(lambda: upstream.ended_at)
    (ended,) = await finished_of(linked, 1)
    assert (ended.status, ended.outcome) == (200, "stopped")


async def test_a_request_that_waits_for_a_cold_target_is_ended(linked: LinkLab) -> None:
    client = await told(linked, None)
    client.send(chat())
    await linked.lab.until(lambda: linked.control.of(messages.Activate))
    (one,) = await live(linked)
    assert await stop(linked, one.id)
    assert (await client.answer()).status == 499
    assert linked.control.of(messages.Abandon)


async def test_a_request_that_is_not_there_is_not_ended(linked: LinkLab) -> None:
    client = await told(linked, (await linked.lab.upstream(counted)).url)
    answer = await client.ask(chat())
    done = answer.get(b"x-request-id")
    assert done is not None
    assert not await stop(linked, done.decode())


async def test_the_answer_says_where_the_time_went(linked: LinkLab) -> None:
    lab = linked.lab
    upstream = await lab.upstream(counted)
    client = await told(linked, None)
    client.send(chat())
    await lab.until(lambda: linked.control.of(messages.Activate))
    (asked,) = linked.control.of(messages.Activate)
    await asyncio.sleep(0.05)
    ready = messages.TargetValue(id="target:m0", url=upstream.url)
    linked.control.send(messages.Activated(id=asked.id, target=ready, wake=0.01))
    cold = timing(await client.answer())
    assert cold.keys() == {"queue", "wake", "upstream", "gateway"}
    assert cold["wake"] == 10.0
    assert 35 <= cold["queue"] <= 5000
    assert cold["gateway"] < cold["queue"], "waiting is no work of the gateway's"
    assert timing(await client.ask(chat())).keys() == {"upstream", "gateway"}
    (row, _) = await finished_of(linked, 2)
    assert row.wake == 0.01
    assert row.queue == pytest.approx(cold["queue"] / 1e3, abs=1e-3)


def timing(answer: Message) -> dict[str, float]:
    """The milliseconds in `Server-Timing`."""
    text = answer.get(b"server-timing")
    assert text is not None
    pairs = [one.split(";dur=") for one in text.decode().split(", ")]
    return {name: float(value) for name, value in pairs}


async def test_a_stream_has_a_first_token_and_gaps(linked: LinkLab) -> None:
    lab = linked.lab
    goes_on = asyncio.Event()

    async def streams(conn: Conn) -> None:
        await conn.request()
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await goes_on.wait()
            goes_on.clear()
            conn.send(b"9\r\ndata: %d\n\n\r\n" % number + (b"0\r\n\r\n" if number == 2 else b""))

    client = await told(linked, (await lab.upstream(streams)).url)
    client.send(chat(b'{"model":"m","stream":true}'))
    await asyncio.wait_for(client.reader.readuntil(b"\r\n\r\n"), 5)
    for number in range(3):
        goes_on.set()
        await asyncio.wait_for(client.reader.readuntil(b"data: %d\n\n\r\n" % number), 5)
    (one,) = await finished_of(linked, 1)
    assert one.stream
    assert one.first_token is not None
    assert one.first_byte is not None
    assert one.first_byte <= one.first_token <= one.seconds
    (use,) = linked.control.of(Used)[-1].uses or [one for used in linked.control.of(Used) for one in used.uses]
    assert (sum(use.first_tokens.counts), sum(use.gaps.counts)) == (1, 2)


async def test_nothing_is_kept_of_requests_that_nobody_wants(lab: GatewayLab) -> None:
    await lab.serve(counted)
    await (await lab.client()).ask(chat())
    assert lab.plane.finished.take() == ([], 0)
