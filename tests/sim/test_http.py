"""The HTTP layer against clients that are clumsy, slow, rude or gone."""

import asyncio
import socket
import subprocess
from pathlib import Path

import pytest

from garrison.sim.http.messages import Response, head

from .client import DEADLINE, Client, call, request_bytes, until
from .conftest import Start

PLAIN = {"model": "acme/tiny", "prompt": "hi there", "max_tokens": 3}


async def test_keep_alive(start: Start) -> None:
    sim = await start()
    client = await Client.open(sim)
    for _ in range(3):
        assert (await client.call("GET", "/health")).status == 200
    await client.close()
    assert sim.accepted_connections == 1


async def test_connection_close_is_honoured(start: Start) -> None:
    client = await Client.open(await start())
    reply = await client.call("GET", "/health", headers={"Connection": "close"})
    assert reply.headers["connection"] == "close"
    assert await client.reader.read() == b""
    await client.close()


async def test_http_1_0(start: Start) -> None:
    client = await Client.open(await start())
    await client.send(b"GET /version HTTP/1.0\r\n\r\n")
    assert (await client.reply()).json == {"version": "0.32.0"}
    assert await client.reader.read() == b""
    await client.close()


async def test_stream_to_http_1_0_is_ended_by_closing(start: Start) -> None:
    client = await Client.open(await start())
    raw = request_bytes("POST", "/v1/completions", PLAIN | {"stream": True})
    await client.send(raw.replace(b"HTTP/1.1", b"HTTP/1.0"))
    reply = await client.reply()
    assert "transfer-encoding" not in reply.headers
    assert reply.events[-1] == "[DONE]"
    await client.close()


@pytest.mark.parametrize(
    "raw",
    [b"\x16\x03\x01\x02\x00garbage\r\n\r\n", b"GET\r\n\r\n", b"nonsense here\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"],
    ids=["tls hello", "no target", "no version", "wrong version"],
)
async def test_garbage(start: Start, raw: bytes) -> None:
    sim = await start()
    client = await Client.open(sim)
    await client.send(raw)
    reply = await client.reply()
    assert (reply.status, reply.body) == (400, b"Invalid HTTP request received.")
    assert await client.reader.read() == b""
    await client.close()
    assert (await call(sim, "GET", "/health")).status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ],
    ids=["length and chunks", "two lengths", "negative length"],
)
async def test_smuggling_is_refused(start: Start, raw: bytes) -> None:
    client = await Client.open(await start())
    await client.send(raw)
    assert (await client.reply()).status == 400
    await client.close()


@pytest.mark.parametrize("shape", ["one header", "many headers", "target", "never ending"])
async def test_huge_head(start: Start, shape: str) -> None:
    sim = await start(max_head_bytes=4096)
    client = await Client.open(sim)
    filler = {
        "one header": b"GET /health HTTP/1.1\r\nX: " + b"x" * 8000 + b"\r\n\r\n",
        "many headers": b"GET /health HTTP/1.1\r\n" + b"X: 0123456789\r\n" * 800 + b"\r\n",
        "target": b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\n\r\n",
        "never ending": b"GET /health HTTP/1.1\r\nX: " + b"x" * 8000,
    }
    await client.send(filler[shape])
    assert (await client.reply()).status == 431
    await client.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_huge_body(start: Start, chunked: bool) -> None:
    sim = await start(max_body_bytes=1000)
    client = await Client.open(sim)
    start_line = b"POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
    if chunked:
        await client.send(start_line + b"Transfer-Encoding: chunked\r\n\r\n" + b"400\r\n" + b"x" * 1024 + b"\r\n")
    else:
        await client.send(start_line + b"Content-Length: 2000\r\n\r\n" + b"x" * 2000)
    assert (await client.reply()).status == 413
    await client.close()


async def test_chunked_body(start: Start) -> None:
    client = await Client.open(await start())
    body = request_bytes("POST", "/v1/completions", PLAIN).partition(b"\r\n\r\n")[2]
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:9], body[9:]))
    fields = b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(b"POST /v1/completions HTTP/1.1\r\n" + fields + pieces + b"0\r\n\r\n")
    assert (await client.reply()).status == 200
    await client.close()


