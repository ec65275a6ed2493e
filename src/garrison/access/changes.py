"""What is asked of a key: a new one, and changes of one. Pure."""

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any

from garrison.access.key import Key
from garrison.access.permissions import INFERENCE, UNLIMITED, Grants, Limits, Permissions, Scope
from garrison.access.tokens import KeyKind
from garrison.base.errors import InvalidError

__all__ = ["KEEP", "Keep", "KeyChange", "NewKey", "changed", "kind_for", "made", "overlap_end"]

_LONGEST_NAME = 100
_LONGEST_NOTE = 1000
_MOST_GRANTS = 1000
_MOST_PRIORITY = 100
_LONGEST_OVERLAP = timedelta(days=366)


class Keep(Enum):
    """The value of a field that a change leaves alone: None has another meaning in some."""

    KEEP = "keep"


KEEP = Keep.KEEP


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key that is asked for. The fields are those of `Key`."""

    name: str
    permissions: Permissions = INFERENCE
    limits: Limits = UNLIMITED
    priority: int = 0
    note: str = ""
    expires_at: datetime | None = None
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """A change that is asked for. The fields are those of `Key`; `expires_at` is None for never."""

    name: str | Keep = KEEP
    permissions: Permissions | Keep = KEEP
    limits: Limits | Keep = KEEP
    priority: int | Keep = KEEP
    note: str | Keep = KEEP
    expires_at: datetime | Keep | None = KEEP
    enabled: bool | Keep = KEEP


def kind_for(permissions: Permissions) -> KeyKind:
    """Return the kind of a key with these permissions."""
    return KeyKind.INFERENCE if permissions.scopes <= {Scope.INFERENCE} else KeyKind.MANAGEMENT


def made(new: NewKey, prefix: str, now: datetime) -> Key:
    """Return the new key, with id 0.

    Raises:
        InvalidError: a value cannot be used. Details: `field`.
    """
    permissions = _with_all_that_follows(new.permissions)
    _check_expiry(new.expires_at, now)
    return _checked(
        Key(
            id=0,
            name=new.name.strip(),
            kind=kind_for(permissions),
            prefix=prefix,
            created=now,
            updated=now,
            permissions=permissions,
            limits=new.limits,
            priority=new.priority,
            enabled=new.enabled,
            note=new.note.strip(),
            expires_at=new.expires_at,
        )
    )


def changed(key: Key, change: KeyChange, now: datetime) -> Key:
    """Return the key after a change, with the next revision; the key itself if nothing differs.

    Raises:
        InvalidError: a value cannot be used, or would turn an inference key into a management key or back, which the
            beginning of its token would belie. Details: `field`.
    """
    given: dict[str, Any] = {
        one.name: value for one in fields(change) if (value := getattr(change, one.name)) is not KEEP
    }
    for name in ("name", "note"):
        if name in given:
            given[name] = given[name].strip()
    if "permissions" in given:
        given["permissions"] = _with_all_that_follows(given["permissions"])
        if kind_for(given["permissions"]) is not key.kind:
            raise _invalid(
                "scopes",
                f"key {key.name!r} is a key for {key.kind} and stays one",
                "Create another key with the scopes you want, then delete this one.",
            )
    if given.get("expires_at") != key.expires_at:
        _check_expiry(given.get("expires_at"), now)
    after = replace(key, **given)
    if after == key:
        return key
    return _checked(replace(after, updated=now, revision=key.revision + 1))


def overlap_end(overlap: float, now: datetime) -> datetime:
    """Return until when the old token is accepted after a rotation at `now`.

    Args:
        overlap: seconds; 0 ends it at once.

    Raises:
        InvalidError: it is negative, or longer than a year.
    """
    if not 0 <= overlap <= _LONGEST_OVERLAP.total_seconds():
        raise _invalid("overlap", f"an overlap of {overlap:g} s is not possible", "Choose from 0 s to 366 days.")
    return now + timedelta(seconds=overlap)


def _with_all_that_follows(permissions: Permissions) -> Permissions:
    if Scope.MANAGE in permissions.scopes:
        return replace(permissions, scopes=frozenset(Scope))
    return permissions


def _checked(key: Key) -> Key:
    if not key.name or len(key.name) > _LONGEST_NAME or not key.name.isprintable():
        raise _invalid(
            "name", f"the name of a key has 1 to {_LONGEST_NAME} printable characters", "Choose another name."
        )
    if len(key.note) > _LONGEST_NOTE or not key.note.isprintable():
        raise _invalid("note", f"a note has at most {_LONGEST_NOTE} printable characters, in one line", "Shorten it.")
    if abs(key.priority) > _MOST_PRIORITY:
        raise _invalid(
            "priority", f"a priority is from -{_MOST_PRIORITY} to {_MOST_PRIORITY}, not {key.priority}",
            "0 is that of other keys.",
        )  # fmt: skip
    _check_permissions(key.permissions)
    for one in fields(key.limits):
        value = getattr(key.limits, one.name)
        if value is not None and value < 1:
            raise _invalid(
                f"limits.{one.name}", f"{one.name} must be at least 1, not {value}", "Leave it out for no limit."
            )
    return key


def _check_permissions(permissions: Permissions) -> None:
    scopes, only = permissions.scopes, permissions.only
    if not scopes:
        raise _invalid("scopes", "a key needs a scope", f"Scopes are {', '.join(Scope)}.")
    if only is None:
        return
    if Scope.MANAGE in scopes:
        raise _invalid(
            "instances",
            "a key that manages may use every instance and model",
            "Leave instances and models out, or leave the scope manage out.",
        )
    if Scope.INFERENCE not in scopes:
        raise _invalid("instances", "a key that only reads uses no instances and models", "Leave them out.")
    if not only:
        raise _invalid(
            "instance_ids",
            "a key that is limited to instances needs at least one instance or model",
            "Name some, or permit all.",
        )
    _check_grants(only)


def _check_grants(only: Grants) -> None:
    names = [*only.instances, *only.models]
    if len(names) + len(only.instance_ids) > _MOST_GRANTS:
        raise _invalid("instances", f"a key names at most {_MOST_GRANTS} instances and models", "Permit all of them.")
    if wrong := [name for name in names if not name or len(name) > 500 or not name.isprintable()]:
        raise _invalid("instances", f"{wrong[0][:50]!r} is no name of an instance or a model", "Correct it.")
    if wrong_ids := [one for one in only.instance_ids if one < 1]:
        raise _invalid("instance_ids", f"{wrong_ids[0]} is no id of an instance", "Ids are positive numbers.")


def _check_expiry(expires_at: datetime | None, now: datetime) -> None:
    if expires_at is not None and expires_at <= now:
        raise _invalid("expires_at", "the key would have expired already", "Choose a time in the future.")


def _invalid(field: str, message: str, hint: str) -> InvalidError:
    return InvalidError(message, hint=hint, details={"field": field})
