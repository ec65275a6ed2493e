"""Which requests a web page could have sent in somebody's name. Pure.

A page that rebinds its DNS name to this machine sends that name as `Host`. So addresses are accepted, names that no
public server has, and those that are configured. A page sends its `Origin`, which must be on this machine, belong to a
desktop program, or be configured. Ollama accepts the same without configuration.
"""

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

__all__ = ["may_ask", "reaches_us"]

_LOCAL_ENDINGS = (".localhost", ".local", ".internal")
_LOCAL_NAMES = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
_PROGRAMS = ("app", "file", "tauri", "vscode-webview", "vscode-file")
"""Schemes of pages that come with a program, not from a server."""


def reaches_us(host: str, configured: Collection[str]) -> bool:
    """Whether a `Host` header may name this server."""
    name = _host_of(f"//{host}")
    if name is None:
        return False
    if "." not in name or name.endswith(_LOCAL_ENDINGS) or name in configured:
        return True
    return _is_address(name)


def may_ask(origin: str, host: str, configured: Collection[str]) -> bool:
    """Whether pages of an origin may call this server.

    Args:
        host: the `Host` header of the request.
    """
    if "*" in configured or origin in configured:
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme in _PROGRAMS:
        return True
    return parts.netloc.lower() == host.lower() or _host_of(origin) in _LOCAL_NAMES


def _host_of(url: str) -> str | None:
    """The host of a URL in lower case, without port and brackets; None if there is none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
