"""Calls about instances that several commands make, with their answers checked for shape."""

from typing import Any

from garrison.base.errors import UnreachableError
from garrison.cli.server.client import ServerClient, part
from garrison.cli.server.instance.options import Options, without

__all__ = ["Instance", "all_instances", "exportable", "instance", "path_of", "with_tag"]

Instance = dict[str, Any]
"""An instance as the API shows it."""


def path_of(name: str, verb: str = "") -> str:
    """The path of an instance, or of a call about it."""
    return f"/instances/{part(name)}" + (f"/{verb}" if verb else "")


def instance(server: ServerClient, name: str) -> Instance:
    """One instance. Raises NotFoundError."""
    return _checked(server, server.call("GET", path_of(name)))


def with_tag(server: ServerClient, name: str) -> tuple[Instance, str]:
    """One instance, and the entity tag that a change of it names."""
    answer = server.exchange("GET", path_of(name))
    return _checked(server, answer.body), answer.headers.get("etag", "*")


def all_instances(server: ServerClient, *, node: str | None = None, local: bool = False) -> list[Instance]:
    """The instances, by name.

    Args:
        node: only those of this node.
        local: only those of this server, and none of its nodes.
    """
    params = {"node": node} if node is not None else {"local": "true"} if local else {}
    found = server.call("GET", "/instances", params=params)
    if not isinstance(found, list):
        raise _stranger(server)
    return [_checked(server, one) for one in found]


def exportable(server: ServerClient, found: Instance) -> Options:
    """The options of an instance, without those that only show a default of its server."""
    config = server.call("GET", "/config")
    idle = config.get("idle_timeout") if isinstance(config, dict) else None
    default = idle.get("value") if isinstance(idle, dict) else None
    return without(found["options"], default_idle_seconds=default)


def _checked(server: ServerClient, found: Any) -> Instance:
    if not isinstance(found, dict) or not isinstance(found.get("name"), str) or "options" not in found:
        raise _stranger(server)
    return {"state": found.get("status", "unknown"), "reason": ""} | found


def _stranger(server: ServerClient) -> UnreachableError:
    return UnreachableError(f"{server.place} answers in another form", hint="Is it a Garrison server of this version?")
