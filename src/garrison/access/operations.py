"""The verbs on keys that a command or a page calls: here, or on a server elsewhere."""

from typing import Protocol

from garrison.access.changes import KeyChange, NewKey
from garrison.access.key import Issued, Key

__all__ = ["KeyOperations"]


class KeyOperations(Protocol):
    """Arguments and results are values that can be sent; see `stored.key_to_json` and `key_from_json`.

    Raises:
        NotFoundError: there is no key of this id.
        ConflictError: it has another revision than `revision`, where one is given.
        InvalidError: a value cannot be used. Details: `field`.
        GarrisonError: the store or the server cannot be reached, or refuses.
    """

    async def list_keys(self) -> list[Key]:
        """Return every key, by id."""

    async def get_key(self, id: int) -> Key:
        """Return one key."""

    async def create_key(self, new: NewKey) -> Issued:
        """Make a key. Its token is told only here."""

    async def update_key(self, id: int, change: KeyChange, *, revision: int | None = None) -> Key:
        """Change a key, and return it as it is then."""

    async def rotate_key(self, id: int, overlap: float = 0.0, *, revision: int | None = None) -> Issued:
        """Give a key another token.

        The token before it is accepted for another `overlap` seconds; one from an earlier rotation no longer is.
        """

    async def delete_key(self, id: int, *, revision: int | None = None) -> Key:
        """Delete a key, and return it as it was."""
