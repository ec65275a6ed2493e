"""Is an endpoint ready? Asked of a starting engine, and of any OpenAI endpoint by `garrison wait`."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from garrison.base.errors import EngineTimeoutError
from garrison.launch.run.address import Place, place
from garrison.net.endpoint import Server, Tls
from garrison.net.errors import TLS_NOT_PLAIN, UNTRUSTED, TransportCause, TransportError
from garrison.net.origin import Origin, origin_of

if TYPE_CHECKING:
    from garrison.net.client import HttpConnection, HttpDialer
    from garrison.net.transport import Connection

__all__ = ["PROBE_SECONDS", "Answer", "no_answer", "open_place", "probe", "speaks_tls", "use_https", "wait_ready"]

PROBE_SECONDS = 5.0
"""For one question: once to connect, once more to answer."""
_POLL_SECONDS = 0.25
_HANDSHAKE = "it does not complete a TLS handshake"


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question to an endpoint showed.

    Attributes:
        reason: completes "not ready: …"; for a ready endpoint, what proved it.
        dead: it will never be ready.
        heard: something answered.
        unsure: it answered, and the answer proves neither that it is ready nor that it is not.
        http: it speaks HTTP, with TLS or without as it was asked.
        missing: it has no such path.
    """

    ready: bool
    reason: str
    dead: bool = False
    heard: bool = field(default=False, compare=False)
    unsure: bool = field(default=False, compare=False)
    http: bool = field(default=True, compare=False)
    missing: bool = field(default=False, compare=False)


async def probe(
    connection: "Connection",
    origin: Origin,
    path: str,
    loading: frozenset[int] = frozenset({503}),
    dead: frozenset[int] = frozenset(),
    *,
    timeout: float = PROBE_SECONDS,
) -> Answer:
    """GET `path` once. 200 means ready; where the path does not exist, a list of models is proof too.

    Args:
        origin: where the connection leads.
        loading: statuses that mean "not yet".
        dead: statuses that mean it will never be ready.
        timeout: seconds for an answer.
    """
    asked = path
    try:
        answer = await connection.request("GET", path, timeout=timeout)
        if answer.status == 404 and path != "/v1/models":
            asked = "/v1/models"
            answer = await connection.request("GET", asked, timeout=timeout)
            if answer.status in (401, 403):
                return Answer(True, "/v1/models asks for a key", heard=True)
    except TransportError as error:
        return no_answer(error, timeout=timeout, tls=origin.tls)
    asked, status = origin.prefix + asked, answer.status
    if status == 200:
        return Answer(True, f"{asked} answers 200", heard=True)
    if status in dead:
        return Answer(False, f"{path} answers {status}, which will not change", dead=True, heard=True)
    if status in loading:
        return Answer(False, f"loading (HTTP {status})", heard=True)
    return Answer(False, f"{asked} answers {status}", heard=True, unsure=status < 500, missing=status == 404)


def no_answer(error: TransportError, *, timeout: float, tls: bool) -> Answer:
    """What a failed request says about the endpoint."""
    match error.cause:
        case TransportCause.REFUSED:
            return Answer(False, "nothing listens")
        case TransportCause.DNS | TransportCause.LOCAL:
            return Answer(False, error.detail)
        case TransportCause.TIMEOUT:
            return Answer(False, f"no answer within {timeout:g} s")
        case TransportCause.TLS if error.detail.startswith(UNTRUSTED):
            return Answer(False, f"its{error.detail.removeprefix('the')}", heard=True, http=False)
    reason = error.detail
    if error.cause is TransportCause.TLS and error.detail == TLS_NOT_PLAIN:
        reason = "it speaks TLS, and was asked without"
    elif error.cause is TransportCause.TLS and error.sent:
        reason = _alert(error.detail)
    elif tls and not error.sent:
        reason = _HANDSHAKE
    return Answer(False, reason, heard=True, unsure=True, http=False)


def _alert(detail: str) -> str:
    """What a server said that ended an established TLS connection. TLS 1.3 rejects a client's certificate so late."""
    if "certificate required" in detail:
        return "it talks only to clients with a certificate"
    return f"it ends the TLS connection: {detail.removeprefix('TLS: ')}"


def open_place(
    dialer: "HttpDialer", where: Place, *, authorization: str | None = None, insecure: bool = False
) -> "HttpConnection":
    """A connection to an address that somebody named.

    Args:
        authorization: the header of that name; it wins over a password in the address.
        insecure: accept any certificate.
    """
    sent = authorization or where.basic
    headers = {"authorization": sent} if sent else {}
    server = Server(base_url=where.url, headers=headers, tls=Tls(insecure=insecure), timeout=PROBE_SECONDS)
    return dialer.open(server, uds=where.uds)


async def speaks_tls(dialer: "HttpDialer", where: Place) -> bool:
    """Whether a server that was asked for plain HTTP answers HTTP over TLS. It gets no key and no password.

    Some TLS servers only close a connection that begins without a handshake, so the plain attempt does not tell.
    """
    if not where.url.startswith("http:"):
        return False
    secured = Place(where.url.replace("http:", "https:", 1), where.uds)
    async with open_place(dialer, secured, insecure=True) as connection:
        answer = await probe(connection, origin_of(secured.url), "/health")
        return answer.heard and answer.http


def use_https(where: Place) -> str:
    """The reason to give when `speaks_tls`."""
    return "it speaks TLS" + ("" if where.uds else f"; use {where.url.replace('http:', 'https:', 1)}")


async def wait_ready(
    url: str,
    *,
    timeout: float,
    path: str = "/health",
    insecure: bool = False,
    on_change: Callable[[str], None] = lambda _: None,
) -> Answer:
    """Poll until the endpoint is ready.

    Args:
        timeout: seconds.
        insecure: accept any certificate.
        on_change: called with the reason each time it changes.

    Raises:
        EngineTimeoutError: it was not ready in time. Details: `url`, `reason`.
        InvalidError: `url` is not an address.
    """
    from garrison.net.client import HttpDialer

    target = place(url)
    dialer = HttpDialer()
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    last = ""
    async with open_place(dialer, target, insecure=insecure) as connection:
        while True:
            try:
                async with asyncio.timeout(max(0.05, deadline - loop.time())):
                    answer = await _ask(dialer, connection, target, path)
            except TimeoutError:
                answer = Answer(False, last or "no answer")
            if answer.ready:
                return answer
            if answer.reason != last:
                last = answer.reason
                on_change(last)
            if loop.time() >= deadline:
                raise _too_late(target, timeout, last)
            await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - loop.time())))


async def _ask(dialer: "HttpDialer", connection: "HttpConnection", target: Place, path: str) -> Answer:
    answer = await probe(connection, origin_of(target.url), path)
    if answer.heard and not answer.http and await speaks_tls(dialer, target):
        return replace(answer, reason=use_https(target))
    return answer


def _too_late(target: Place, timeout: float, reason: str) -> EngineTimeoutError:
    return EngineTimeoutError(
        f"{target} was not ready within {timeout:g} s: {reason}",
        hint=_hint(reason),
        details={"url": str(target), "reason": reason},
    )


def _hint(reason: str) -> str:
    if "certificate is not trusted" in reason:
        return "If you trust the server, pass --insecure; otherwise add its certificate to this machine's trust store."
    if reason.startswith("it speaks TLS"):
        return "Write the address with https://."
    return "Look at the engine's log, or wait longer with --timeout."
