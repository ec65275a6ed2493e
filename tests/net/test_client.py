"""The HTTP client: what it sends, what it takes, what it refuses, and what it never repeats."""

import asyncio
import gc
import json
import os
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from served import Certify, StartRaw, StartSim

from garrison.fleet.values.target import TargetSpec
from garrison.net import client as http_module
from garrison.net import resolver as resolver_module
from garrison.net.client import HttpDialer, Origin, origin_of
from garrison.net.endpoint import Secret, Tls
from garrison.net.errors import TransportCause, transport_error
from garrison.net.resolver import Resolver
from garrison.net.transport import Answer, TransportError

pytestmark = pytest.mark.system


def spec(base_url: str, **options: Any) -> TargetSpec:
    return TargetSpec(name="edge", base_url=base_url, **options)


def ok(body: bytes = b"ok", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def ask(target: TargetSpec, *, method: str = "GET", **options: Any) -> Answer:
    async with HttpDialer().open(target) as connection:
        return await connection.request(method, "/v1/models", **({"timeout": 5.0} | options))


async def refused(target: TargetSpec, **options: Any) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await ask(target, **options)
    return caught.value


ORIGINS = {
    "http://h": Origin(False, "h", 80, "", "h"),
    "https://h": Origin(True, "h", 443, "", "h"),
    "http://h:8000": Origin(False, "h", 8000, "", "h:8000"),
    "http://h:8000/a/b/": Origin(False, "h", 8000, "/a/b", "h:8000"),
    "http://[::1]:8000": Origin(False, "::1", 8000, "", "[::1]:8000"),
    "https://10.0.0.2": Origin(True, "10.0.0.2", 443, "", "10.0.0.2"),
}


@pytest.mark.parametrize(("url", "origin"), ORIGINS.items(), ids=ORIGINS.keys())
def test_origin(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:8000",
        "ftp://h",
        "http://",
        "http://h\r\nx: y",
        "http://h:x",
        "http://[::1",
        "http://u:s3cr3t@h",
        "http://h h",
    ],
)
async def test_no_origin(url: str) -> None:
    with pytest.raises(ValueError):
        origin_of(url)
    error = await refused(spec(url))
    assert error.cause is TransportCause.LOCAL
    assert "s3cr3t" not in error.detail


# --- what is sent


async def test_a_get(start_raw: StartRaw) -> None:
    server = await start_raw(ok(b"body", b"X-Kind: one", b"x-kind: two"))
    answer = await ask(spec(server.url + "/prefix"))
    assert answer == Answer(200, b"body", {"content-length": "4", "x-kind": "one, two"})
    assert server.heard == [
        b"GET /prefix/v1/models HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept: */*\r\naccept-encoding: identity\r\n\r\n"
        % server.port
    ]


async def test_a_post(start_raw: StartRaw) -> None:
    server = await start_raw(ok())
    await ask(spec(server.url), method="POST", json={"lora_name": "ä"})
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    assert json.loads(body) == {"lora_name": "ä"}
    assert b"content-type: application/json\r\ncontent-length: %d" % len(body) in head


