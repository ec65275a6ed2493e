"""A second server on one data directory: what is said about the first."""

from typing import Any

from garrison.base.errors import ConflictError, GarrisonError
from garrison.base.settings import Settings
from garrison.cli.server.client import ServerClient

__all__ = ["address_of", "already_runs"]

_ASK_SECONDS = 5.0


def address_of(server: ServerClient) -> str | None:
    """Where a server of this machine listens; None where it does not say, since it is starting or ending."""
    from garrison.server.address import url_of

    try:
        config: dict[str, Any] = server.call("GET", "/config", timeout=_ASK_SECONDS)
        value = {name: config[name]["value"] for name in ("server_host", "server_port", "tls_cert_file", "root_path")}
        secure = value["tls_cert_file"] not in (None, "None")
        return url_of(
            str(value["server_host"]), int(value["server_port"]), secure=secure, root_path=value["root_path"] or ""
        )
    except (GarrisonError, KeyError, TypeError, ValueError, AttributeError):
        return None


def already_runs(settings: Settings, details: dict[str, Any] | None = None) -> ConflictError:
    """The error of a second server, with the address of the first."""
    with ServerClient.of_this_machine(settings) as server:
        address = address_of(server)
    pid = (details or {}).get("pid")
    who = f" (pid {pid})" if pid else ""
    where = f" at {address}" if address else ", and is starting or ending"
    return ConflictError(
        f"a server runs on {settings.data_dir} already{who}{where}",
        hint="`garrison instance list` shows what it runs; `garrison down` ends it.",
        details={**(details or {}), "address": address},
    )
