"""Is an endpoint ready? Asked of an engine that is starting, and of any OpenAI endpoint by `garrison wait`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from garrison.base.errors import EngineTimeoutError, InvalidError
from garrison.engines.engine import Endpoint

if TYPE_CHECKING:
    import httpx2

__all__ = ["Answer", "base_url", "origin", "probe", "wait_ready"]

_POLL_SECONDS = 0.25
_PROBE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """`reason` completes "not ready: …"; for a ready endpoint it says what proved it. `dead` means: never again."""

    ready: bool
    reason: str
    dead: bool = False


def base_url(endpoint: Endpoint) -> str:
    """Where this machine reaches an engine that listens there: a wildcard address is reached over loopback."""
    host = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(endpoint.host, endpoint.host)
    return f"http://[{host}]:{endpoint.port}" if ":" in host else f"http://{host}:{endpoint.port}"


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
                return Answer(True, "/v1/models asks for a key")
    except httpx2.ConnectError:
        return Answer(False, "nothing listens")
    except httpx2.TimeoutException:
        return Answer(False, f"no answer within {_PROBE_SECONDS:g} s")
    except httpx2.HTTPError as error:
        return Answer(False, f"{type(error).__name__}: {error}")
    if response.status_code == 200:
        return Answer(True, f"{response.request.url.path} answers 200")
    if response.status_code in dead:
        return Answer(False, f"{path} answers {response.status_code}, which it will go on doing", dead=True)
    if response.status_code in loading:
        return Answer(False, f"loading (HTTP {response.status_code})")
    return Answer(False, f"{response.request.url.path} answers {response.status_code}")


async def wait_ready(
    url: str,
    *,
    timeout: float,
    path: str = "/health",
    on_change: Callable[[str], None] = lambda _: None,
    transport: "httpx2.AsyncBaseTransport | None" = None,
) -> Answer:
    """Poll until the endpoint is ready.

    Args:
        timeout: seconds.
        on_change: called with the reason each time it changes.

    Raises:
        EngineTimeoutError: the time is over. Details: `url`, `reason`.
    """
    import asyncio

    import httpx2

    base = origin(url)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    last = ""
    async with httpx2.AsyncClient(
        base_url=base, timeout=_PROBE_SECONDS, transport=transport, trust_env=False
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
                    hint="Look at the engine's log, or wait longer with --timeout.",
                    details={"url": base, "reason": last},
                )
            await asyncio.sleep(min(_POLL_SECONDS, max(0.0, deadline - loop.time())))
