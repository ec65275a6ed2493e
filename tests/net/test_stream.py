"""Responses that are read as they arrive: held back, bounded, cut off, left early."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from served import Certify, StartRaw, StartSim

from garrison.net.client import HttpDialer, Response
from garrison.net.endpoint import Secret, Server, Tls
from garrison.net.errors import TransportCause, TransportError
from garrison.net.exchange import Exchange
from garrison.net.sse import server_events

pytestmark = pytest.mark.system

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[Server]:
    """A server that does `talk` on each connection once it has heard a request."""

    serving: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await talk(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield Server(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        if serving:
            _, late = await asyncio.wait(serving, timeout=5)
            assert not late


@contextlib.asynccontextmanager
async def streamed(server: Server, **options: Any) -> AsyncIterator[Response]:
    given = {"timeout": 5} | options
    async with HttpDialer().open(server) as connection, connection.stream("GET", "/", **given) as response:
        yield response


async def failure(server: Server, pause: float = 0, **options: Any) -> tuple[TransportError, bytes]:
    """What a stream failed with, after a pause before it was read, and what came before."""
    got = b""
    try:
        async with streamed(server, **options) as response:
            await asyncio.sleep(pause)
            if pause:
                assert response._exchange._transport is None
            async for piece in response:
                got += piece
    except TransportError as error:
        return error, got
    raise AssertionError("nothing failed")


async def test_pieces_come_as_they_are_sent() -> None:
    more = asyncio.Event()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"1\r\na\r\n")
        await more.wait()
        writer.write(b"1\r\nb\r\n0\r\n\r\n")

    async with serving(talk) as server, streamed(server) as response:
        assert (response.status, response.headers) == (200, {"transfer-encoding": "chunked"})
        pieces = aiter(response)
        assert await anext(pieces) == b"a"
        more.set()
        assert [piece async for piece in pieces] == [b"b"]


async def test_a_slow_reader_holds_the_server_back() -> None:
    sent = 0
    piece = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
    most = 64 * 2**20

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(CHUNKED)
        while sent < most:
            writer.write(piece)
            await writer.drain()
            sent += 65536
        writer.write(b"0\r\n\r\n")

    async with serving(talk) as server, streamed(server, timeout=60, limit=most) as response:
        before = -1
        while before != sent:  # until the buffers on the way are full
            before = sent
            await asyncio.sleep(0.1)
        exchange = response._exchange
        assert not exchange._transport.is_reading()
        assert exchange._buffered < 1024 * 1024
        assert 0 < sent < most
        assert len(await response.read()) == most


async def test_leaving_early_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED + b"1\r\na\r\n")
        with contextlib.suppress(OSError):
            await reader.read()
        gone.set()

    async with serving(talk) as server:
        async with streamed(server) as response:
            assert await anext(aiter(response)) == b"a"
        async with asyncio.timeout(5):
            await gone.wait()


@pytest.mark.parametrize("reading", [False, True], ids=["before the head", "in the body"])
async def test_a_cancelled_reader_closes_the_connection(reading: bool) -> None:
    heard, gone = asyncio.Event(), asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reading:
            writer.write(CHUNKED)
        heard.set()
        with contextlib.suppress(OSError):
            await reader.read()
        gone.set()

    async def read(server: Server) -> None:
        async with HttpDialer().open(server) as connection, connection.stream("GET", "/", timeout=5) as response:
            await response.read()

    async with serving(talk) as server:
        task = asyncio.create_task(read(server))
        await heard.wait()
        await asyncio.sleep(0.02)
        task.cancel()
        async with asyncio.timeout(5):
            await gone.wait()
        with pytest.raises(asyncio.CancelledError):
            await task


async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(CHUNKED)
    while not writer.is_closing():
        writer.write(b"1\r\na\r\n")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_the_deadline_is_for_the_whole_stream() -> None:
    async with serving(drip) as server:
        error, got = await failure(server, timeout=0.2)
    assert (error.cause, error.detail) == (TransportCause.TIMEOUT, "no answer within 0.2 s")
    assert got


async def test_the_deadline_passes_while_nobody_reads() -> None:
    """The connection ends then, and not when the consumer comes back."""
    async with serving(drip) as server:
        error, _ = await failure(server, pause=0.3, timeout=0.1)
    assert error.cause is TransportCause.TIMEOUT


async def test_the_bound_is_for_the_whole_stream() -> None:
    async with serving(drip) as server:
        error, got = await failure(server, limit=10)
    assert (error.cause, got) == (TransportCause.MALFORMED, b"a" * 10)


async def test_what_came_before_a_failure_is_given_first(start_raw: StartRaw) -> None:
    server = await start_raw(CHUNKED + b"3\r\nabc\r\n")
    error, got = await failure(Server(base_url=server.url))
    assert (error.cause, got) == (TransportCause.RESET, b"abc")


async def test_a_stream_read_to_its_end_leaves_its_connection(start_raw: StartRaw) -> None:
    server = await start_raw(OK, CHUNKED + b"1\r\na\r\n0\r\n\r\n", OK)
    async with HttpDialer().open(Server(base_url=server.url)) as connection:
        for body in (b"ok", b"a"):
            async with connection.stream("GET", "/", timeout=5) as response:
                assert await response.read() == body
        assert (await connection.request("GET", "/", timeout=5)).body == b"ok"
    assert server.connections == 1


async def test_a_request_beside_a_stream_gets_a_connection_of_its_own(start_raw: StartRaw) -> None:
    server = await start_raw(OK, OK)
    async with (
        HttpDialer().open(Server(base_url=server.url)) as connection,
        connection.stream("GET", "/", timeout=5) as response,
    ):
        assert (await connection.request("GET", "/", timeout=5)).body == b"ok"
        assert await response.read() == b"ok"
    assert server.connections == 2


async def test_an_answer_to_head_has_no_body(start_raw: StartRaw) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n"
    server = await start_raw(head, OK)
    async with HttpDialer().open(Server(base_url=server.url)) as connection:
        answer = await connection.request("HEAD", "/", timeout=5, limit=10)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"", "1000000")
        assert (await connection.request("GET", "/", timeout=5)).body == b"ok"
    assert server.connections == 1


async def test_a_renewed_secret_is_used_for_a_stream(start_sim: StartSim, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("old\n")
    now = [0.0]
    sim = await start_sim(api_keys=("new",))
    from garrison.net.secrets import Secrets

    dialer = HttpDialer(secrets=Secrets(monotonic=lambda: now[0]))
    server = Server(base_url=sim.url, api_key=Secret("file", str(key)))
    async with dialer.open(server) as connection:
        async with connection.stream("GET", "/v1/models", timeout=5) as response:
            assert response.status == 401
        now[0] += 10
        key.write_text("new\n")
        async with connection.stream("GET", "/v1/models", timeout=5) as response:
            assert response.status == 200
            assert b"acme/tiny" in await response.read()


async def test_events_of_a_chat(start_sim: StartSim) -> None:
    sim = await start_sim()
    body = {"model": "acme/tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5, "stream": True}
    async with (
        HttpDialer().open(Server(base_url=sim.url)) as connection,
        connection.stream("POST", "/v1/chat/completions", json=body, timeout=5) as response,
    ):
        events = [event.data async for event in server_events(response)]
    assert events[-1] == "[DONE]"
    assert len(events) > 5


# --- where a server can be


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_over_a_unix_socket(loop: str, tmp_path: Path) -> None:
    path = str(tmp_path / "engine.sock")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(head), head))
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = Server(base_url="http://localhost/prefix")
        async with (
            await asyncio.start_unix_server(serve, path),
            HttpDialer().open(server, uds=path) as connection,
        ):
            answer = await connection.request("GET", "/health", timeout=5)
            assert answer.body.startswith(b"GET /prefix/health HTTP/1.1\r\nhost: localhost\r\n")
        for missing, cause in {
            path + "x": TransportCause.REFUSED,
            str(tmp_path / ("x" * 200)): TransportCause.LOCAL,
        }.items():
            with pytest.raises(TransportError) as caught:
                async with HttpDialer().open(server, uds=missing) as connection:
                    await connection.request("GET", "/health", timeout=5)
            assert (caught.value.cause, caught.value.sent) == (cause, False)

    run(loop, main())


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_small_requests_are_not_held_back(loop: str) -> None:
    """With Nagle's algorithm on, every second small write waits 40 ms for an acknowledgement."""

    async def main() -> None:
        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(OK)
            await reader.read()

        async with serving(talk) as server, HttpDialer().open(server) as connection:
            await connection.request("GET", "/", timeout=5)
            exchange = connection._exchange
            assert isinstance(exchange, Exchange)
            sock = exchange._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(loop, main())


