import asyncio
import ssl
from collections.abc import Callable

import httpx2
import pytest

from garrison.base.errors import EngineTimeoutError, InvalidError
from garrison.engines.engine import Endpoint
from garrison.launch.run.ready import Answer, Place, base_url, caller_url, origin, place, probe, wait_ready

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
    "node": "http://node",
}


@pytest.mark.parametrize(("url", "expected"), ORIGINS.items(), ids=ORIGINS)
def test_origin(url: str, expected: str) -> None:
    assert origin(url) == expected


NO_ORIGINS = ["", "http://", "ftp://x", "unix:///run/x.sock", "http://x:99999", "http://x:0", "http://x:abc", "http://[::1",
              "http:///v1", "http://a b", "::1", "http://x\n"]  # fmt: skip


@pytest.mark.parametrize("url", NO_ORIGINS, ids=[repr(url) for url in NO_ORIGINS])
def test_no_origin(url: str) -> None:
    with pytest.raises(InvalidError) as caught:
        origin(url)
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


def test_place() -> None:
    assert place("unix:/run/v.sock") == Place("http://localhost", "/run/v.sock")
    assert str(place("unix:/run/v.sock")) == "unix:/run/v.sock"
    assert place("https://node/serve/v1") == Place("https://node/serve")
    for odd in ("unix:run/v.sock", "unix:", "unix://node/x"):
        with pytest.raises(InvalidError):
            place(odd)


def _wrapped(inner: BaseException) -> httpx2.ConnectError:
    """As httpx2 raises it: an error of one name in another, and the cause among the arguments."""
    error = httpx2.ConnectError("because")
    error.__cause__ = Exception(inner)
    return error


TLS = {
    "not trusted": (ssl.SSLCertVerificationError(1, "x"), "its certificate is not trusted", False),
    "wrong version": (ssl.SSLError(1, "wrong version number"), "TLS handshake", True),
    "reset": (ConnectionResetError(), "TLS handshake", True),
}


@pytest.mark.parametrize(("cause", "reason", "unsure"), TLS.values(), ids=TLS)
async def test_a_failed_handshake_is_not_silence(cause: BaseException, reason: str, unsure: bool) -> None:
    if isinstance(cause, ssl.SSLCertVerificationError):
        cause.verify_message = "self-signed certificate"

    def handle(_: httpx2.Request) -> httpx2.Response:
        raise _wrapped(cause)

    async with httpx2.AsyncClient(base_url="https://x", transport=httpx2.MockTransport(handle)) as client:
        answer = await probe(client, "/health")
    assert (answer.ready, answer.heard, answer.unsure) == (False, True, unsure)
    assert reason in answer.reason


@pytest.mark.parametrize(
    ("alert", "reason"),
    [
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "it talks only to clients with a certificate"),
        ("SSLV3_ALERT_BAD_CERTIFICATE", "it ends the TLS connection: SSLV3_ALERT_BAD_CERTIFICATE"),
    ],
)
async def test_an_alert_after_the_handshake_is_an_answer(alert: str, reason: str) -> None:
    def handle(_: httpx2.Request) -> httpx2.Response:
        error = ssl.SSLError(1, f"[SSL: {alert}] alert")
        error.reason = alert
        raise error

    async with httpx2.AsyncClient(base_url="https://x", transport=httpx2.MockTransport(handle)) as client:
        answer = await probe(client, "/health")
    assert (answer, answer.heard, answer.unsure) == (Answer(False, reason), True, True)


async def test_a_refused_connection_is_silence_however_it_is_wrapped() -> None:
    def handle(_: httpx2.Request) -> httpx2.Response:
        raise _wrapped(ConnectionRefusedError(111, "Connection refused"))

    async with httpx2.AsyncClient(base_url="https://x", transport=httpx2.MockTransport(handle)) as client:
        answer = await probe(client, "/health")
    assert (answer, answer.heard) == (Answer(False, "nothing listens"), False)


Handler = Callable[[httpx2.Request], httpx2.Response]


def answering(**statuses: int) -> Handler:
    """`health=200, models=404` and so on; 404 for the rest."""
    paths = {"/health": "health", "/v1/models": "models"}
    return lambda request: httpx2.Response(statuses.get(paths.get(request.url.path, ""), 404))


def raising(error: type[httpx2.HTTPError]) -> Handler:
    def handle(request: httpx2.Request) -> httpx2.Response:
        raise error("because", request=request)

    return handle


