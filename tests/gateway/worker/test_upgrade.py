"""Another protocol after an upgrade, to the control process and to a target: bytes pass both ways as they are."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest
from gateway_lab import OK, Conn, GatewayLab, Script, Upstream

from garrison.gateway.link.route_settings import TimeoutsValue

_SIZE = 20 * 2**20
_HEADERS = b" HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@dataclass(frozen=True)
class Way:
    """Where an upgrade goes.

    Attributes:
        serve: runs a script there.
    """

    serve: Callable[[Script], Awaitable[Upstream]]
    path: bytes

    @property
    def request(self) -> bytes:
        return b"GET " + self.path + _HEADERS + b"\r\n"


@pytest.fixture(params=["control", "target"])
def way(lab: GatewayLab, request: pytest.FixtureRequest) -> Way:
    if request.param == "control":
        return Way(lab.control, b"/api/v1/ws")
    return Way(lambda script: lab.serve(script, engine="custom"), b"/upstream/m/v1/realtime?a=b")


async def echoes(conn: Conn) -> None:
    """Switch, greet, and echo; `end` ends it."""
    await conn.request()
    conn.send(SWITCHED + b"hello")
    while (data := await conn.reader.read(65536)) not in (b"", b"end"):
        conn.send(data)
        await conn.writer.drain()


async def test_an_upgrade(lab: GatewayLab, way: Way) -> None:
    upstream = await way.serve(echoes)
    client = await lab.client()
    switched = await client.ask(way.request)
    assert (switched.status, switched.get(b"upgrade"), switched.get(b"connection")) == (101, b"websocket", b"Upgrade")
    assert await client.reader.readexactly(5) == b"hello"
    for data in (b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)), b"x" * 300_000):
        client.send(data)
        assert await client.reader.readexactly(len(data)) == data
    asked = upstream.requests[0]
    assert (asked.get(b"upgrade"), asked.get(b"connection")) == (b"websocket", b"upgrade")
    client.send(b"end")
    assert await client.rest() == b""
    await lab.quiet()


@pytest.mark.parametrize(("aborts", "outcome"), [(False, "ok"), (True, "cut-off")])
async def test_a_target_that_ends_it_in_order_has_not_broken_off(lab: GatewayLab, aborts: bool, outcome: str) -> None:
    async def script(conn: Conn) -> None:
        await echoes(conn)
        if aborts:
            conn.send(b"x" * 2**20)
            conn.reset()

    lab.plane.finished.wanted = True
    await lab.serve(script, engine="custom")
    client = await lab.client()
    await client.ask(b"GET /upstream/m/v1/realtime" + _HEADERS + b"\r\n")
    await client.reader.readexactly(5)
    client.send(b"end")
    await client.rest()
    await lab.quiet()
    (one,), _ = lab.plane.finished.take()
    assert (one.status, one.outcome) == (101, outcome)


async def test_bytes_that_come_with_the_upgrade(lab: GatewayLab, way: Way) -> None:
    await way.serve(echoes)
    client = await lab.client()
    client.send(way.request + b"early")
    assert (await client.answer()).status == 101
    assert await client.reader.readexactly(10) == b"helloearly"
    client.close()


async def test_the_client_closes_an_upgraded_connection(lab: GatewayLab, way: Way) -> None:
    """What it sent last still arrives."""
    may_read = asyncio.Event()
    received = 0

    async def waits(conn: Conn) -> None:
        nonlocal received
        await conn.request()
        conn.send(SWITCHED)
        conn.writer.transport.pause_reading()
        await may_read.wait()
        conn.writer.transport.resume_reading()
        while data := await conn.reader.read(65536):
            received += len(data)

    await way.serve(waits)
    client = await lab.client()
    assert (await client.ask(way.request)).status == 101
    (inbound,) = lab.plane.inbound
    transport = inbound.work._upstream._transport
    sent = 0
    while not transport.get_write_buffer_size():
        client.send(bytes(16_384))
        sent += 16_384
        await asyncio.sleep(0.002)
    client.close()
    await lab.until(lambda: not lab.plane.inbound)
    may_read.set()
    await lab.until(lambda: received == sent, told=lambda: f"{received} of {sent} bytes arrived")


async def test_the_client_resets_an_upgraded_connection(lab: GatewayLab, way: Way) -> None:
    async def reads(conn: Conn) -> None:
        await conn.request()
        conn.send(SWITCHED)
        await conn.ended()

    upstream = await way.serve(reads)
    client = await lab.client()
    assert (await client.ask(way.request)).status == 101
    client.reset()
    await lab.until(lambda: upstream.ended_at, 0.1)


async def test_an_upgraded_connection_is_read_no_faster_than_its_other_end(lab: GatewayLab, way: Way) -> None:
    may_read = asyncio.Event()
    received = 0

    async def waits(conn: Conn) -> None:
        nonlocal received
        await conn.request()
        conn.send(SWITCHED)
        conn.writer.transport.pause_reading()
        await may_read.wait()
        conn.writer.transport.resume_reading()
        while data := await conn.reader.read(2**20):
            received += len(data)

    await way.serve(waits)
    client = await lab.client()
    assert (await client.ask(way.request)).status == 101
    client.send(bytes(_SIZE))
    await asyncio.sleep(0.2)
    assert client.writer.transport.get_write_buffer_size() > _SIZE / 4
    may_read.set()
    await lab.until(lambda: received == _SIZE, 10)
    client.close()


async def refuses(conn: Conn) -> None:
    await conn.request()
    conn.send(OK)
    await conn.ended()


async def test_an_upgrade_that_is_refused(lab: GatewayLab, way: Way) -> None:
    await way.serve(refuses)
    client = await lab.client()
    answer = await client.ask(way.request)
    assert (answer.status, answer.body, answer.get(b"connection")) == (200, b"ok", b"close")


def to_target(*headers: bytes, path: bytes = b"/upstream/m/v1/realtime") -> bytes:
    """An upgrade that is for a target."""
    return b"GET " + path + _HEADERS + b"".join(one + b"\r\n" for one in headers) + b"\r\n"


async def test_what_a_target_is_told(lab: GatewayLab) -> None:
    upstream = await lab.serve(echoes, engine="custom")
    client = await lab.client()
    head = to_target(b"Authorization: Bearer " + lab.KEY.encode(), b"X-A: b", path=b"/upstream/m/v1/realtime?model=x")
    switched = await client.ask(head)
    asked = upstream.requests[0]
    assert asked.start == b"GET /v1/realtime?model=x HTTP/1.1"
    assert asked.get(b"authorization") == b"Bearer " + lab.ENGINE_KEY.encode()
    assert (asked.get(b"x-a"), asked.get(b"sec-websocket-key")) == (b"b", b"k")
    assert asked.get(b"x-request-id") == switched.get(b"x-request-id") is not None
    client.close()


@pytest.mark.parametrize(
    ("engine", "path", "status"),
    [
        ("vllm", b"/v1/realtime", 101),
        ("vllm", b"/v1/chat/completions", 404),
        ("vllm", b"/metrics", 404),
        ("llama_cpp", b"/v1/realtime", 404),
        ("custom", b"/v1/anything", 101),
        ("custom", b"/ws", 404),
        ("custom", b"/v1/../ws", 400),
    ],
)
async def test_where_an_upgrade_may_go(lab: GatewayLab, engine: str, path: bytes, status: int) -> None:
    upstream = await lab.serve(echoes, engine=engine)
    client = await lab.client()
    assert (await client.ask(to_target(path=b"/upstream/m" + path))).status == status
    assert len(upstream.requests) == (status == 101)
    client.close()


async def test_without_a_key_nothing_is_switched(lab: GatewayLab) -> None:
    lab.set(open_inference=False)
    upstream = await lab.serve(echoes, engine="custom")
    assert (await (await lab.client()).ask(to_target())).status == 401
    assert upstream.requests == []


async def test_a_cold_target_is_started_for_it(lab: GatewayLab) -> None:
    upstream = await lab.upstream(echoes)
    lab.tell(None, engine="custom")
    client = await lab.client()
    client.send(to_target())
    await lab.until(lambda: lab.link.waiting)
    ((_, exchange),) = lab.link.waiting.values()
    lab.tell(upstream.url, engine="custom")
    lab.link.waiting.clear()
    exchange.activated()
    assert (await client.answer()).status == 101
    assert lab.target().running == 1, "it is in use until one side closes"
    client.close()
    await lab.quiet()


async def test_a_target_that_is_lost_before_it_has_switched_is_replaced(lab: GatewayLab) -> None:
    async def leaves(conn: Conn) -> None:
        await conn.request()

    upstreams = [await lab.upstream(leaves), await lab.upstream(echoes)]
    lab.tell(*(one.url for one in upstreams), engine="custom", policy="pin")
    client = await lab.client()
    assert (await client.ask(to_target())).status == 101
    assert [len(one.requests) for one in upstreams] == [1, 1]
    client.close()


async def test_the_target_ends_it(lab: GatewayLab) -> None:
    async def leaves(conn: Conn) -> None:
        await conn.request()
        conn.send(SWITCHED + b"last words")

    await lab.serve(leaves, engine="custom")
    client = await lab.client()
    assert (await client.ask(to_target())).status == 101
    assert await client.rest() == b"last words"
    await lab.quiet()


async def test_one_that_is_silent_for_too_long_is_ended(lab: GatewayLab) -> None:
    upstream = await lab.serve(echoes, engine="custom")
    client = await lab.client()
    assert (await client.ask(to_target())).status == 101
    await client.reader.readexactly(5)
    (inbound,) = lab.plane.inbound
    inbound.work.deadline = 1.0
    client.send(b"still here")
    assert await client.reader.readexactly(10) == b"still here"
    assert inbound.work.deadline > lab.plane.now(), "what passes puts it off"
    inbound.work.deadline = lab.plane.now() - 1
    lab.sweep()
    await lab.until(lambda: not inbound.work)
    assert await client.rest() == b""
    await lab.until(lambda: upstream.connections[0].reader.at_eof())


async def test_an_upgrade_says_who_asked_and_whether_it_comes_back(lab: GatewayLab) -> None:
    lab.set(forwarded="set", via="garrison-me")
    upstream = await lab.serve(echoes, engine="custom", foreign=True)
    client = await lab.client()
    request = b"GET /upstream/m/v1/realtime" + _HEADERS + b"X-Forwarded-For: 10.9.9.9\r\n"
    assert (await client.ask(request + b"\r\n")).status == 101
    assert upstream.requests[0].all(b"via") == [b"1.1 garrison-me"]
    assert upstream.requests[0].all(b"x-forwarded-for") == [b"127.0.0.1"]
    assert (await (await lab.client()).ask(request + b"Via: 1.1 garrison-me\r\n\r\n")).status == 508
    client.close()
    await lab.quiet()


@pytest.mark.parametrize("times", [{"whole": 0.1}, {"between_bytes": 0.1}])
async def test_an_upgrade_ends_when_its_route_says(
    lab: GatewayLab, times: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.gateway.worker.sweeping._SWEEP_SECONDS", 0.01)
    lab.sweep()
    upstream = await lab.upstream(echoes)
    lab.tell(upstream.url, engine="custom", route={"timeouts": TimeoutsValue(**times)})
    client = await lab.client()
    client.send(b"GET /upstream/m/v1/realtime" + _HEADERS + b"\r\n")
    assert b"hello" in await client.rest()
    await lab.quiet()
