"""What a management call is called in the audit log, and what routes add to its record."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from fastapi import Request

from garrison.access.audit import Call

__all__ = ["AUDIT", "note", "verb_of"]

AUDIT = "garrison.audit"
_VERBS = {"GET": "read", "POST": "create", "PUT": "replace", "PATCH": "update", "DELETE": "delete"}


def verb_of(method: str, path: str) -> tuple[str, tuple[str, str]]:
    """Return the verb of a call, such as `instances.start`, and the kind and name of what it is done to. Pure."""
    parts = [unquote(one) for one in path.removeprefix("/api/v1/").strip("/").split("/") if one]
    if parts[:1] == ["auth"]:
        parts = parts[1:]
    if parts[:1] == ["llama-cpp"] and len(parts) > 2:  # llamactl's path for what is done to an instance
        parts = ["instances", parts[1], parts[-1]]
    noun = parts[0] if parts else "server"
    name = parts[1] if len(parts) > 1 else ""
    rest = parts[2] if len(parts) > 2 else _VERBS.get(method, method.lower())
    return f"{noun}.{rest}"[:100], (noun.removesuffix("s"), name[:300])


def note(
    request: Request,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> None:
    """Add to the record of this call what was before and is after, and the name of what was made."""
    call = request.scope.get(AUDIT)
    if not isinstance(call, Call):
        return
    call.before = before if before is not None else call.before
    call.after = after if after is not None else call.after
    if name is not None:
        call.subject = call.subject[0], name
