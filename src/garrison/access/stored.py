"""Keys in the database and in JSON."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from garrison.access.key import Key
from garrison.access.permissions import Grants, Limits, Permissions, Scope
from garrison.access.tokens import KeyKind
from garrison.store.key_store import KeyRow

__all__ = ["key_from_json", "key_of", "key_tag", "key_to_json", "spec_of"]


def spec_of(key: Key) -> dict[str, Any]:
    """Return the part of a key that the database keeps as JSON."""
    only = key.permissions.only
    return {
        "kind": str(key.kind),
        "scopes": sorted(key.permissions.scopes),
        "only": None if only is None else _grants_to_json(only),
        "limits": _limits_to_json(key.limits),
        "priority": key.priority,
        "enabled": key.enabled,
        "note": key.note,
    }


def key_of(row: KeyRow, secret: str) -> Key:
    """Return the key in a row.

    Args:
        secret: the name of the secret in use.
    """
    spec = row.spec
    # A scope of a later program permits nothing here.
    scopes = frozenset(Scope(one) for one in spec["scopes"] if one in set(Scope))
    only = spec["only"]
    return Key(
        id=row.id,
        name=row.name,
        kind=KeyKind(spec["kind"]),
        prefix=row.prefix,
        created=row.created,
        updated=row.updated,
        permissions=Permissions(scopes, None if only is None else _grants(only)),
        limits=_limits(spec["limits"]),
        priority=spec.get("priority", 0),
        enabled=spec["enabled"],
        note=spec["note"],
        expires_at=row.expires_at,
        previous_prefix=row.previous_prefix,
        rotates_until=row.rotates_until,
        last_used=row.last_used,
        revision=row.revision,
        usable=row.secret == secret,
    )


def key_to_json(key: Key, token: str | None = None) -> dict[str, Any]:
    """Return a key as llamactl shows it, with further fields; times are whole seconds since 1970, or null.

    Args:
        token: shown once, as `key`, when it was just made.
    """
    only = key.permissions.only
    body = {
        "id": key.id,
        "name": key.name,
        "user_id": "system",
        "permission_mode": key.permissions.mode,
        "expires_at": _seconds(key.expires_at),
        "created_at": _seconds(key.created),
        "updated_at": _seconds(key.updated),
        "last_used_at": _seconds(key.last_used),
        "kind": str(key.kind),
        "scopes": sorted(key.permissions.scopes),
        **_grants_to_json(only or Grants()),
        "limits": _limits_to_json(key.limits),
        "priority": key.priority,
        "enabled": key.enabled,
        "note": key.note,
        "prefix": key.prefix,
        "previous_prefix": key.previous_prefix,
        "rotates_until": _seconds(key.rotates_until),
        "revision": key.revision,
        "usable": key.usable,
    }
    return body if token is None else body | {"key": token}


def key_from_json(body: Mapping[str, Any]) -> Key:
    """The inverse of `key_to_json`, for a client; fields of a later program are ignored."""
    limited = body["permission_mode"] == "per_instance"
    created, updated = _time(body["created_at"]), _time(body["updated_at"])
    assert created is not None
    assert updated is not None
    return Key(
        id=body["id"],
        name=body["name"],
        kind=KeyKind(body["kind"]),
        prefix=body["prefix"],
        created=created,
        updated=updated,
        permissions=Permissions(frozenset(Scope(one) for one in body["scopes"]), _grants(body) if limited else None),
        limits=_limits(body["limits"]),
        priority=body.get("priority", 0),
        enabled=body["enabled"],
        note=body["note"],
        expires_at=_time(body["expires_at"]),
        previous_prefix=body["previous_prefix"],
        rotates_until=_time(body["rotates_until"]),
        last_used=_time(body["last_used_at"]),
        revision=body["revision"],
        usable=body["usable"],
    )


def key_tag(id: int, revision: int) -> str:
    """Return the entity tag of a key, by which a change over HTTP names the revision that its caller saw."""
    return f'"{id}-{revision}"'


def _grants_to_json(only: Grants) -> dict[str, Any]:
    return {
        "instances": sorted(only.instances),
        "instance_ids": sorted(only.instance_ids),
        "models": sorted(only.models),
    }


def _grants(body: Mapping[str, Any]) -> Grants:
    return Grants(frozenset(body["instances"]), frozenset(body["instance_ids"]), frozenset(body["models"]))


def _limits_to_json(limits: Limits) -> dict[str, Any]:
    return {
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "concurrent": limits.concurrent,
    }


def _limits(body: Mapping[str, Any]) -> Limits:
    return Limits(**{name: body.get(name) for name in _limits_to_json(Limits())})


def _seconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp())


def _time(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
