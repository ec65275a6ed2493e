"""The connection to the control process: frames in any pieces, what is asked, and what happens without it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from gateway_lab import JSON, OK, Client, Conn, chat
from link_lab import LinkLab

from garrison.gateway.link import messages
from garrison.gateway.link.peer import Peer, control_peer, worker_peer
from garrison.gateway.link.route_settings import AffinityValue, FilterValue, LimitsValue, QueueValue, TimeoutsValue
from garrison.gateway.worker import link as link_module
from garrison.gateway.worker.table.stored_responses import StoredAt

SENT: list[messages.FromControl] = [
    messages.Synced(id=1),
    messages.Tables(version=3, routes=[messages.RouteValue(name="m", targets=("a",))], gone_targets=["b"]),
    messages.Keys(secret=b"\0\n" * 16, config_keys=("k",), revision=2, rows=[]),
    messages.Loading(target="instance:m", loading={"phase": "weights", "remaining": 1.5}),
    messages.Stored(id="resp_1", target="instance:m", model="m"),
    messages.Tables(
        version=4,
        routes=[
            messages.RouteValue(
                name="r", targets=("a", "b"), options={"limit": 3}, affinity=AffinityValue(by=("user",)),
                aliases=("s",), filters={"s": FilterValue(set={"x": "null"}, strip=("y",))},
                limits=LimitsValue(concurrent=1), queue=QueueValue(busy=1.5), timeouts=TimeoutsValue(whole=9),
                instance_ids=(1, None),
            )
        ],
    ),
    messages.Drain(seconds=1.5),
]  # fmt: skip


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def made(make: Callable[..., Peer[Any]]) -> tuple[Peer[Any], Wire, list[Any], list[bool]]:
    got: list[Any] = []
    lost: list[bool] = []
    peer, wire = make(got.append, lambda: lost.append(True)), Wire()
    peer.connection_made(wire)
    return peer, wire, got, lost


def frames() -> bytes:
    peer, wire, _, _ = made(control_peer)
    assert all(peer.send(one) for one in SENT)
    return wire.written


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 100, 10_000])
def test_frames_in_any_pieces(step: int) -> None:
    data = frames()
    peer, wire, got, _ = made(worker_peer)
    for at in range(0, len(data), step):
        peer.data_received(data[at : at + step])
    assert got == SENT
    assert not wire.closed


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


UNREADABLE = {
    "an unknown tag": framed(msgspec.msgpack.encode({"type": "Later", "id": 1})),
    "a message of the other side": framed(msgspec.msgpack.encode(messages.Sync(id=1))),
    "no message": framed(b"\xc1"),
    "nothing": framed(b""),
    "a field of another type": framed(msgspec.msgpack.encode({"type": "Synced", "id": "x"})),
    "more than a message": framed(msgspec.msgpack.encode(messages.Synced(id=1)) + b"\0"),
    "a size without bounds": b"\xff\xff\xff\xff",
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_ends_the_connection(name: str) -> None:
    """What came before it counts, what comes after it does not."""
    peer, wire, got, lost = made(worker_peer)
    peer.data_received(framed(msgspec.msgpack.encode(messages.Synced(id=7))) + UNREADABLE[name] + frames())
    assert got == [messages.Synced(id=7)]
    assert wire.closed
    assert not peer.send(messages.Sync(id=1))
    peer.connection_lost(None)
    assert lost == [True]
    assert not peer.send(messages.Sync(id=1))


def test_unknown_fields_are_no_error() -> None:
    """The other end may be of a later version."""
    peer, _, got, _ = made(worker_peer)
    peer.data_received(framed(msgspec.msgpack.encode({"type": "Synced", "id": 1, "later": True})))
    assert got == [messages.Synced(id=1)]


async def answers(conn: Conn) -> None:
    while True:
        await conn.request()
        conn.send(OK)


def tables(*urls: str | None, version: int = 9) -> messages.Tables:
    targets = [messages.TargetValue(id=f"target:m{number}", url=url) for number, url in enumerate(urls)]
    routes = [messages.RouteValue(name="m", targets=tuple(one.id for one in targets))]
    return messages.Tables(version=version, whole=True, targets=targets, routes=routes)


async def test_an_unknown_model_is_asked_for_before_it_is_refused(linked: LinkLab) -> None:
    """A route that comes with the answer is used."""
    upstream = await linked.lab.upstream(answers)

    def script(message: Any, peer: Peer[Any]) -> None:
        if isinstance(message, messages.Sync):
            peer.send(tables(upstream.url))
            peer.send(messages.Synced(id=message.id))

    linked.control.script = script
    client = await linked.lab.client()
    assert (await client.ask(chat())).body == b"ok"
    assert len(linked.control.of(messages.Sync)) == 1
    assert (await client.ask(chat())).body == b"ok"
    assert len(linked.control.of(messages.Sync)) == 1, "a known model is not asked for"


async def test_a_model_that_does_not_exist_is_a_404_after_one_question(linked: LinkLab) -> None:
    def script(message: Any, peer: Peer[Any]) -> None:
        if isinstance(message, messages.Sync):
            peer.send(tables(None))
            peer.send(messages.Synced(id=message.id))

    linked.control.script = script
    client = await linked.lab.client()
    answer = await client.ask(chat(b'{"model": "mm"}'))
    assert answer.status == 404
    assert "Did you mean m?" in json.loads(answer.body)["error"]["message"]
    assert len(linked.control.of(messages.Sync)) == 1


async def test_a_control_process_that_does_not_answer_a_question(
    linked: LinkLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_SYNC_SECONDS", 0.05)
    client = await linked.lab.client()
    assert (await client.ask(chat())).status == 404
    linked.control.send(messages.Synced(id=linked.control.of(messages.Sync)[0].id))  # too late


async def test_the_client_goes_while_the_control_process_is_asked(
    linked: LinkLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_SYNC_SECONDS", 0.1)
    client = await linked.lab.client()
    client.send(chat())
    await linked.lab.until(lambda: linked.control.of(messages.Sync))
    client.close()
    await linked.lab.until(lambda: not linked.link._syncing)


async def test_the_link_is_lost_during_a_question(linked: LinkLab) -> None:
    client = await linked.lab.client()
    client.send(chat())
    await linked.lab.until(lambda: linked.control.of(messages.Sync))
    linked.control.peers[0].close()
    assert (await client.answer()).status == 404
    await linked.connected(2)


async def cold(linked: LinkLab) -> Client:
    linked.control.send(tables(None))
    await linked.lab.until(lambda: "m" in linked.lab.plane.table.routes)
    client = await linked.lab.client()
    client.send(chat())
    await linked.lab.until(lambda: linked.control.of(messages.Activate))
    return client


async def test_a_cold_target_is_waited_for_and_counted_before_it_is_taken(linked: LinkLab) -> None:
    upstream = await linked.lab.upstream(answers)
    client = await cold(linked)
    asked = linked.control.of(messages.Activate)[0]
    linked.control.send(messages.Activated(id=asked.id, target=messages.TargetValue(id="target:m0", url=upstream.url)))
    assert (await client.answer()).body == b"ok"
    await linked.lab.until(lambda: linked.control.got[-1] == messages.Counts(running={"target:m0": 0}))
    assert linked.control.got[-3:-1] == [messages.Counts(running={"target:m0": 1}), messages.Taken(id=asked.id)]


async def test_a_target_that_is_asked_again_and_again_is_told_once(
    linked: LinkLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_QUIET_SECONDS", 0.5)
    upstream = await linked.lab.upstream(answers)
    linked.control.send(tables(upstream.url))
    client = await linked.lab.client()
    for _ in range(20):
        client.send(chat())
        assert (await client.answer()).status == 200
    await linked.lab.until(lambda: len(linked.control.of(messages.Counts)) > 1)
    told = [messages.Counts(running={"target:m0": 1}), messages.Counts(running={"target:m0": 0})]
    assert linked.control.of(messages.Counts) == told


async def test_what_nobody_stops_for_being_idle_is_not_counted(linked: LinkLab) -> None:
    upstream = await linked.lab.upstream(answers)
    told = tables(upstream.url)
    linked.control.send(
        msgspec.structs.replace(told, targets=[msgspec.structs.replace(one, counted=False) for one in told.targets])
    )
    client = await linked.lab.client()
    client.send(chat())
    assert (await client.answer()).status == 200
    await asyncio.sleep(0.1)
    assert linked.control.of(messages.Counts) == []


async def test_a_cold_target_that_cannot_be_had(linked: LinkLab) -> None:
    client = await cold(linked)
    asked = linked.control.of(messages.Activate)[0]
    linked.control.send(
        messages.Refused(id=asked.id, code="not-ready", message="no memory", details={"retry_after": 7})
    )
    answer = await client.answer()
    assert (answer.status, answer.get(b"retry-after")) == (503, b"7")
    assert b"no memory" in answer.body


async def test_the_client_goes_while_it_waits_for_a_cold_target(linked: LinkLab) -> None:
    upstream = await linked.lab.upstream(answers)
    client = await cold(linked)
    asked = linked.control.of(messages.Activate)[0]
    client.close()
    await linked.lab.until(lambda: linked.control.got[-1] == messages.Abandon(id=asked.id))
    linked.control.send(messages.Activated(id=asked.id, target=messages.TargetValue(id="target:m0", url=upstream.url)))
    await linked.lab.until(lambda: len(linked.control.of(messages.Abandon)) == 2)
    assert upstream.requests == []


async def test_the_link_is_lost_while_a_cold_target_is_waited_for(linked: LinkLab) -> None:
    client = await cold(linked)
    linked.control.peers[0].close()
    answer = await client.answer()
    assert (answer.status, answer.get(b"retry-after")) == (503, b"2")
    await linked.connected(2)


@pytest.mark.parametrize("again", [False, True], ids=["gone", "made again"])
async def test_a_target_that_is_removed_while_it_is_waited_for(linked: LinkLab, again: bool) -> None:
    client = await cold(linked)
    asked = linked.control.of(messages.Activate)[0]
    linked.control.send(messages.Tables(version=10, whole=True))
    if again:
        linked.control.send(tables(None, version=11))
    linked.control.send(messages.Activated(id=asked.id, target=messages.TargetValue(id="target:m0", url="http://h:1")))
    assert (await client.answer()).status == 503
    await linked.lab.until(lambda: linked.control.of(messages.Abandon))


async def test_a_cold_target_without_a_control_process(linked: LinkLab) -> None:
    client = await cold(linked)
    linked.control.stop()
    assert (await client.answer()).status == 503
    assert (await client.ask(chat())).status == 503


async def test_warm_requests_go_on_without_a_control_process(linked: LinkLab) -> None:
    upstream = await linked.lab.upstream(answers)
    linked.control.send(tables(upstream.url))
    await linked.lab.until(lambda: "m" in linked.lab.plane.table.routes)
    linked.control.stop()
    await linked.lab.until(lambda: linked.link._peer is None)
    client = await linked.lab.client()
    for _ in range(3):
        assert (await client.ask(chat())).body == b"ok"
    await linked.control.start()
    await linked.connected(2)


async def test_an_unreadable_message_leads_to_a_new_connection(linked: LinkLab) -> None:
    wire = linked.control.peers[0]._transport
    assert wire is not None
    wire.write(UNREADABLE["an unknown tag"])
    await linked.connected(2)


async def test_a_closed_target_is_asked_for_again(linked: LinkLab) -> None:
    upstream = await linked.lab.upstream(answers)
    linked.control.send(tables(upstream.url))
    await linked.lab.until(lambda: "m" in linked.lab.plane.table.routes)
    client = await linked.lab.client()
    assert (await client.ask(chat())).body == b"ok"
    linked.control.send(messages.Close(target="target:m0"))
    await linked.lab.until(lambda: linked.control.of(messages.Closed))
    assert linked.control.of(messages.Closed) == [messages.Closed(target="target:m0", running=0)]
    assert linked.lab.target().idle == []
    client.send(chat(JSON))
    await linked.lab.until(lambda: linked.control.of(messages.Activate))
    asked = linked.control.of(messages.Activate)[0]
    linked.control.send(messages.Activated(id=asked.id, target=messages.TargetValue(id="target:m0", url=upstream.url)))
    assert (await client.answer()).body == b"ok"


async def test_an_adapter_is_asked_for_by_its_route(linked: LinkLab) -> None:
    upstream = await linked.lab.upstream(answers)

    def told(*models: str) -> messages.Tables:
        whole = tables(upstream.url, upstream.url)
        (route,) = whole.routes
        route = msgspec.structs.replace(route, models=models, adapters=("sql", "sql"))
        return msgspec.structs.replace(whole, routes=[route])

    def script(message: Any, peer: Peer[Any]) -> None:
        if isinstance(message, messages.Activate):
            loaded = told("", "sql@1")
            peer.send(loaded)
            peer.send(messages.Activated(id=message.id, target=loaded.targets[1]))

    linked.control.script = script
    linked.control.send(told("", ""))
    await linked.lab.until(lambda: linked.lab.plane.table.routes)
    client = await linked.lab.client()
    assert (await client.ask(chat())).body == b"ok"
    (asked,) = linked.control.of(messages.Activate)
    assert (asked.target, asked.route, asked.tried) == ("target:m0", "m", ())
    assert len(linked.control.of(messages.Taken)) == 1
    assert json.loads(upstream.requests[0].body)["model"] == "sql@1"


async def test_names_in_use_are_reported_and_their_end_is_told(
    linked: LinkLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_COUNTS_SECONDS", 0.02)
    release = asyncio.Event()

    async def held(conn: Conn) -> None:
        await conn.request()
        await release.wait()
        conn.send(OK)
        await conn.ended()

    upstream = await linked.lab.upstream(held)
    whole = tables(upstream.url)
    route = msgspec.structs.replace(whole.routes[0], models=("sql@1",), adapters=("sql",))
    linked.control.send(msgspec.structs.replace(whole, routes=[route]))
    await linked.lab.until(lambda: linked.lab.plane.table.routes)
    linked.control.send(messages.Leave(id=1, target="target:m0", model="sql@1"))
    await linked.lab.until(lambda: linked.control.of(messages.Left) == [messages.Left(id=1)])
    client = await linked.lab.client()
    client.send(chat())
    await linked.lab.until(lambda: upstream.requests)
    linked.control.send(messages.Leave(id=2, target="target:m0", model="sql@1"))
    linked.control.send(messages.Leave(id=3, target="target:m0", model="sql@1"))
    linked.control.send(messages.Leave(id=4, target="target:gone", model="sql@1"))
    await linked.lab.until(lambda: messages.Left(id=4) in linked.control.got)
    release.set()
    assert (await client.answer()).body == b"ok"
    await linked.lab.until(lambda: messages.Left(id=3) in linked.control.got)
    assert messages.Left(id=2) in linked.control.got, "two commands may wait for one adapter"
    in_use = messages.InUse(models={"target:m0": ["sql@1"]})
    await linked.lab.until(lambda: in_use in linked.control.got)


async def test_where_a_start_is_is_kept_until_the_target_opens(linked: LinkLab) -> None:
    linked.lab.tell(None)
    target = linked.lab.target()
    linked.control.send(messages.Loading(target="target:m0", loading={"phase": "weights"}))
    linked.control.send(messages.Loading(target="target:gone", loading={}))
    await linked.lab.until(lambda: target.loading)
    assert linked.lab.plane.table.routes["m"].loading == {"phase": "weights"}
    target.set(messages.TargetValue(id="target:m0", url="http://127.0.0.1:1"))
    assert target.loading == {}


async def test_responses_are_told_to_the_others_and_heard_of(linked: LinkLab) -> None:
    linked.lab.tell(None)
    linked.lab.plane.stored("resp_1", linked.lab.target(), "m")
    await linked.lab.until(lambda: linked.control.of(messages.Stored))
    assert linked.control.of(messages.Stored) == [messages.Stored(id="resp_1", target="target:m0", model="m")]
    linked.control.send(messages.Stored(id="resp_2", target="target:m1", model="n"))
    await linked.lab.until(lambda: len(linked.lab.plane.responses) == 2)
    assert linked.lab.plane.responses.find("resp_2") == StoredAt("target:m1", "n")


async def test_how_long_a_request_waits_is_asked_with_it(linked: LinkLab) -> None:
    linked.lab.tell(None, route={"queue": QueueValue(loading=77.0)})
    client = await linked.lab.client()
    client.send(chat())
    await linked.lab.until(lambda: linked.control.of(messages.Activate))
    (asked,) = linked.control.of(messages.Activate)
    assert 70 < asked.seconds <= 77
    client.close()
    await linked.lab.quiet()
