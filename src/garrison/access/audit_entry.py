"""What the audit log keeps about a call. Pure, but for the secrets that it makes known to redaction."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from garrison.access.identity import Identity
from garrison.base.errors import GarrisonError
from garrison.base.redaction import HIDDEN, is_secret_name, know_arguments, redacted
from garrison.store.audit_store import AuditRow

__all__ = ["Outcome", "audit_row", "outcome_of", "shown"]

_LONGEST_TEXT = 4096
_LONGEST_JSON = 32 * 1024
_DEEPEST = 12
_CANCELLED = 499


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a call ended: an HTTP status, and `ok` or the stable code of an error."""

    status: int
    code: str


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome of a call that ended with an error."""
    if isinstance(error, GarrisonError):
        return Outcome(error.http_status, error.code)
    if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):
        return Outcome(_CANCELLED, "cancelled")
    return Outcome(500, "internal")


def audit_row(
    who: Identity,
    action: str,
    subject: tuple[str, str],
    *,
    at: datetime,
    before: Mapping[str, Any] | None,
    after: Mapping[str, Any] | None,
    outcome: Outcome,
    request_id: str = "",
    peer: str = "",
    node: str = "",
) -> AuditRow:
    """Return the row of a call. `before` and `after` lose their secrets, and details beyond 32 KiB."""
    kind, name = subject
    return AuditRow(
        at=at,
        who=str(who.caller),
        name=who.name,
        key_id=who.key_id,
        uid=who.uid,
        action=action,
        subject_kind=kind,
        subject_name=redacted(name)[:_LONGEST_TEXT],
        before=shown(before),
        after=shown(after),
        status=outcome.status,
        code=outcome.code,
        request_id=request_id[:200],
        peer=peer[:200],
        node=node,
    )


def shown(value: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return JSON without secrets: those that are known, what looks like one, and what has the name of one.

    A document of more than 32 KiB keeps its short top-level values, and says so as `truncated`.
    """
    if value is None:
        return None
    for argv in _lists_of_words(value, _DEEPEST):
        know_arguments(argv)
    found = {str(name): _clean(str(name), one, _DEEPEST) for name, one in value.items()}
    size = len(json.dumps(found))
    if size <= _LONGEST_JSON:
        return found
    short = {name: one for name, one in found.items() if len(json.dumps(one)) <= 200}
    return dict(list(short.items())[:100]) | {"truncated": size}


def _clean(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if is_secret_name(name):
        return HIDDEN
    if isinstance(value, str):
        return redacted(value[: 2 * _LONGEST_TEXT])[:_LONGEST_TEXT]
    if depth == 0:
        return "…"
    if isinstance(value, Mapping):
        return {redacted(str(key)): _clean(str(key), one, depth - 1) for key, one in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [_clean("", one, depth - 1) for one in value]
    return redacted(str(value))[:_LONGEST_TEXT]


def _lists_of_words(value: Any, depth: int) -> list[list[str]]:
    """Return the lists in `value` that may be command lines, whose options tell which words are secrets."""
    if depth == 0 or isinstance(value, str):
        return []
    if isinstance(value, Mapping):
        return [found for one in value.values() for found in _lists_of_words(one, depth - 1)]
    if not isinstance(value, Sequence):
        return []
    words = [one for one in value if isinstance(one, str)]
    inner = [found for one in value for found in _lists_of_words(one, depth - 1)]
    return [words, *inner] if words else inner