async def test_expect_100_continue(start: Start) -> None:
    client = await Client.open(await start())
    headed, _, body = request_bytes("POST", "/v1/completions", PLAIN, {"Expect": "100-continue"}).partition(b"\r\n\r\n")
    await client.send(headed + b"\r\n\r\n")
    assert (await client.head())[0] == 100
    await client.send(body)
    assert (await client.reply()).status == 200
    await client.close()


async def test_expect_with_a_body_too_large_is_refused_at_once(start: Start) -> None:
    client = await Client.open(await start(max_body_bytes=10))
    headed = request_bytes("POST", "/v1/completions", PLAIN, {"Expect": "100-continue"}).partition(b"\r\n\r\n")[0]
    await client.send(headed + b"\r\n\r\n")
    assert (await client.reply()).status == 413
    await client.close()


async def test_head_is_not_allowed_and_has_no_body(start: Start) -> None:
    client = await Client.open(await start())
    reply = await client.call("HEAD", "/health")
    assert (reply.status, reply.headers["allow"]) == (405, "GET")
    assert (await client.call("GET", "/health")).status == 200
    await client.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("DELETE", "/v1/models", 405),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/models/", 307),
        ("GET", "/health?x=1", 200),
        ("GET", "http://elsewhere/health", 200),
    ],
)
async def test_routing(start: Start, method: str, path: str, status: int) -> None:
    reply = await call(await start(), method, path)
    assert reply.status == status
    if status == 307:
        assert reply.headers["location"] == "http://sim/v1/models"


async def test_a_byte_at_a_time(start: Start) -> None:
    client = await Client.open(await start())
    for byte in request_bytes("POST", "/v1/completions", PLAIN):
        await client.send(bytes([byte]))
        await asyncio.sleep(0)
    assert (await client.reply()).status == 200
    await client.close()


async def test_a_stalled_request_is_given_up(start: Start) -> None:
    sim = await start(head_timeout=0.05)
    client = await Client.open(sim)
    await client.send(b"GET /health HTTP/1.1\r\nHost: s")
    assert (await client.reply()).status == 408
    await client.close()
    await until(lambda: sim.open_connections == 0)


async def test_an_idle_connection_is_closed(start: Start) -> None:
    sim = await start(keep_alive_timeout=0.05)
    client = await Client.open(sim)
    assert (await client.call("GET", "/health")).status == 200
    async with asyncio.timeout(DEADLINE):
        assert await client.reader.read() == b""
    await client.close()


async def test_pipelining_keeps_the_order(start: Start) -> None:
    client = await Client.open(await start())
    streamed = request_bytes("POST", "/v1/completions", PLAIN | {"stream": True})
    await client.send(streamed + request_bytes("GET", "/version") + request_bytes("GET", "/health") + streamed)
    assert (await client.reply()).events[-1] == "[DONE]"
    assert (await client.reply()).json == {"version": "0.32.0"}
    assert (await client.reply()).body == b""
    assert (await client.reply()).events[-1] == "[DONE]"
    await client.close()


async def test_pipelining_behind_a_hang_is_bounded(start: Start) -> None:
    sim = await start(enable_sleep_mode=True, dev_mode=True)
    await call(sim, "POST", "/sleep")
    client = await Client.open(sim)
    client.writer.write(request_bytes("POST", "/v1/completions", PLAIN) * 200_000)
    await until(lambda: sim.counters.waiting == 1)
    (connection,) = (one for one in sim._http.connections if one._busy)
    assert connection._transport is not None
    await until(lambda: not connection._transport.is_reading())
    assert len(connection._queue) < 10_000  # no more than one read holds
    client.writer.transport.abort()


async def test_a_client_that_does_not_read_is_not_answered_for_ever(start: Start) -> None:
    sim = await start()
    client = await Client.open(sim, limit=1024)
    many = 50_000
    client.writer.write(request_bytes("GET", "/v1/models") * many)
    await until(lambda: sim._http.connections)
    (connection,) = sim._http.connections
    await until(lambda: connection._writable is not None)  # nothing more is answered until the client reads
    assert 0 < sim.counters.requests["/v1/models"] < many
    client.writer.transport.abort()
    await until(lambda: sim.open_connections == 0)


