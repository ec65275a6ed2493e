"""The table of keys in memory: checking a token costs a hash and a lookup, and no call of the database."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from hmac import compare_digest

from garrison.access.identity import Caller, Identity, config_key
from garrison.access.key import Key
from garrison.access.permissions import Scope
from garrison.access.stored import key_of
from garrison.access.tokens import TokenHasher
from garrison.base.errors import UnauthenticatedError
from garrison.store.key_store import KeyRow, KeyTable

__all__ = ["KeyBook", "Refusal", "make_book"]


class Refusal(StrEnum):
    """Why a token is not accepted. All but the first two are told only to who has a token that was once right."""

    MISSING = "missing"
    UNKNOWN = "unknown"
    DISABLED = "disabled"
    EXPIRED = "expired"
    ROTATED = "rotated"

    @property
    def message(self) -> str:
        return _MESSAGES[self]

    def error(self) -> UnauthenticatedError:
        """Return the error of a call that needs a valid token."""
        hint = "Send it as `Authorization: Bearer KEY` or `X-API-Key: KEY`; `garrison keys create` makes one."
        return UnauthenticatedError(self.message, hint=hint, details={"reason": str(self)})


_MESSAGES = {
    Refusal.MISSING: "Missing API key",
    Refusal.UNKNOWN: "Invalid API key",
    Refusal.DISABLED: "Invalid API key: it is disabled",
    Refusal.EXPIRED: "Invalid API key: it has expired",
    Refusal.ROTATED: "Invalid API key: it was replaced by another token",
}
"""The first words are llamactl's."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """One token. `until`: it was replaced, and is accepted until then."""

    digest: bytes
    identity: Identity
    enabled: bool = True
    expires_at: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyBook:
    """Every key as of one revision of the keys. Immutable: a change makes another one.

    Attributes:
        revision: of the keys in the store; -1 before they were read.
        keys: by id.
        rows: what is stored about each key, by id.
        hasher: digests tokens as they are digested here.
    """

    revision: int
    keys: Mapping[int, Key]
    rows: Mapping[int, KeyRow] = field(repr=False)
    hasher: TokenHasher = field(repr=False)
    _entries: Mapping[bytes, _Entry] = field(repr=False)

    def check(self, token: str | None, now: datetime) -> Identity | Refusal:
        """Return whose token this is at `now`, or why it is not accepted."""
        return self.find(self.hasher.digest(token), lambda: now) if token else Refusal.MISSING

    def find(self, digest: bytes, now: Callable[[], datetime]) -> Identity | Refusal:
        """Return whose token has a digest of `hasher` at `now`, or why it is not accepted."""
        # What the lookup tells by its time is about the keyed digest, of which a stranger knows nothing.
        entry = self._entries.get(digest)
        if entry is None or not compare_digest(entry.digest, digest):
            return Refusal.UNKNOWN
        if entry.until is not None and now() >= entry.until:
            return Refusal.ROTATED
        if not entry.enabled:
            return Refusal.DISABLED
        if entry.expires_at is not None and now() >= entry.expires_at:
            return Refusal.EXPIRED
        return entry.identity

    def has_manager(self, now: datetime) -> bool:
        """Return whether some key may manage at `now`. Without one a server listens on loopback only."""
        return any(
            Scope.MANAGE in one.identity.permissions.scopes
            and one.enabled
            and (one.expires_at is None or one.expires_at > now)
            and one.until is None
            for one in self._entries.values()
        )

    @property
    def unusable(self) -> Collection[Key]:
        """Keys whose tokens were digested with another secret: nobody can be recognised by them here."""
        return [one for one in self.keys.values() if not one.usable]

    def following(self, revision: int, *, gone: KeyRow | None = None, new: KeyRow | None = None) -> "KeyBook":
        """Return the book after one change: without the row `gone`, and with the row `new`."""
        keys, rows, entries = dict(self.keys), dict(self.rows), dict(self._entries)
        if gone is not None:
            del keys[gone.id], rows[gone.id]
            for text in filter(None, (gone.digest, gone.previous_digest)):
                entries.pop(bytes.fromhex(text), None)
        if new is not None:
            rows[new.id] = new
            keys[new.id] = key = key_of(new, self.hasher.name)
            entries |= _entries_of(key, new)
        return KeyBook(revision, dict(sorted(keys.items())), rows, self.hasher, entries)


def make_book(table: KeyTable, hasher: TokenHasher, config_keys: Sequence[str] = ()) -> KeyBook:
    """Return the book of what is stored, and of the management keys of the settings."""
    rows = {row.id: row for row in table.rows}
    keys = {row.id: key_of(row, hasher.name) for row in table.rows}
    entries: dict[bytes, _Entry] = {}
    for number, row in rows.items():
        entries |= _entries_of(keys[number], row)
    for number, token in enumerate(config_keys, 1):
        digest = hasher.digest(token)
        entries[digest] = _Entry(digest, config_key(number))
    return KeyBook(table.revision, keys, rows, hasher, entries)


def _entries_of(key: Key, row: KeyRow) -> dict[bytes, _Entry]:
    if not key.usable:
        return {}
    identity = Identity(
        caller=Caller.KEY, name=key.name, permissions=key.permissions, limits=key.limits, priority=key.priority,
        key_id=key.id,
    )  # fmt: skip
    tokens: list[tuple[str, datetime | None]] = [(row.digest, None)]
    if row.previous_digest is not None:
        tokens.append((row.previous_digest, row.rotates_until))
    found = [_Entry(bytes.fromhex(text), identity, key.enabled, key.expires_at, until) for text, until in tokens]
    return {one.digest: one for one in found}
