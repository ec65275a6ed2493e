"""Where a base URL points. Pure."""

import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, urlsplit

__all__ = ["Origin", "origin_of", "request_target"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SENDABLE = re.compile(r"/[!-~]*\Z")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))


@dataclass(frozen=True, slots=True)
class Origin:
    """A server, and the prefix of all request paths, without a slash at its end."""

    tls: bool
    host: str
    port: int
    prefix: str
    authority: str


@lru_cache(maxsize=8192)
def origin_of(base_url: str) -> Origin:
    """Split a base URL.

    Raises:
        ValueError: not an `http` or `https` URL with a host. The message does not contain the URL.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or _CONTROL.search(base_url) or " " in parts.netloc:
        raise ValueError("not an http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("it contains a user name or a password; use api_key or headers")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if parts.port is None else f"{host}:{port}"
    return Origin(tls, parts.hostname, port, parts.path.rstrip("/"), authority)


def request_target(origin: Origin, path: str) -> str:
    """Return the path for a request line. Characters that could end it early are percent-encoded, as in browsers."""
    target = origin.prefix + path
    return target if _SENDABLE.match(target) else "/" + quote(target.removeprefix("/"), safe=_PRINTABLE)
