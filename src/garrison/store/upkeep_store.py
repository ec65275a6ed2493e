"""The database's own facts, digests on record, and retention."""

from datetime import datetime
from typing import Protocol

from garrison.store.records import Changes

__all__ = ["UpkeepStore"]


class UpkeepStore(Protocol):
    def revision(self) -> int:
        """Return a number that grows whenever stacks, target specs or resources change."""

    def changes(self, since: int) -> Changes:
        """Return what changed after revision `since`, for callers that keep a copy; everything for -1."""

    def identity(self) -> str:
        """Return the random id of this database, created with it. It identifies the owner of an adapter store."""

    def content(self, path: str, stamp: str) -> str | None:
        """Return the digest on record for the content at `path`, if its stamp (file sizes and times) is the same."""

    def put_content(self, path: str, stamp: str, digest: str) -> None:
        """Record a digest. It replaces the one for any other stamp of `path`."""

    def prune(self, before: datetime) -> int:
        """Delete events, audited calls, observations, ended commands with their actions, and resource versions that
        are older.

        Kept are the last observation of each target, owned versions, and whatever a stack, an owned resource or a
        running command refers to. Rows are deleted in small batches, so that other writers do not wait for all of them.

        Returns:
            The number of deleted rows.
        """

    def close(self) -> None:
        """Close the connections."""
