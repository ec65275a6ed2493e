"""The database's own facts, digests on record, and retention."""

from datetime import datetime
from typing import Protocol

from garrison.store.records import Changes

__all__ = ["UpkeepStore"]


class UpkeepStore(Protocol):
    def revision(self) -> int:
        """A number that grows whenever stacks, target specs or resources change."""

    def changes(self, since: int) -> Changes:
        """What changed after revision `since`; everything for -1. For callers that keep a copy."""

    def identity(self) -> str:
        """A random id of this database, made with it. It names the owner of an adapter store."""

    def content(self, path: str, stamp: str) -> str | None:
        """The digest on record for the content at `path`, if its stamp (sizes and times of the files) is the same."""

    def put_content(self, path: str, stamp: str, digest: str) -> None:
        """Record a digest, in place of the one for another stamp."""

    def prune(self, before: datetime) -> int:
        """Delete what is older: events, observations other than each target's last, ended commands with their actions,
        and resource versions, but never the version that is owned, nor anything a stack, an owned resource or a running
        command refers to. It goes in small batches, so that other writers do not wait for the whole.

        Returns:
            How many rows were deleted.
        """

    def close(self) -> None:
        """Close the connections."""