PROBES: dict[str, tuple[Handler, Answer]] = {
    "200": (answering(health=200), Answer(True, "/health answers 200")),
    "503 is loading": (answering(health=503), Answer(False, "loading (HTTP 503)")),
    "500": (answering(health=500), Answer(False, "/health answers 500")),
    "502 of a proxy": (answering(health=502), Answer(False, "/health answers 502")),
    "307": (answering(health=307), Answer(False, "/health answers 307")),
    "404, then models": (answering(models=200), Answer(True, "/v1/models answers 200")),
    "404, then models with a key": (answering(models=401), Answer(True, "/v1/models asks for a key")),
    "404, then models forbidden": (answering(models=403), Answer(True, "/v1/models asks for a key")),
    "404 both": (answering(), Answer(False, "/v1/models answers 404")),
    "404, then models loading": (answering(models=503), Answer(False, "loading (HTTP 503)")),
    "nothing listens": (raising(httpx2.ConnectError), Answer(False, "nothing listens")),
    "timeout": (raising(httpx2.ReadTimeout), Answer(False, "no answer within 5 s")),
    "connect timeout": (raising(httpx2.ConnectTimeout), Answer(False, "no answer within 5 s")),
    "cut": (raising(httpx2.RemoteProtocolError), Answer(False, "RemoteProtocolError: because")),
    "reset": (raising(httpx2.ReadError), Answer(False, "ReadError: because")),
}


@pytest.mark.parametrize(("handler", "answer"), PROBES.values(), ids=PROBES)
async def test_probe(handler: Handler, answer: Answer) -> None:
    async with httpx2.AsyncClient(base_url="http://x", transport=httpx2.MockTransport(handler)) as client:
        assert await probe(client, "/health") == answer


async def test_other_loading_statuses() -> None:
    async with httpx2.AsyncClient(base_url="http://x", transport=httpx2.MockTransport(answering(health=500))) as client:
        assert await probe(client, "/health", frozenset({500})) == Answer(False, "loading (HTTP 500)")


async def test_models_as_the_path_itself() -> None:
    async with httpx2.AsyncClient(base_url="http://x", transport=httpx2.MockTransport(answering())) as client:
        assert await probe(client, "/v1/models") == Answer(False, "/v1/models answers 404")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.launch.run.ready._POLL_SECONDS", 0.001)


async def test_wait_until_ready(no_waiting: None) -> None:
    answers = iter([503, 503, 503, 500, 200])
    said: list[str] = []
    found = await wait_ready(
        "x:1/v1",
        timeout=5,
        on_change=said.append,
        transport=httpx2.MockTransport(lambda _: httpx2.Response(next(answers))),
    )
    assert found == Answer(True, "/health answers 200")
    assert said == ["loading (HTTP 503)", "/health answers 500"]


async def test_wait_gives_up_at_the_deadline(no_waiting: None) -> None:
    with pytest.raises(EngineTimeoutError) as caught:
        await wait_ready("x:1", timeout=0.02, transport=httpx2.MockTransport(answering(health=503)))
    assert caught.value.message == "http://x:1 was not ready within 0.02 s: loading (HTTP 503)"
    assert caught.value.details == {"url": "http://x:1", "reason": "loading (HTTP 503)"}
    assert int(caught.value.exit_code) == 22


async def test_a_timeout_of_zero_asks_once(no_waiting: None) -> None:
    assert (await wait_ready("x:1", timeout=0, transport=httpx2.MockTransport(answering(health=200)))).ready
    with pytest.raises(EngineTimeoutError):
        await wait_ready("x:1", timeout=0, transport=httpx2.MockTransport(answering(health=503)))


async def test_an_endpoint_that_never_answers_does_not_hold_the_deadline(no_waiting: None) -> None:
    async def hang(_: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    async with asyncio.timeout(5):
        with pytest.raises(EngineTimeoutError, match="no answer"):
            await wait_ready("x:1", timeout=0.02, transport=httpx2.MockTransport(hang))


async def test_wait_refuses_no_address() -> None:
    with pytest.raises(InvalidError):
        await wait_ready("ftp://x", timeout=1)


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch, no_waiting: None) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    transport = httpx2.MockTransport(answering(health=200))
    assert (await wait_ready("127.0.0.1:1", timeout=1, transport=transport)).ready
