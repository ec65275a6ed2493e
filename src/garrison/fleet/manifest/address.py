"""Target addresses: several ways to write one, one canonical form."""

import ipaddress
import re
from urllib.parse import urlsplit

__all__ = ["address", "canonical_url"]

_DEFAULT_PORT = {"http": 80, "https": 443}
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?\Z")
_VISIBLE = re.compile(r"[!-~]*\Z")


def address(
    base_url: str | None = None, host: str | None = None, port: int | None = None, scheme: str | None = None
) -> str:
    """Return `scheme://host:port/prefix` from a URL, or from a host with port (default 8000) and scheme (default http).

    Raises:
        ValueError: the address is missing, invalid, given in both forms, or contains credentials. The message does not
            repeat the address.
    """
    if base_url is not None:
        if host is not None or port is not None or scheme is not None:
            raise ValueError("give either base_url, or host with port and scheme")
        return canonical_url(base_url)
    if host is None:
        raise ValueError("missing address: give base_url, or host with port and scheme")
    if scheme not in (None, "http", "https"):
        raise ValueError("scheme must be http or https")
    return _join(scheme or "http", _host(host.removeprefix("[").removesuffix("]")), 8000 if port is None else port, "")


def canonical_url(url: str) -> str:
    """Normalize a server URL so that two spellings of one address give the same text.

    The host is in lower case; the default port, a trailing `/v1` and trailing slashes are removed.

    Raises:
        ValueError: `url` is not the http or https URL of a server. The message does not repeat it.
    """
    if not _VISIBLE.match(url):  # urlsplit silently drops white space
        raise ValueError("not a URL such as http://host:8000")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("not a URL such as http://host:8000") from None
    if parts.scheme not in _DEFAULT_PORT or not host:
        raise ValueError("not a URL such as http://host:8000")
    if parts.username is not None or parts.password is not None:
        raise ValueError("credentials in the URL would be stored and displayed; use api_key or headers instead")
    if parts.query or parts.fragment or url.endswith(("?", "#")):
        raise ValueError("a server URL cannot contain ? or #")
    if port == 0:
        raise ValueError("not a URL such as http://host:8000")
    path = parts.path.rstrip("/")
    while path.endswith("/v1"):
        path = path.removesuffix("/v1").rstrip("/")
    return _join(parts.scheme, _host(host), port, path)


def _join(scheme: str, host: str, port: int | None, path: str) -> str:
    number = "" if port is None or port == _DEFAULT_PORT[scheme] else f":{port}"
    return f"{scheme}://{host}{number}{path}"


def _host(host: str) -> str:
    if ":" in host:
        try:
            found = ipaddress.IPv6Address(host)
        except ValueError:
            raise ValueError("host is neither a name nor an address (write IPv6 without a port)") from None
        if found.scope_id is None or _HOST.match(found.scope_id):
            return f"[{found}]"
        host = ""
    if not _HOST.match(host):
        raise ValueError("host is neither a name nor an address")
    return host.lower()
