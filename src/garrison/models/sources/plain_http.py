"""Which addresses must not be sent a credential: plain HTTP to another machine. Pure."""

import ipaddress
from urllib.parse import urlsplit

from garrison.base.errors import InvalidError

__all__ = ["checked_endpoint", "is_exposed", "is_loopback", "refuse_password"]


def checked_endpoint(url: str, variable: str, *, example: str) -> str:
    """Return `url` if it can be the address of a server.

    Raises:
        InvalidError: it cannot, or holds a password that would be sent in plain text.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise InvalidError(f"{variable} must be a URL, not {url!r}", hint=f"As in {example}")
    refuse_password(url, variable)
    return url


def is_exposed(url: str) -> bool:
    """Whether others on the network can read what is sent to `url`."""
    parts = urlsplit(url)
    return parts.scheme != "https" and not is_loopback(parts.hostname or "")


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, by its address or by a name that no name server can give to another.

    A name such as `127.0.0.1.example.org` is not.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    # Python says so of a mapped address only since 3.13.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def refuse_password(url: str, variable: str) -> None:
    """Raise InvalidError if the URL holds a user or a password that would be sent in plain text."""
    parts = urlsplit(url)
    if (parts.username or parts.password) and is_exposed(url):
        raise InvalidError(
            f"{variable} contains a user or password and is plain HTTP to another machine",
            hint="Use https, or leave the user and password out.",
        )