async def test_key_and_headers(start_raw: StartRaw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_KEY", "k3y")
    monkeypatch.setenv("TEAM_KEY", "t3am")
    server = await start_raw(ok())
    headers = {"Host": "models.test", "X-Team": Secret("env", "TEAM_KEY"), "x-plain": "a b"}
    await ask(spec(server.url, api_key=Secret("env", "EDGE_KEY"), headers=headers))
    lines = server.heard[0].split(b"\r\n")
    assert b"authorization: Bearer k3y" in lines
    assert b"X-Team: t3am" in lines
    assert b"x-plain: a b" in lines
    assert [line for line in lines if line.lower().startswith(b"host:")] == [b"Host: models.test"]


UNSENDABLE: dict[str, dict[str, Any]] = {
    "line-break": {"headers": {"x-a": "1\r\nx-b: 2"}},
    "nul": {"headers": {"x-a": "1\0"}},
    "not-latin": {"headers": {"x-a": "键"}},
    "bad-name": {"headers": {"x a": "1"}},
    "injected-name": {"headers": {"x:1\r\ny": "1"}},
    "ours": {"headers": {"Content-Length": "1"}},
    "secret-with-line-break": {"api_key": Secret("env", "BROKEN_KEY")},
    "secret-not-set": {"api_key": Secret("env", "NO_KEY")},
}


@pytest.mark.parametrize("options", UNSENDABLE.values(), ids=UNSENDABLE.keys())
async def test_unsendable_headers(options: Any, start_raw: StartRaw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKEN_KEY", "k3y\r\nx-b: 2")
    monkeypatch.delenv("NO_KEY", raising=False)
    server = await start_raw(ok())
    error = await refused(spec(server.url, **options))
    assert (error.cause, error.sent) == (TransportCause.LOCAL, False)
    assert "k3y" not in error.detail
    assert server.connections == 0


async def test_a_redirect_is_not_followed_and_proxies_are_not_asked(
    start_raw: StartRaw, monkeypatch: pytest.MonkeyPatch
) -> None:
    thief, proxy = await start_raw(ok()), await start_raw(ok())
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    monkeypatch.setenv("EDGE_KEY", "k3y")
    server = await start_raw(b"HTTP/1.1 307 x\r\nlocation: %b/\r\ncontent-length: 0\r\n\r\n" % thief.url.encode())
    answer = await ask(spec(server.url, api_key=Secret("env", "EDGE_KEY")))
    assert (answer.status, thief.heard, proxy.heard) == (307, [], [])


# --- what is taken

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
TAKEN: dict[str, tuple[bytes, bytes]] = {
    "chunked": (CHUNKED + b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", b"abcde"),
    "until-the-end": (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
    "http-1.0": (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
    "early-hints-first": (b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + ok(b"abc"), b"abc"),
    "empty": (ok(b""), b""),
    "just-the-limit": (ok(b"x" * 1000), b"x" * 1000),
}


@pytest.mark.parametrize(("raw", "body"), TAKEN.values(), ids=TAKEN.keys())
async def test_taken(start_raw: StartRaw, raw: bytes, body: bytes) -> None:
    server = await start_raw(raw)
    answer = await ask(spec(server.url), limit=1000)
    assert (answer.status, answer.body, answer.headers.get("link")) == (200, body, None)


REFUSED: dict[str, tuple[bytes | None, TransportCause]] = {
    "larger-than-the-limit": (ok(b"x" * 1001), TransportCause.MALFORMED),
    "larger-in-chunks": (
        CHUNKED + b"300\r\n" + b"x" * 768 + b"\r\n" + b"300\r\n" + b"x" * 768,
        TransportCause.MALFORMED,
    ),
    "larger-until-the-end": (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001, TransportCause.MALFORMED),
    "endless-trailer": (CHUNKED + b"0\r\n" + b"x-a: b\r\n" * 20_000, TransportCause.MALFORMED),
    "two-lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc", TransportCause.MALFORMED),
    "no-number": (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\nabc", TransportCause.MALFORMED),
    "tls-alert": (b"\x15\x03\x03\x00\x02\x02\x28", TransportCause.TLS),
    "cut-chunks": (CHUNKED + b"5\r\nab", TransportCause.RESET),
    "nothing": (None, TransportCause.RESET),
}


@pytest.mark.parametrize(("raw", "cause"), REFUSED.values(), ids=REFUSED.keys())
async def test_refused(start_raw: StartRaw, raw: bytes | None, cause: TransportCause) -> None:
    server = await start_raw(raw)
    error = await refused(spec(server.url), limit=1000)
    assert (error.cause, error.sent) == (cause, True)


async def test_an_endless_head(start_raw: StartRaw) -> None:
    server = await start_raw(b"HTTP/1.1 200 OK\r\n" + b"x-a: b\r\n" * 20_000)
    error = await refused(spec(server.url))
    assert (error.cause, error.detail) == (TransportCause.MALFORMED, "the answer's head is larger than 65536 bytes")


async def test_a_drip_is_cut_off_at_the_deadline() -> None:
    ended = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"x-a: b\r\n")
            await asyncio.sleep(0.01)
        writer.close()
        ended.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        target = spec(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        error = await refused(target, timeout=0.2)
        await ended.wait()
    assert (error.cause, error.sent) == (TransportCause.TIMEOUT, True)


async def test_nobody_accepts(black_hole: int) -> None:
    error = await refused(spec(f"http://127.0.0.1:{black_hole}", timeout=0.2), method="POST")
    assert (error.cause, error.sent) == (TransportCause.TIMEOUT, False)


async def test_a_handshake_that_hangs(start_raw: StartRaw) -> None:
    server = await start_raw(...)
    error = await refused(spec(server.url.replace("http:", "https:"), timeout=1.0))
    assert (error.cause, error.sent) == (TransportCause.TIMEOUT, False)


async def test_no_descriptors_left(start_raw: StartRaw, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await start_raw(ok())

    async def no_more(*_: Any, **__: Any) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", no_more)
    error = await refused(spec(server.url))
    assert (error.cause, error.detail, error.sent) == (TransportCause.LOCAL, "too many open files", False)


def test_words_for_what_the_system_says() -> None:
    causes = {
        socket.gaierror(-2, "Name or service not known"): TransportCause.DNS,
        ConnectionRefusedError(111, "x"): TransportCause.REFUSED,
        OSError(113, "No route to host"): TransportCause.REFUSED,
        OSError(101, "Network is unreachable"): TransportCause.REFUSED,
        TimeoutError(110, "x"): TransportCause.TIMEOUT,
        ConnectionResetError(104, "x"): TransportCause.RESET,
        ConnectionResetError(): TransportCause.RESET,
        BrokenPipeError(32, "x"): TransportCause.RESET,
        ssl.SSLError(1, "x"): TransportCause.TLS,
        PermissionError(13, "x"): TransportCause.LOCAL,
        OSError(99, "x"): TransportCause.LOCAL,
    }
    assert {error: transport_error(error, sent=False).cause for error in causes} == causes


# --- one connection for several requests


async def test_requests_share_a_connection(start_raw: StartRaw) -> None:
    server = await start_raw(ok(b"1"), ok(b"2"), ok(b"3"))
    async with HttpDialer().open(spec(server.url)) as connection:
        bodies = [(await connection.request("GET", f"/{at}", timeout=5)).body for at in range(3)]
    assert (bodies, server.connections) == ([b"1", b"2", b"3"], 1)


CLOSING = {
    "said": ok(b"1", b"connection: close"),
    "http-1.0": b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n1",
    "unasked-bytes": ok(b"1") + ok(b"2"),
}


@pytest.mark.parametrize("first", CLOSING.values(), ids=CLOSING.keys())
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_connection_that_ends_is_not_used_again(start_raw: StartRaw, first: bytes, method: str) -> None:
    server = await start_raw(first)
    async with HttpDialer().open(spec(server.url)) as connection:
        for _ in range(2):
            assert (await connection.request(method, "/", json={}, timeout=5)).body == b"1"
    assert server.connections == 2


async def test_closed_between_two_requests(start_raw: StartRaw) -> None:
    """Seen to be closed: whatever comes next goes over a new one."""
    server = await start_raw(ok())
    async with HttpDialer().open(spec(server.url)) as connection:
        await connection.request("GET", "/", timeout=5)
        await asyncio.sleep(0.05)
        await connection.request("POST", "/", json={}, timeout=5)
    assert (server.connections, len(server.heard)) == (2, 2)


async def test_closed_at_the_second_request(start_raw: StartRaw) -> None:
    """Closed while the request is under way: a GET is sent again, a POST may have acted and is not."""
    server = await start_raw(ok(), None)
    async with HttpDialer().open(spec(server.url)) as connection:
        await connection.request("GET", "/", timeout=5)
        await connection.request("GET", "/", timeout=5)
        assert (server.connections, len(server.heard)) == (2, 3)
        with pytest.raises(TransportError) as caught:
            await connection.request("POST", "/", json={}, timeout=5)
        assert (caught.value.cause, caught.value.sent) == (TransportCause.RESET, True)
        assert len(server.heard) == 4
        await connection.request("POST", "/", json={}, timeout=5)  # and the connection can be used on


async def test_an_answer_that_had_begun_is_not_asked_for_again(start_raw: StartRaw) -> None:
    server = await start_raw(ok(), b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
    async with HttpDialer().open(spec(server.url)) as connection:
        await connection.request("GET", "/", timeout=5)
        with pytest.raises(TransportError) as caught:
            await connection.request("GET", "/", timeout=5)
    assert (caught.value.cause, len(server.heard)) == (TransportCause.RESET, 2)


async def test_an_idle_connection_is_opened_anew(start_raw: StartRaw, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await start_raw(ok(), ok())
    async with HttpDialer().open(spec(server.url)) as connection:
        await connection.request("GET", "/", timeout=5)
        monkeypatch.setattr(http_module, "_IDLE_SECONDS", 0.0)
        await connection.request("POST", "/", json={}, timeout=5)
    assert server.connections == 2


async def test_a_renewed_secret_is_used_at_once(start_sim: StartSim, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("old\n")
    now = [0.0]
    sim = await start_sim(api_keys=("old",))
    from garrison.net.secrets import Secrets

    dialer = HttpDialer(secrets=Secrets(monotonic=lambda: now[0]))
    target = spec(sim.url, api_key=Secret("file", str(key)))
    async with dialer.open(target) as connection:
        assert (await connection.request("GET", "/v1/models", timeout=5)).status == 200
    await sim.stop()
    sim = await start_sim(api_keys=("new",))
    target = spec(sim.url, api_key=Secret("file", str(key)))
    async with dialer.open(target) as connection:
        now[0] += 10
        assert (await connection.request("GET", "/v1/models", timeout=5)).status == 401
        assert sim.counters.requests["/v1/models"] == 1  # it reads as before: asking again would say nothing new
        key.write_text("new\n")
        now[0] += 10
        assert (await connection.request("GET", "/v1/models", timeout=5)).status == 200
        key.unlink()
        now[0] += 100
        with pytest.raises(TransportError) as caught:
            await connection.request("GET", "/v1/models", timeout=5)
    assert caught.value.cause is TransportCause.LOCAL


async def test_client_certificates(start_raw: StartRaw, certify: Certify) -> None:
    good, client = certify("good"), certify("client")
    context = good.server()
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(client.cert)
    server = await start_raw(ok(), tls=context)
    url = server.url.replace("http:", "https:")
    tls = Tls(ca=good.cert, cert=client.cert, key=client.key)
    assert (await ask(spec(url, tls=tls))).status == 200
    error = await refused(spec(url, tls=Tls(ca=good.cert)))
    assert error.cause in (TransportCause.TLS, TransportCause.RESET)


# --- nothing is left behind


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_open(
    start_sim: StartSim, start_raw: StartRaw, certify: Certify, black_hole: int
) -> None:
    good = certify("good")
    sim = await start_sim()
    secure = await start_sim(ssl_certfile=good.cert, ssl_keyfile=good.key)
    silent = await start_raw(...)
    dialer = HttpDialer()
    targets = [
        spec(sim.url),
        spec(secure.url, tls=Tls(ca=good.cert)),
        spec(secure.url),
        spec(silent.url),
        spec(silent.url.replace("http:", "https:"), timeout=0.1),
        spec(f"http://127.0.0.1:{black_hole}", timeout=0.1),
    ]

    async def one(target: TargetSpec) -> None:
        try:
            async with dialer.open(target) as connection:
                await connection.request("GET", "/v1/models", timeout=0.1)
        except TransportError:
            pass

    async def settled(count: Callable[[], int], most: int) -> bool:
        for _ in range(100):
            gc.collect()
            if count() <= most:
                return True
            await asyncio.sleep(0.02)
        return False

    await asyncio.gather(*map(one, targets))
    await asyncio.sleep(0.1)
    files, tasks = descriptors(), len(asyncio.all_tasks())
    for _ in range(5):
        await asyncio.gather(*map(one, targets))
        working = [asyncio.create_task(one(target)) for target in targets]
        await asyncio.sleep(0.005)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    assert await settled(descriptors, files)
    assert await settled(lambda: len(asyncio.all_tasks()), tasks)


# --- names


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands in for the system's resolver: host to addresses, an error, or an event to wait for."""
    known: dict[str, Any] = {"asked": []}

    def look_up(host: str) -> tuple[str, ...]:
        known["asked"].append(host)
        found = known[host]
        if isinstance(found, threading.Event):
            found.wait(10)
            return ("10.0.0.9",)
        if isinstance(found, OSError):
            raise found
        return tuple(found)

    monkeypatch.setattr(resolver_module, "_look_up", look_up)
    return known


async def test_the_address_that_answers_is_tried_first(names: dict[str, Any], start_raw: StartRaw) -> None:
    server = await start_raw(ok())
    names["edge.test"] = ["::1", "127.0.0.1"]
    dialer = HttpDialer()
    for _ in range(2):
        async with dialer.open(spec(f"http://edge.test:{server.port}")) as connection:
            assert (await connection.request("GET", "/", timeout=5)).status == 200
    assert dialer.resolver.fresh("edge.test") == ("127.0.0.1", "::1")
    assert names["asked"] == ["edge.test"]
    assert server.heard[0].split(b"\r\n")[1] == b"host: edge.test:%d" % server.port


async def test_the_first_address_leaves_time_for_the_second(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch, start_raw: StartRaw
) -> None:
    server = await start_raw(ok())
    names["edge.test"] = ["192.0.2.1", "127.0.0.1"]
    loop = asyncio.get_running_loop()
    connect = loop.create_connection

    async def swallow(factory: Any, host: str, port: int, **options: Any) -> Any:
        if host == "192.0.2.1":
            await asyncio.Event().wait()
        return await connect(factory, host, port, **options)

    monkeypatch.setattr(loop, "create_connection", swallow)
    assert (await ask(spec(f"http://edge.test:{server.port}", timeout=0.4))).status == 200


async def test_a_name_that_hangs_holds_up_no_other(names: dict[str, Any], start_raw: StartRaw) -> None:
    server = await start_raw(ok())
    hang = threading.Event()
    names |= {"edge.test": ["127.0.0.1"]} | {f"dead-{at}.test": hang for at in range(40)}
    dialer = HttpDialer()

    async def one(host: str) -> TransportCause | int:
        try:
            async with dialer.open(spec(f"http://{host}:{server.port}", timeout=0.3)) as connection:
                return (await connection.request("GET", "/", timeout=5)).status
        except TransportError as error:
            return error.cause

    dead = [asyncio.create_task(one(f"dead-{at % 40}.test")) for at in range(80)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(0.2):
        assert await one("edge.test") == 200
    assert set(await asyncio.gather(*dead)) == {TransportCause.DNS}
    assert len(names["asked"]) == 41  # once each, however many ask
    hang.set()


async def test_an_old_address_serves_while_the_resolver_is_down(
    names: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = Resolver()
    names["edge.test"] = ["127.0.0.1"]
    assert await resolver.addresses("edge.test") == ("127.0.0.1",)
    monkeypatch.setattr(resolver_module, "_FRESH_SECONDS", 0.0)
    monkeypatch.setattr(resolver_module, "_PATIENCE_SECONDS", 0.05)
    assert resolver.fresh("edge.test") is None
    hang = names["edge.test"] = threading.Event()
    assert await resolver.addresses("edge.test") == ("127.0.0.1",)
    hang.set()
    names["gone.test"] = socket.gaierror(-2, "Name or service not known")
    with pytest.raises(socket.gaierror):
        await resolver.addresses("gone.test")


async def test_a_body_that_is_not_text_fails_on_this_side() -> None:
    path = os.fsdecode(b"/models/caf\xe9")
    error = await refused(spec("http://127.0.0.1:9"), method="POST", json={"lora_path": path})
    assert (error.cause, error.sent) == (TransportCause.LOCAL, False)
