"""Tokens: how they are made, recognised and digested.

A token is `grs-inf-` or `grs-mgmt-` and 64 random hexadecimal digits, 256 bits. The words say at a glance, and to a
scanner of repositories, what was found. The first digits are kept with the key, so that people recognise it.
"""

import hashlib
import secrets
from enum import StrEnum

__all__ = ["KeyKind", "TokenHasher", "new_token", "prefix_of"]

_BYTES = 32
_SHOWN_DIGITS = 6
_DIGEST_BYTES = 32
_LONGEST = 1024


class KeyKind(StrEnum):
    """What a token looks like; decided when its key is created, and kept."""

    INFERENCE = "inference"
    MANAGEMENT = "management"

    @property
    def beginning(self) -> str:
        return "grs-inf-" if self is KeyKind.INFERENCE else "grs-mgmt-"


def new_token(kind: KeyKind) -> str:
    """Return a random token."""
    return kind.beginning + secrets.token_hex(_BYTES)


def prefix_of(token: str) -> str:
    """Return the part of a token that may be shown: its words and six digits, which leave 232 bits unknown."""
    return token[: token.rindex("-") + 1 + _SHOWN_DIGITS]


class TokenHasher:
    """Digests tokens with a secret, so that a copy of the database is no use for guessing a token.

    Tokens are random, so that a fast function is enough; one that is slow on purpose would only let strangers keep the
    processor busy.

    Args:
        secret: 32 to 64 bytes; see `key_secret`.

    Attributes:
        name: identifies the secret without telling it.
    """

    __slots__ = ("_secret", "name")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self.name = hashlib.blake2b(b"", digest_size=8, key=secret, person=b"garrison-name").hexdigest()

    def digest(self, token: str) -> bytes:
        """Return 32 bytes for a token. A longer text than any token is cut: it is refused in any case."""
        text = token[:_LONGEST].encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=_DIGEST_BYTES, key=self._secret, person=b"garrison-token").digest()
