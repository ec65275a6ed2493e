"""Calls about instances that several commands make, with their answers checked for shape."""

import sys
from collections.abc import Collection
from typing import Any

from garrison.base.errors import UnreachableError
from garrison.cli.server.client import ServerClient, part

__all__ = ["Instance", "all_instances", "instance", "path_of", "print_notes", "with_tag"]

Instance = dict[str, Any]
"""An instance as the API shows it."""


def path_of(name: str, verb: str = "") -> str:
    """The path of an instance, or of a call about it. Raises InvalidError: it can have no such name."""
    from garrison.instances.values.spec import require_name

    require_name(name)
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


def print_notes(answer: Instance, said: Collection[str] = ()) -> None:
    """Print what the server finds odd about the options, but for what was `said`."""
    notes = answer.get("notes")
    for note in notes if isinstance(notes, list) else ():
        if note not in said:
            print(f"note: {note}", file=sys.stderr)


def _checked(server: ServerClient, found: Any) -> Instance:
    if not isinstance(found, dict):
        raise _stranger(server)
    if not isinstance(found.get("name"), str) or not isinstance(found.get("options"), dict):
        raise _stranger(server)
    return {"state": found.get("status", "unknown"), "reason": ""} | found


def _stranger(server: ServerClient) -> UnreachableError:
    return UnreachableError(f"{server.place} answers in another form", hint="Is it a Garrison server of this version?")