async def test_a_stream_waits_for_its_reader(start: Start) -> None:
    sim = await start(max_model_len=1_000_000)
    client = await Client.open(sim, limit=1024)
    body = PLAIN | {"stream": True, "max_tokens": 100_000, "ignore_eos": True}
    await client.send(request_bytes("POST", "/v1/completions", body))
    await until(lambda: sim.counters.running == 1)
    (connection,) = sim._http.connections
    await until(lambda: connection._writable is not None)
    assert connection._transport is not None
    held = connection._transport.get_write_buffer_size()
    for _ in range(100):
        await asyncio.sleep(0)
    assert connection._transport.get_write_buffer_size() == held
    assert sim.counters.running == 1
    client.writer.transport.abort()
    await until(lambda: sim.counters.running == 0)
    assert sim.counters.finished["abort"] == 1


async def test_an_upgrade_is_answered_as_plain_http(start: Start) -> None:
    client = await Client.open(await start())
    reply = await client.call("GET", "/version", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert reply.json == {"version": "0.32.0"}
    assert await client.reader.read() == b""
    await client.close()


async def test_stop_lets_requests_finish(start: Start) -> None:
    gate = asyncio.Event()

    async def held(_seconds: float) -> None:
        await gate.wait()

    from garrison.sim.faults import Faults

    sim = await start(sleep=held, faults=Faults(ttft=1))
    idle = await Client.open(sim)
    assert (await idle.call("GET", "/health")).status == 200
    running = asyncio.create_task(call(sim, "POST", "/v1/completions", PLAIN))
    await until(lambda: sim.counters.running == 1)
    stopping = asyncio.create_task(sim.stop(drain=DEADLINE))
    assert await idle.reader.read() == b""
    gate.set()
    reply = await running
    assert (reply.status, reply.headers["connection"]) == (200, "close")
    await stopping
    await idle.close()


async def test_stop_and_start_keep_the_port(start: Start) -> None:
    sim = await start()
    port = sim.port
    await sim.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await Client.open(sim)
    await sim.start()
    assert sim.port == port
    assert (await call(sim, "GET", "/health")).status == 200


async def test_port_taken(start: Start) -> None:
    sim = await start()
    with pytest.raises(OSError, match="Address already in use"):
        await start(port=sim.port)


async def test_ipv6(start: Start) -> None:
    sim = await start(host="::1")
    assert sim.url == f"http://[::1]:{sim.port}"
    assert (await call(sim, "GET", "/health")).status == 200
    assert (await call(sim, "GET", "/_sim")).status == 200


async def test_tls(start: Start, tmp_path: Path) -> None:
    import ssl

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*make.split(), "-keyout", key, "-out", cert, "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )
    sim = await start(ssl_certfile=str(cert), ssl_keyfile=str(key))
    assert sim.url.startswith("https://")
    trust = ssl.create_default_context(cafile=str(cert))
    assert (await call(sim, "GET", "/health", ssl=trust)).status == 200


@pytest.mark.parametrize("root", ["/serve", "/v1"])
async def test_a_root_path_answers_as_well(start: Start, root: str) -> None:
    """As FastAPI does: a path that begins with it is taken without it, and `/v1` hides the routes of that name."""
    sim = await start(root_path=root)
    for path, status in {
        "/health": 200,
        f"{root}/health": 200,
        f"{root}/v1/models": 200,
        "/v1/models": 404 if root == "/v1" else 200,
        f"{root}er/health": 404,
        root: 404,
    }.items():
        assert (await call(sim, "GET", path)).status == status, path


async def test_a_socket_file(start: Start, tmp_path: Path) -> None:
    path = str(tmp_path / "v.sock")
    await start(uds=path)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
    writer.close()
    with pytest.raises(OSError, match="in use"):
        await start(uds=path)


async def test_small_writes_are_not_held_back(start: Start) -> None:
    sim = await start()
    client = await Client.open(sim)
    await client.call("GET", "/health")
    (connection,) = sim._http.connections
    assert connection._transport is not None
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    await client.close()


def test_head_of_a_response() -> None:
    raw = head(Response(200, b"{}", "application/json"), "now", length=2, chunked=False, close=True)
    assert raw.split(b"\r\n")[0] == b"HTTP/1.1 200 OK"
    assert b"content-length: 2\r\n" in raw
    assert raw.endswith(b"connection: close\r\n\r\n")
