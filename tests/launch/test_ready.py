import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canned import StartCanned
from served import Certify, StartRaw

from garrison.base.errors import EngineTimeoutError, InvalidError
from garrison.engines.engine import Endpoint
from garrison.launch.run.address import Place, base_url, caller_url, place
from garrison.launch.run.ready import Answer, no_answer, probe, wait_ready
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Server, Tls
from garrison.net.errors import PLAIN_NOT_TLS, TransportCause, TransportError
from garrison.net.origin import origin_of

ORIGINS = {
    "localhost:8000": "http://localhost:8000",
    "localhost:8000/v1": "http://localhost:8000",
    "localhost:8000/v1/": "http://localhost:8000",
    "http://localhost:8000": "http://localhost:8000",
    "http://localhost:8000/": "http://localhost:8000",
    "http://localhost:8000/v1": "http://localhost:8000",
    "https://node.example": "https://node.example",
    "https://node.example/serve/v1": "https://node.example/serve",
    "http://127.0.0.1:8000/v1?x=1#y": "http://127.0.0.1:8000",
    "http://[::1]:8000/v1": "http://[::1]:8000",
    "[::1]:8000": "http://[::1]:8000",
    "node:8000": "http://node:8000",
    "http://node": "http://node",
    "node.example": "http://node.example",
    "node.example.:1": "http://node.example.:1",
    "localhost": "http://localhost",
    "127.0.0.1": "http://127.0.0.1",
    "[::1]": "http://[::1]",
    "8123": "http://127.0.0.1:8123",
    ":8123": "http://127.0.0.1:8123",
    "8123/v1": "http://127.0.0.1:8123",
    ":8123/serve/v1": "http://127.0.0.1:8123/serve",
}


@pytest.mark.parametrize(("url", "expected"), ORIGINS.items(), ids=ORIGINS)
def test_origin(url: str, expected: str) -> None:
    assert place(url) == Place(expected)


NO_ORIGINS = ["", "http://", "ftp://x", "unix:run/x.sock", "http://x:99999", "http://x:0", "http://x:abc", "http://[::1",
              "http:///v1", "http://a b", "::1", "http://x\n", "0", "70000", ":",
              "notaurl", "node/v1", "node?x", "./node", "a..b:8000", "http://.x", "..:1"]  # fmt: skip


