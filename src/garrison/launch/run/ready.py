"""Is an endpoint ready? Asked of an engine that is starting, and of any OpenAI endpoint by `garrison wait`."""

import ipaddress
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from garrison.base.errors import EngineTimeoutError, InvalidError
from garrison.engines.engine import Endpoint

if TYPE_CHECKING:
    import httpx2

__all__ = [
    "Answer",
    "Place",
    "base_url",
    "caller_url",
    "no_connection",
    "origin",
    "place",
    "probe",
    "reachable",
    "tls_alert",
    "wait_ready",
]

_POLL_SECONDS = 0.25
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What one question to an endpoint showed.

    Attributes:
        reason: completes "not ready: …"; for a ready endpoint it says what proved it.
        dead: it will never be ready.
        heard: something answered there at all.
        unsure: it answered, in a way that tells neither that it is ready nor that it is not.
        http: what answered speaks HTTP, in the way it was asked.
        missing: there is no such path.
    """

    ready: bool
    reason: str
    dead: bool = False
    heard: bool = field(default=False, compare=False)
    unsure: bool = field(default=False, compare=False)
    http: bool = field(default=True, compare=False)
    missing: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class Place:
    """An address that somebody typed: where requests go, and the socket they go through, if it is not TCP."""

    url: str
    uds: str | None = None

    def __str__(self) -> str:
        return f"unix:{self.uds}" if self.uds else self.url


def base_url(endpoint: Endpoint) -> str:
    """Where this machine reaches an engine that listens there: a wildcard address is reached over loopback."""
    host = "localhost" if endpoint.uds else reachable(endpoint.host)
    port = "" if endpoint.uds else f":{endpoint.port}"
    scheme = "https" if endpoint.tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{port}{endpoint.prefix}"


def caller_url(endpoint: Endpoint) -> str:
    """The same for people: a socket path is named instead of a host."""
    return f"unix:{endpoint.uds}" if endpoint.uds else base_url(endpoint)


def origin(url: str) -> str:
    """`localhost:8000/v1/` and its like to `http://localhost:8000`: people paste any of them.

    Raises:
        InvalidError: no host, or another scheme than http and https.
    """
    refused = InvalidError(f"{url!r} is not the address of a server", hint="Give it as http://host:port.")
    if any(character.isspace() or not character.isprintable() for character in url):
        raise refused  # urlsplit would drop some of them and keep others
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
    except ValueError:
        raise refused from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise refused
    path = parts.path.rstrip("/").removesuffix("/v1")
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def place(url: str) -> Place:
    """An address, or `unix:/run/vllm.sock` for a server that listens on a socket file.

    Raises:
        InvalidError: it is neither.
    """
    if not url.startswith("unix:"):
        return Place(origin(url))
    path = url.removeprefix("unix:")
    if not path.startswith("/") or path.startswith("//") or not path.isprintable():
        raise InvalidError(f"{url!r} is not the address of a server", hint="Give http://host:port, or unix:/path.")
    return Place("http://localhost", path)


async def probe(
    client: "httpx2.AsyncClient",
    path: str,
    loading: frozenset[int] = frozenset({503}),
    dead: frozenset[int] = frozenset(),
) -> Answer:
    """One GET of `path`. 200 is ready; where the path is not there, a list of models is proof as well."""
    import httpx2

    try:
        response = await client.get(path)
        if response.status_code == 404 and path != "/v1/models":
            response = await client.get("/v1/models")
            if response.status_code in (401, 403):
                return Answer(True, "/v1/models asks for a key", heard=True)
    except httpx2.ConnectError as error:
        return no_connection(error)
    except httpx2.TimeoutException:
        return Answer(False, f"no answer within {client.timeout.read or _PROBE_SECONDS:g} s")
    except httpx2.HTTPError as error:
        return Answer(False, f"{type(error).__name__}: {error}", heard=True, unsure=True, http=False)
    except ssl.SSLError as error:  # an alert that comes after the handshake is let out as it is
        return Answer(False, tls_alert(error), heard=True, unsure=True, http=False)
    asked, status = response.request.url.path, response.status_code
    if status == 200:
        return Answer(True, f"{asked} answers 200", heard=True)
    if status in dead:
        return Answer(False, f"{path} answers {status}, which it will go on doing", dead=True, heard=True)
    if status in loading:
        return Answer(False, f"loading (HTTP {status})", heard=True)
    return Answer(False, f"{asked} answers {status}", heard=True, unsure=status < 500, missing=status == 404)


def no_connection(error: "httpx2.ConnectError") -> Answer:
    """Without a connection nothing listens, unless it was TLS that failed: then something does."""
    for cause in _causes(error):
        if isinstance(cause, ssl.SSLCertVerificationError):
            return Answer(False, f"its certificate is not trusted: {cause.verify_message}", heard=True, http=False)
        if isinstance(cause, ssl.SSLError | ConnectionResetError) or type(cause).__name__ == "EndOfStream":
            return Answer(False, "it does not complete a TLS handshake", heard=True, unsure=True, http=False)
    return Answer(False, "nothing listens")


def tls_alert(error: ssl.SSLError) -> str:
    """What a server that ended an established TLS connection said."""
    if "CERTIFICATE_REQUIRED" in str(error.reason):
        return "it talks only to clients with a certificate"
    return f"it ends the TLS connection: {error.reason or error}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those behind it. httpx2 wraps them in one of its own name twice."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inner = (found.__cause__, found.__context__, *found.args)
        waiting += [one for one in inner if isinstance(one, BaseException)]


def reachable(host: str) -> str:
    """The address to connect to for a server that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "127.0.0.1"
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


async def wait_ready(
    url: str,
    *,
    timeout: float,
    path: str = "/health",
    insecure: bool = False,
    on_change: Callable[[str], None] = lambda _: None,
    transport: "httpx2.AsyncBaseTransport | None" = None,
) -> Answer:
    """Poll until the endpoint is ready.

    Args:
        timeout: seconds.
        insecure: accept any certificate.
        on_change: called with the reason each time it changes.

    Raises:
        EngineTimeoutError: the time is over. Details: `url`, `reason`.
        InvalidError: `url` is not an address.
    """
    import asyncio

    import httpx2

    target = place(url)
    base = str(target)
    if transport is None and target.uds is not None:
        transport = httpx2.AsyncHTTPTransport(uds=target.uds)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    last = ""
    async with httpx2.AsyncClient(
        base_url=target.url, timeout=_PROBE_SECONDS, transport=transport, trust_env=False, verify=not insecure
    ) as client:
        while True:
            try:
                answer = await asyncio.wait_for(probe(client, path), max(0.05, deadline - loop.time()))
            except TimeoutError:
                answer = Answer(False, last or "no answer")
            if answer.ready:
                return answer
            if answer.reason != last:
                last = answer.reason
                on_change(last)
            if loop.time() >= deadline:
                raise EngineTimeoutError(
                    f"{base} was not ready within {timeout:g} s: {last}",
                    hint=_hint(last),
                    details={"url": base, "reason": last},
                )
            await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - loop.time())))


def _hint(reason: str) -> str:
    if "certificate is not trusted" in reason:
        return "If you trust the server, accept its certificate with --insecure; else add it to this machine's trust."
    return "Look at the engine's log, or wait longer with --timeout."
