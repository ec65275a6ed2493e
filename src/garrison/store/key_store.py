"""API keys: what each may do, and the digests by which their tokens are recognised."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from garrison.store.records import Event

__all__ = ["KeyRow", "KeyStore", "KeyTable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """One API key. No token is ever stored.

    Attributes:
        id: a number that is never used again; 0 before it is stored.
        digest: of its token, in hexadecimal digits; unique.
        prefix: the beginning of its token, by which people recognise it.
        secret: names the secret with which `digest` was computed.
        spec: JSON; the rooms above know what it means.
        expires_at: the token is refused from then on; never if None.
        previous_digest, previous_prefix: of the token before the last rotation.
        rotates_until: the previous token is accepted until then.
        last_used: written in batches, so that it lags behind.
        revision: counts changes; `last_used` is none.
    """

    name: str
    digest: str = field(repr=False)
    prefix: str
    secret: str
    spec: Mapping[str, Any]
    created: datetime
    updated: datetime
    expires_at: datetime | None = None
    previous_digest: str | None = field(default=None, repr=False)
    previous_prefix: str | None = None
    rotates_until: datetime | None = None
    last_used: datetime | None = None
    revision: int = 1
    id: int = 0


@dataclass(frozen=True, slots=True)
class KeyTable:
    """Every key, by id, as of one revision of the keys."""

    revision: int
    rows: Sequence[KeyRow]


class KeyStore(Protocol):
    def keys_revision(self) -> int:
        """Return a number that grows whenever a key is created, changed or deleted; cheap."""

    def keys(self) -> KeyTable:
        """Return every key."""

    def create_key(self, row: KeyRow, events: Iterable[Event] = ()) -> KeyRow:
        """Store a new key, append to the history, and return the key with its id."""

    def save_key(self, row: KeyRow, events: Iterable[Event] = ()) -> bool:
        """Replace a key by id, and append to the history.

        `created` and `last_used` stay as they are.

        Returns:
            False, and nothing is done, unless the stored revision is the one before that of `row`.
        """

    def delete_key(self, id: int, events: Iterable[Event] = ()) -> bool:
        """Delete a key and append to the history; False, and nothing is done, if it does not exist."""

    def touch_keys(self, times: Mapping[int, datetime]) -> None:
        """Write when keys were last used, by id. An earlier time than the one on record changes nothing."""
