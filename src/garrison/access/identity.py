"""Who makes a call."""

from dataclasses import dataclass
from enum import StrEnum

from garrison.access.permissions import ALL, UNLIMITED, Limits, Permissions, Scope

__all__ = ["Caller", "Identity", "anonymous", "config_key", "owner"]


class Caller(StrEnum):
    """The kind of caller."""

    KEY = "key"
    """The holder of a stored key."""
    CONFIG = "config"
    """The holder of a management key from the settings."""
    OWNER = "owner"
    """The owner of the data directory, on the unix socket or at the command line."""
    ANONYMOUS = "anonymous"
    """Anybody, where authentication is switched off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who makes a call, and what that caller may do.

    Attributes:
        name: of the key; for others, words that tell them apart in the audit log.
        priority: of its requests where they wait.
        key_id: of a stored key.
        uid: of an owner.
    """

    caller: Caller
    name: str
    permissions: Permissions
    limits: Limits = UNLIMITED
    priority: int = 0
    key_id: int | None = None
    uid: int | None = None


def owner(uid: int) -> Identity:
    """Return the identity of a local user whose uid is that of this process, as the kernel or the process tells it."""
    return Identity(caller=Caller.OWNER, name=f"uid {uid}", permissions=ALL, uid=uid)


def config_key(number: int) -> Identity:
    """Return the identity of a management key from the settings; `number` is its place there, from 1."""
    return Identity(caller=Caller.CONFIG, name=f"management_keys {number}", permissions=ALL)


def anonymous(*, infers: bool, manages: bool) -> Identity:
    """Return the identity of a caller without a key.

    Args:
        infers: inference needs no key (`require_inference_auth` is off).
        manages: the management API needs none (`require_management_auth` is off).
    """
    scopes = ({Scope.INFERENCE} if infers else set()) | ({Scope.READ, Scope.MANAGE} if manages else set())
    return Identity(caller=Caller.ANONYMOUS, name="anonymous", permissions=Permissions(frozenset(scopes)))
