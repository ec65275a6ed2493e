"""Addresses of servers: as people type them, and as an engine listens. Pure."""

import ipaddress
import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from garrison.base.errors import InvalidError
from garrison.engines.argv import Endpoint

_LOCAL_PORT = re.compile(r":?([0-9]+)(/.*)?")

__all__ = ["Place", "base_url", "caller_url", "local_port", "place", "reachable"]


@dataclass(frozen=True, slots=True)
class Place:
    """A server that somebody named.

    Attributes:
        url: `scheme://host:port` and a path prefix, without a slash at the end.
        uds: the unix socket it listens on; then `url` only gives scheme and `Host`.
        basic: the `Authorization` header that a user name and password in the address stand for.
    """

    url: str
    uds: str | None = None
    basic: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"unix:{self.uds}" if self.uds else self.url


def base_url(endpoint: Endpoint) -> str:
    """The URL at which this machine reaches an engine; for a wildcard address, over loopback."""
    host = "localhost" if endpoint.uds else reachable(endpoint.host)
    port = "" if endpoint.uds else f":{endpoint.port}"
    scheme = "https" if endpoint.tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}{port}{endpoint.prefix}"


def caller_url(endpoint: Endpoint) -> str:
    """The URL for people: the path of a unix socket instead of a host."""
    return f"unix:{endpoint.uds}" if endpoint.uds else base_url(endpoint)


def place(url: str) -> Place:
    """Parse an address: `http://host:port`, `host:port`, `https://host/prefix/v1`, `unix:/path`, or a port of this
    machine, `8000` or `:8000`.

    A `/v1` at the end is dropped, since people paste the base URL of an OpenAI client.

    Raises:
        InvalidError: no host, or another scheme; or a single word, such as a name of something else.
    """
    if not url.startswith("unix:"):
        # A number alone would be read as an IPv4 address, 0.0.31.64 for 8000.
        local = _LOCAL_PORT.fullmatch(url)
        return _over_tcp(url, f"127.0.0.1:{local[1]}{local[2] or ''}" if local else url)
    path = url.removeprefix("unix:")
    if not path.startswith("/") or path.startswith("//") or not path.isprintable():
        raise InvalidError(f"{url!r} is not the address of a server", hint="Use http://host:port, or unix:/path.")
    return Place("http://localhost", path)


def reachable(host: str) -> str:
    """The address to connect to for a server that listens on `host`."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host or "127.0.0.1"
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def local_port(place: Place) -> int | None:
    """The port of a server that is named as one of this machine."""
    parts = urlsplit(place.url)
    if place.uds is not None or parts.hostname is None:
        return None
    try:
        here = parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return None
    return (parts.port or {"http": 80, "https": 443}[parts.scheme]) if here else None


def _over_tcp(typed: str, url: str) -> Place:
    refused = InvalidError(
        f"{typed!r} is not the address of a server", hint="Use http://host:port, or a port of this machine."
    )
    if any(character.isspace() or not character.isprintable() for character in url):
        raise refused  # urlsplit would drop some of them and keep others
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        port = parts.port
        authority = _authority(parts)
    except ValueError:
        raise refused from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise refused
    if not all(parts.hostname.removesuffix(".").split(".")) or ("://" not in url and port is None and _is_word(parts)):
        raise refused
    path = parts.path.rstrip("/").removesuffix("/v1")
    return Place(urlunsplit((parts.scheme, authority, path, "", "")), basic=_basic(parts))


def _is_word(parts: SplitResult) -> bool:
    """Whether a host without scheme and port is a word, which may be anything but an address."""
    return parts.hostname != "localhost" and not set(".:") & set(parts.hostname or "")


def _authority(parts: SplitResult) -> str:
    """Host and port, the host as DNS and HTTP spell it."""
    host = parts.netloc.rpartition("@")[2]
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _basic(parts: SplitResult) -> str | None:
    if parts.username is None and parts.password is None:
        return None
    import base64

    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return "Basic " + base64.b64encode(pair.encode()).decode("ascii")
