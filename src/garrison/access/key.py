"""An API key, as everybody but the store knows it: without its token, and without the token's digest."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from garrison.access.permissions import INFERENCE, UNLIMITED, Limits, Permissions
from garrison.access.tokens import KeyKind

__all__ = ["Issued", "Key", "KeyState"]


class KeyState(StrEnum):
    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    UNUSABLE = "unusable"
    """Its token was digested with another secret than that of this data directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One API key.

    Attributes:
        id: a number that is never used again.
        name: for people; several keys may have the same.
        prefix: the beginning of its token.
        priority: of its requests where they wait; those of a higher one go first.
        expires_at: its tokens are refused from then on; never if None.
        previous_prefix: the beginning of the token before the last rotation.
        rotates_until: that token is accepted until then.
        last_used: up to a minute late.
        revision: counts changes.
        usable: whether its token was digested with the secret of this data directory.
    """

    id: int
    name: str
    kind: KeyKind
    prefix: str
    created: datetime
    updated: datetime
    permissions: Permissions = INFERENCE
    limits: Limits = UNLIMITED
    priority: int = 0
    enabled: bool = True
    note: str = ""
    expires_at: datetime | None = None
    previous_prefix: str | None = None
    rotates_until: datetime | None = None
    last_used: datetime | None = None
    revision: int = 1
    usable: bool = True

    def state(self, now: datetime) -> KeyState:
        """Return whether its token is accepted at `now`, and if not, why."""
        if not self.usable:
            return KeyState.UNUSABLE
        if not self.enabled:
            return KeyState.DISABLED
        return KeyState.EXPIRED if self.expires_at is not None and self.expires_at <= now else KeyState.ACTIVE


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with a new token, which is told this once."""

    key: Key
    token: str

    def __repr__(self) -> str:
        return f"Issued({self.key!r})"
