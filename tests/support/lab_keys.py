"""Keys for a plane of the gateway, without a database: the token of each is its name."""

from datetime import UTC, datetime

from garrison.access.key import Key
from garrison.access.permissions import Grants, Limits, Permissions, Scope
from garrison.access.stored import spec_of
from garrison.access.tokens import KeyKind, TokenHasher
from garrison.gateway.link.messages import Keys
from garrison.store.key_store import KeyRow

__all__ = ["SECRET", "key", "told_keys"]

SECRET = b"s" * 32
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def key(
    name: str,
    *,
    only: Grants | None = None,
    limits: Limits | None = None,
    manages: bool = False,
    **more: int,
) -> Key:
    """A key of which the token is `name`. Its id is given by `told_keys`."""
    scopes = frozenset(Scope) if manages else frozenset({Scope.INFERENCE})
    kind = KeyKind.MANAGEMENT if manages else KeyKind.INFERENCE
    return Key(
        id=0, name=name, kind=kind, prefix=name, created=_NOW, updated=_NOW, permissions=Permissions(scopes, only),
        limits=limits or Limits(), **more,
    )  # fmt: skip


def told_keys(*keys: Key, config_keys: tuple[str, ...] = ()) -> Keys:
    """What the control process tells a worker; ids count from 1."""
    hasher = TokenHasher(SECRET)
    rows = [
        KeyRow(
            id=number, name=one.name, digest=hasher.digest(one.name).hex(), prefix=one.prefix, secret=hasher.name,
            spec=spec_of(one), created=_NOW, updated=_NOW,
        )
        for number, one in enumerate(keys, 1)
    ]  # fmt: skip
    return Keys(secret=SECRET, config_keys=config_keys, revision=1, rows=rows)