@pytest.mark.parametrize("url", NO_ORIGINS, ids=[repr(url) for url in NO_ORIGINS])
def test_no_origin(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        place(url)
    assert repr(url) in caught.value.message
    assert "http://host:port" in str(caught.value.hint)


BASES = [
    (Endpoint("127.0.0.1", 1), "http://127.0.0.1:1"),
    (Endpoint("0.0.0.0", 1), "http://127.0.0.1:1"),
    (Endpoint("", 1), "http://127.0.0.1:1"),
    (Endpoint("::", 1), "http://[::1]:1"),
    (Endpoint("::1", 1), "http://[::1]:1"),
    (Endpoint("node", 1), "http://node:1"),
    (Endpoint("0:0:0:0:0:0:0:0", 1), "http://[::1]:1"),
    (Endpoint("127.0.0.1", 1, tls=True), "https://127.0.0.1:1"),
    (Endpoint("::", 1, tls=True, prefix="/serve"), "https://[::1]:1/serve"),
    (Endpoint("0.0.0.0", 1, prefix="/a/b"), "http://127.0.0.1:1/a/b"),
    (Endpoint("node", 1, "/run/v.sock"), "http://localhost"),
    (Endpoint("node", 1, "/run/v.sock", tls=True, prefix="/x"), "https://localhost/x"),
]


@pytest.mark.parametrize(("endpoint", "url"), BASES, ids=[row[1] for row in BASES])
def test_base_url(endpoint: Endpoint, url: str) -> None:
    assert base_url(endpoint) == url


def test_a_socket_is_named_to_people() -> None:
    assert caller_url(Endpoint("node", 1, "/run/v.sock", tls=True)) == "unix:/run/v.sock"
    assert caller_url(Endpoint("node", 1, tls=True)) == "https://node:1"


def test_a_password_is_sent_and_not_shown() -> None:
    found = place("http://user:p%40ss@node:8000/v1")
    assert (found.url, found.basic) == ("http://node:8000", "Basic dXNlcjpwQHNz")
    assert "ss" not in str(found) + repr(found)


def test_a_name_that_is_not_ascii() -> None:
    assert place("http://münchen.example:8000").url == "http://xn--mnchen-3ya.example:8000"


def test_place() -> None:
    assert place("unix:/run/v.sock") == Place("http://localhost", "/run/v.sock")
    assert str(place("unix:/run/v.sock")) == "unix:/run/v.sock"
    assert place("https://node/serve/v1") == Place("https://node/serve")
    for odd in ("unix:run/v.sock", "unix:", "unix://node/x"):
        with pytest.raises(InvalidError):
            place(odd)


CAUSES: dict[str, tuple[TransportError, bool, Answer, bool, bool]] = {
    "refused": (TransportError(TransportCause.REFUSED, "x"), False, Answer(False, "x"), False, False),
    "dns": (TransportError(TransportCause.DNS, "the name …"), False, Answer(False, "the name …"), False, False),
    "local": (TransportError(TransportCause.LOCAL, "no file"), False, Answer(False, "no file"), False, False),
    "timeout": (
        TransportError(TransportCause.TIMEOUT, "x"), False, Answer(False, "no answer within 5 s"), False, False,
    ),
    "reset in a handshake": (
        TransportError(TransportCause.RESET, "x"), True, Answer(False, "TLS handshake failed: x"),
        True, True,
    ),
    "an alert in a handshake": (
        TransportError(TransportCause.TLS, "TLS: x"), True, Answer(False, "TLS handshake failed: x"), True, True,
    ),
    "no TLS": (
        TransportError(TransportCause.TLS, PLAIN_NOT_TLS), True, Answer(False, "the server does not speak TLS"),
        True, True,
    ),
    "reset later": (
        TransportError(TransportCause.RESET, "cut", sent=True), True, Answer(False, "cut"), True, True,
    ),
    "alert": (
        TransportError(TransportCause.TLS, "TLS: tlsv13 alert certificate required", sent=True), True,
        Answer(False, "it requires a client certificate"), True, True,
    ),
    "another alert": (
        TransportError(TransportCause.TLS, "TLS: sslv3 alert bad certificate", sent=True), True,
        Answer(False, "the server closed the TLS connection: sslv3 alert bad certificate"), True, True,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("error", "tls", "expected", "heard", "unsure"), CAUSES.values(), ids=CAUSES)
def test_what_a_failure_means(error: TransportError, tls: bool, expected: Answer, heard: bool, unsure: bool) -> None:
    found = no_answer(error, timeout=5, tls=tls)
    assert (found, found.heard, found.unsure) == (expected, heard, unsure)


async def ask(url: str, path: str = "/health", *loading: int, timeout: float = 5.0, insecure: bool = True) -> Answer:
    server = Server(base_url=url, tls=Tls(insecure=insecure))
    async with HttpDialer().open(server) as connection:
        return await probe(connection, origin_of(url), path, frozenset(loading or (503,)), timeout=timeout)


Decide = Callable[[str, Any], Any]


def answering(**statuses: int) -> Decide:
    """`health=200, models=404` and so on; 404 for the rest."""
    paths = {"/health": "health", "/v1/models": "models"}
    return lambda path, _: statuses.get(paths.get(path, ""), 404)


PROBES: dict[str, tuple[Decide, Answer]] = {
    "200": (answering(health=200), Answer(True, "/health answers 200")),
    "503 is loading": (answering(health=503), Answer(False, "loading (HTTP 503)")),
    "500": (answering(health=500), Answer(False, "/health answers 500")),
    "502 of a proxy": (answering(health=502), Answer(False, "/health answers 502")),
    "307": (answering(health=307), Answer(False, "/health answers 307")),
    "404, then models": (answering(models=200), Answer(True, "/v1/models answers 200")),
    "404, then models with a key": (answering(models=401), Answer(True, "/v1/models requires a key")),
    "404, then models forbidden": (answering(models=403), Answer(True, "/v1/models requires a key")),
    "404 both": (answering(), Answer(False, "/v1/models answers 404")),
    "404, then models loading": (answering(models=503), Answer(False, "loading (HTTP 503)")),
    "timeout": (lambda *_: ..., Answer(False, "no answer within 0.3 s")),
    "cut": (lambda *_: None, Answer(False, "the connection was closed before the answer")),
    "cut in the middle": (
        lambda *_: b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nx",
        Answer(False, "no answer within 0.3 s"),
    ),
}


@pytest.mark.system
@pytest.mark.parametrize(("decide", "answer"), PROBES.values(), ids=PROBES)
async def test_probe(canned: StartCanned, decide: Decide, answer: Answer) -> None:
    assert await ask((await canned(decide)).url, timeout=0.3) == answer


@pytest.mark.system
class TestProbe:
    async def test_nothing_listens(self, refusing_port: int) -> None:
        found = await ask(f"http://127.0.0.1:{refusing_port}")
        assert (found, found.heard) == (Answer(False, "connection refused"), False)

    async def test_other_loading_statuses(self, canned: StartCanned) -> None:
        server = await canned(answering(health=500))
        assert await ask(server.url, "/health", 500) == Answer(False, "loading (HTTP 500)")

    async def test_a_status_that_means_it_is_dead(self, canned: StartCanned) -> None:
        """mlx_lm answers so once its generation thread has died."""
        server = await canned(answering(health=503))
        async with HttpDialer().open(Server(base_url=server.url)) as connection:
            found = await probe(connection, origin_of(server.url), "/health", frozenset(), frozenset({503}))
        assert (found.dead, found.reason) == (True, "/health answers 503, which will not change")

    async def test_models_as_the_path_itself(self, canned: StartCanned) -> None:
        server = await canned(answering())
        assert await ask(server.url, "/v1/models") == Answer(False, "/v1/models answers 404")
        assert server.paths == ["/v1/models"]

    async def test_a_prefix_is_named(self, canned: StartCanned) -> None:
        server = await canned(lambda *_: 418)
        assert await ask(server.url + "/serve") == Answer(False, "/serve/health answers 418")

    async def test_a_certificate_that_is_not_trusted(self, start_raw: StartRaw, certify: Certify) -> None:
        server = await start_raw(tls=certify("node").server())
        found = await ask(f"https://127.0.0.1:{server.port}", insecure=False)
        assert found == Answer(False, "the certificate is not trusted: self-signed certificate")
        assert (found.heard, found.unsure, found.http) == (True, False, False)

    async def test_tls_where_there_is_none(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            found = await ask(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert (found, found.unsure) == (Answer(False, "the server does not speak TLS"), True)


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.launch.run.ready._POLL_SECONDS", 0.001)


@pytest.mark.system
class TestWait:
    async def test_until_ready(self, canned: StartCanned, no_waiting: None) -> None:
        answers = iter([503, 503, 503, 500, 200])
        server = await canned(lambda *_: next(answers))
        said: list[str] = []
        found = await wait_ready(f"{server.url}/v1", timeout=5, on_change=said.append)
        assert found == Answer(True, "/health answers 200")
        assert said == ["loading (HTTP 503)", "/health answers 500"]

    async def test_gives_up_at_the_deadline(self, canned: StartCanned, no_waiting: None) -> None:
        server = await canned(answering(health=503))
        with pytest.raises(EngineTimeoutError) as caught:
            await wait_ready(server.url, timeout=0.2)
        assert caught.value.message == f"{server.url} was not ready within 0.2 s: loading (HTTP 503)"
        assert caught.value.details == {"url": server.url, "reason": "loading (HTTP 503)"}
        assert int(caught.value.exit_code) == 22

    async def test_a_timeout_of_zero_asks_once(self, canned: StartCanned, no_waiting: None) -> None:
        assert (await wait_ready((await canned(answering(health=200))).url, timeout=0)).ready
        with pytest.raises(EngineTimeoutError):
            await wait_ready((await canned(answering(health=503))).url, timeout=0)

    async def test_an_endpoint_that_never_answers_does_not_hold_the_deadline(
        self, canned: StartCanned, no_waiting: None
    ) -> None:
        server = await canned(lambda *_: ...)
        async with asyncio.timeout(5):
            with pytest.raises(EngineTimeoutError, match="no answer"):
                await wait_ready(server.url, timeout=0.02)

    async def test_proxies_of_the_environment_are_not_asked(
        self, canned: StartCanned, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
        assert (await wait_ready((await canned(answering(health=200))).url, timeout=1)).ready

    async def test_a_password_in_the_address_is_sent(self, canned: StartCanned) -> None:
        server = await canned(answering(health=200))
        await wait_ready(server.url.replace("//", "//user:pass@"), timeout=1)
        assert "authorization: Basic dXNlcjpwYXNz" in server.heads[0]

    async def test_plain_http_on_a_port_that_speaks_tls(
        self, start_raw: StartRaw, certify: Certify, no_waiting: None
    ) -> None:
        """This server only closes such a connection, as many do."""
        ok = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        server = await start_raw(*itertools.repeat(ok, 9), tls=certify("node").server())
        with pytest.raises(EngineTimeoutError) as caught:
            await wait_ready(server.url, timeout=0.3)
        assert caught.value.details["reason"] == f"the server speaks TLS; try https://127.0.0.1:{server.port}"
        assert "https://" in str(caught.value.hint)

    async def test_tls_on_a_port_that_speaks_plain_http(self, canned: StartCanned, no_waiting: None) -> None:
        """This server only closes such a connection, as many do."""
        url = (await canned(answering(health=200))).url
        with pytest.raises(EngineTimeoutError) as caught:
            await wait_ready(url.replace("http:", "https:"), timeout=0.3)
        assert caught.value.details["reason"] == f"the server does not speak TLS; try {url}"
        assert caught.value.hint == "Write the address with http://."

    @pytest.mark.parametrize(
        ("decide", "hint"),
        {
            "loading": (answering(health=503), "the engine's log shows its progress"),
            "broken": (answering(health=500), "Look at the server's log."),
            "another server": (answering(), "Check the address, and its path prefix if it has one."),
            "silent": (lambda *_: ..., "Check the address and any firewall, or wait longer with --timeout."),
            "cut": (lambda *_: None, "Check that this is the port of an HTTP server, and look at its log."),
        }.values(),
        ids=["loading", "broken", "another server", "silent", "cut"],
    )
    async def test_each_failure_has_its_own_next_step(
        self, canned: StartCanned, no_waiting: None, decide: Decide, hint: str
    ) -> None:
        with pytest.raises(EngineTimeoutError) as caught:
            await wait_ready((await canned(decide)).url, timeout=0.3)
        assert hint in str(caught.value.hint)

    async def test_a_socket_file(self, canned: StartCanned, tmp_path: Path) -> None:
        path = tmp_path / "v.sock"
        answers = iter([503, 200])

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % next(answers))
            writer.close()

        with pytest.raises(EngineTimeoutError, match=r"unix:.*: the socket does not exist"):
            await wait_ready(f"unix:{path}", timeout=0)
        async with await asyncio.start_unix_server(serve, path):
            assert (await wait_ready(f"unix:{path}", timeout=5)).ready

    async def test_ipv6(self, no_waiting: None) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            status = 200 if b"host: [::1]:" in head else 500
            writer.write(b"HTTP/1.1 %d X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n" % status)
            writer.close()

        async with await asyncio.start_server(serve, "::1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert (await wait_ready(f"[::1]:{port}", timeout=5)).ready


async def test_wait_refuses_no_address() -> None:
    with pytest.raises(InvalidError):
        await wait_ready("ftp://x", timeout=1)
