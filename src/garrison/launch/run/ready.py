"""Is an endpoint ready? Asked of a starting engine, and of any OpenAI endpoint by `garrison wait`."""

import asyncio
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from garrison.base.errors import EngineTimeoutError
from garrison.launch.run.address import Place, place
from garrison.net.endpoint import Server, Tls
from garrison.net.errors import PLAIN_NOT_TLS, TLS_NOT_PLAIN, UNTRUSTED, TransportCause, TransportError
from garrison.net.origin import Origin, origin_of

if TYPE_CHECKING:
    from garrison.net.client import HttpConnection, HttpDialer
    from garrison.net.transport import Connection

__all__ = ["PROBE_SECONDS", "Answer", "no_answer", "open_place", "other_scheme", "probe", "wait_ready"]

PROBE_SECONDS = 5.0
"""For one question: once to connect, once more to answer."""
_POLL_SECONDS = 0.25
_NO_SUCH_FILE = os.strerror(errno.ENOENT).lower()


_LOADING = "Wait longer with --timeout; the engine's log shows its progress."
_SILENT = "Check the address and any firewall, or wait longer with --timeout."
_UNTRUSTED = "If you trust the server, pass --insecure; otherwise add its certificate to this machine's trust store."
_NOT_HTTP = "Check that this is the port of an HTTP server, and look at its log."
_OTHER_SCHEME = {
    TLS_NOT_PLAIN: ("the server speaks TLS", "Write the address with https://."),
    PLAIN_NOT_TLS: ("the server does not speak TLS", "Write the address with http://."),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question to an endpoint showed.

    Attributes:
        reason: completes "not ready: …"; for a ready endpoint, what proved it.
        hint: what to do about it, for somebody who asked once; None if there is nothing better than to wait.
        dead: it will never be ready.
        heard: something answered.
        unsure: it answered, and the answer proves neither that it is ready nor that it is not.
        http: it speaks HTTP, with TLS or without as it was asked.
        missing: it has no such path.
    """

    ready: bool
    reason: str
    dead: bool = False
    hint: str | None = field(default=None, compare=False)
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
    models: bool = True,
) -> Answer:
    """GET `path` once. 200 means ready; where the path does not exist, a list of models is proof too.

    Args:
        origin: where the connection leads.
        loading: statuses that mean "not yet".
        dead: statuses that mean it will never be ready.
        timeout: seconds for an answer.
        models: whether a list of models counts.
    """
    asked = path
    try:
        answer = await connection.request("GET", path, timeout=timeout)
        if answer.status == 404 and path != "/v1/models" and models:
            asked = "/v1/models"
            answer = await connection.request("GET", asked, timeout=timeout)
            if answer.status in (401, 403):
                return Answer(True, "/v1/models requires a key", heard=True)
    except TransportError as error:
        return no_answer(error, timeout=timeout, tls=origin.tls)
    asked, status = origin.prefix + asked, answer.status
    if status == 200:
        return Answer(True, f"{asked} answers 200", heard=True)
    if status in dead:
        reason = f"{path} answers {status}, which will not change"
        return Answer(False, reason, dead=True, hint="Look at the server's log.", heard=True)
    if status in loading:
        return Answer(False, f"loading (HTTP {status})", hint=_LOADING, heard=True)
    hint = "Look at the server's log." if status >= 500 else "Check the address, and its path prefix if it has one."
    return Answer(False, f"{asked} answers {status}", hint=hint, heard=True, unsure=status < 500, missing=status == 404)


def no_answer(error: TransportError, *, timeout: float, tls: bool) -> Answer:
    """What a failed request says about the endpoint."""
    match error.cause:
        case TransportCause.REFUSED if error.detail == _NO_SUCH_FILE:
            return Answer(False, "the socket does not exist", hint="Start the server, or check the path of its socket.")
        case TransportCause.REFUSED:
            return Answer(False, error.detail, hint="Start the server, or check its address and port.")
        case TransportCause.DNS:
            return Answer(False, error.detail, hint="Check the host name, or use the server's IP address.")
        case TransportCause.LOCAL:
            return Answer(False, error.detail, hint="The problem is on this machine, not on the server.")
        case TransportCause.TIMEOUT:
            return Answer(False, f"no answer within {timeout:g} s", hint=_SILENT)
        case TransportCause.TLS if error.detail.startswith(UNTRUSTED):
            return Answer(False, error.detail, hint=_UNTRUSTED, heard=True, http=False)
    reason, hint = error.detail, _NOT_HTTP
    if error.detail in _OTHER_SCHEME:
        reason, hint = _OTHER_SCHEME[error.detail]
    elif error.cause is TransportCause.TLS and error.sent:
        reason, hint = _alert(error.detail), "Look at the server's log."
    elif tls and not error.sent:
        reason, hint = f"TLS handshake failed: {error.detail.removeprefix('TLS: ')}", "Look at the server's log."
    return Answer(False, reason, hint=hint, heard=True, unsure=True, http=False)


def _alert(detail: str) -> str:
    """What a server said that ended an established TLS connection. TLS 1.3 rejects a client's certificate so late."""
    if "certificate required" in detail:
        return "it requires a client certificate"
    return f"the server closed the TLS connection: {detail.removeprefix('TLS: ')}"


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


async def other_scheme(dialer: "HttpDialer", where: Place) -> str | None:
    """The reason to give if the server answers HTTP with TLS and was asked without, or the reverse; else None.

    It is asked, without key and password: many servers only close a connection that begins in the other way.
    """
    plain = where.url.startswith("http:")
    scheme, other = ("http:", "https:") if plain else ("https:", "http:")
    swapped = Place(where.url.replace(scheme, other, 1), where.uds)
    async with open_place(dialer, swapped, insecure=True) as connection:
        answer = await probe(connection, origin_of(swapped.url), "/health")
    if not (answer.heard and answer.http):
        return None
    reason = "the server speaks TLS" if plain else "the server does not speak TLS"
    return reason if where.uds else f"{reason}; try {swapped.url}"


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
    last = Answer(False, "")
    async with open_place(dialer, target, insecure=insecure) as connection:
        while True:
            try:
                async with asyncio.timeout(max(0.05, deadline - loop.time())):
                    answer = await _ask(dialer, connection, target, path)
            except TimeoutError:
                answer = last if last.reason else Answer(False, "no answer", hint=_SILENT)
            if answer.ready:
                return answer
            if answer.reason != last.reason:
                on_change(answer.reason)
            last = answer
            if loop.time() >= deadline:
                raise _too_late(target, timeout, last)
            await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - loop.time())))


async def _ask(dialer: "HttpDialer", connection: "HttpConnection", target: Place, path: str) -> Answer:
    answer = await probe(connection, origin_of(target.url), path)
    if answer.unsure and not answer.http and (reason := await other_scheme(dialer, target)):
        hint = f"Write the address with {'https' if target.url.startswith('http:') else 'http'}://."
        return replace(answer, reason=reason, hint=hint)
    return answer


def _too_late(target: Place, timeout: float, last: Answer) -> EngineTimeoutError:
    return EngineTimeoutError(
        f"{target} was not ready within {timeout:g} s: {last.reason}",
        hint=last.hint,
        details={"url": str(target), "reason": last.reason},
    )