async def test_https_with_and_without_verification(start_raw: StartRaw, certify: Certify) -> None:
    good = certify("good")
    server = await start_raw(OK, OK, tls=good.server())
    url = server.url.replace("http:", "https:")
    for tls, expected in {
        Tls(ca=good.cert): 200,
        Tls(insecure=True): 200,
        Tls(): TransportCause.TLS,
        Tls(ca="/nowhere"): TransportCause.LOCAL,
    }.items():
        found: Any
        try:
            async with HttpDialer().open(Server(base_url=url, tls=tls)) as connection:
                found = (await connection.request("GET", "/", timeout=5)).status
        except TransportError as error:
            found = error.cause
        assert found == expected, tls


async def test_certificate_files_that_hang_hold_nothing_up(
    start_raw: StartRaw, certify: Certify, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file on a network mount may not answer; the loop goes on, and the deadline holds."""
    import threading

    hang = threading.Event()
    monkeypatch.setattr(ssl, "create_default_context", lambda **_: hang.wait(10))
    server = await start_raw(OK, tls=certify("good").server())
    endpoint = Server(base_url=server.url.replace("http:", "https:"), tls=Tls(ca="/mnt/ca"), timeout=0.2)
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.01)

    turning = asyncio.create_task(turn())
    with pytest.raises(TransportError) as caught:
        async with HttpDialer().open(endpoint) as connection:
            await connection.request("GET", "/", timeout=5)
    turning.cancel()
    hang.set()
    assert caught.value.cause is TransportCause.LOCAL
    assert "could not be read within 0.2 s" in caught.value.detail
    assert turns > 3


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/a b", b"/a%20b"),
        ("/ä", b"/%C3%A4"),
        ("/x HTTP/1.1\r\nx: y", b"/x%20HTTP/1.1%0D%0Ax:%20y"),
        ("/a%20b?c=d", b"/a%20b?c=d"),
    ],
)
async def test_a_path_stays_in_its_request_line(start_raw: StartRaw, path: str, target: bytes) -> None:
    server = await start_raw(OK)
    async with HttpDialer().open(Server(base_url=server.url)) as connection:
        await connection.request("GET", path, timeout=5)
    async with HttpDialer().open(Server(base_url=server.url + path.partition(" ")[0] + " b")) as connection:
        await connection.request("GET", "/v1", timeout=5)
    assert server.heard[0].startswith(b"GET %b HTTP/1.1\r\nhost: " % target)
    assert server.heard[1].split(b"\r\n")[0].count(b" ") == 2


def run(loop: str, work: Any) -> None:
    if loop == "uvloop":
        import uvloop

        uvloop.run(work)
    else:
        asyncio.run(work)
