"""Options of `garrison keys`, and the values made from them."""

from datetime import datetime
from typing import Annotated, Any

import typer

from garrison.access.permissions import Grants, Limits, Permissions, Scope
from garrison.base.errors import UsageError

__all__ = [
    "Concurrent", "Expires", "Inference", "InstanceIds", "Instances", "Manage", "Models", "Note", "Priority", "Read",
    "Requests", "Tokens", "changed_limits", "changed_permissions", "expiry", "limits", "permissions",
]  # fmt: skip

_Names = list[str] | None

Inference = Annotated[bool, typer.Option("--inference", help="Requests to models: the default.")]
Read = Annotated[bool, typer.Option("--read", help="Every GET of the management API.")]
Manage = Annotated[bool, typer.Option("--manage", help="The whole management API, and requests to all models.")]
Instances = Annotated[
    _Names, typer.Option("--instance", metavar="NAME", help="Only requests to this instance; repeatable.")
]
InstanceIds = Annotated[
    list[int] | None,
    typer.Option("--instance-id", metavar="ID", help="The same by id, which no later instance gets; repeatable."),
]
Models = Annotated[
    _Names, typer.Option("--model", metavar="NAME", help="Only requests for this model or route; repeatable.")
]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="WHEN", help="After 12h, 30d or 2w, at a time (UTC), or never.")
]
Note = Annotated[str | None, typer.Option("--note", metavar="TEXT", help="A line for people.")]
Requests = Annotated[
    int | None, typer.Option("--requests-per-minute", metavar="N", min=0, help="Requests a minute; 0: no limit.")
]
Tokens = Annotated[
    int | None,
    typer.Option("--tokens-per-minute", metavar="N", min=0, help="Tokens a minute, in and out; 0: no limit."),
]
Concurrent = Annotated[
    int | None, typer.Option("--concurrent", metavar="N", min=0, help="Requests at once; 0: no limit.")
]

Priority = Annotated[
    int | None,
    typer.Option(
        "--priority", metavar="N", min=-100, max=100, help="Where requests wait, those of a higher one go first; 0."
    ),
]


def permissions(scopes: dict[Scope, bool], instances: _Names, ids: list[int] | None, models: _Names) -> Permissions:
    """Return what the options of a new key permit: inference unless they say otherwise."""
    chosen = frozenset(scope for scope, wanted in scopes.items() if wanted)
    return Permissions(chosen or frozenset({Scope.INFERENCE}), _grants(instances, ids, models))


def changed_permissions(
    before: Permissions,
    scopes: dict[Scope, bool],
    instances: _Names,
    ids: list[int] | None,
    models: _Names,
    *,
    unrestricted: bool,
) -> Permissions:
    """Return the permissions after an edit. Scopes, and instances and models together, replace those before.

    Raises:
        UsageError: all and some are permitted at once.
    """
    only = _grants(instances, ids, models)
    if unrestricted and only is not None:
        raise UsageError("--unrestricted permits all instances and models", hint="Leave --instance and --model out.")
    chosen = frozenset(scope for scope, wanted in scopes.items() if wanted)
    return Permissions(chosen or before.scopes, None if unrestricted else only or before.only)


def limits(requests: int | None, tokens: int | None, concurrent: int | None) -> Limits:
    return changed_limits(Limits(), requests, tokens, concurrent)


def changed_limits(before: Limits, requests: int | None, tokens: int | None, concurrent: int | None) -> Limits:
    """Return the limits after an edit: None keeps one, 0 removes it."""
    given = {"requests_per_minute": requests, "tokens_per_minute": tokens, "concurrent": concurrent}
    values: dict[str, Any] = {
        name: getattr(before, name) if value is None else value or None for name, value in given.items()
    }
    return Limits(**values)


def expiry(text: str | None, now: datetime) -> datetime | None:
    """Return the time that `--expires` names; None for never.

    Raises:
        UsageError: it is no time.
    """
    from garrison.cli.views.age import parse_until

    return None if text is None or text.strip().lower() == "never" else parse_until(text, now)


def _grants(instances: _Names, ids: list[int] | None, models: _Names) -> Grants | None:
    found = Grants(frozenset(instances or ()), frozenset(ids or ()), frozenset(models or ()))
    return found or None
