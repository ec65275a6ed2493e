"""Leases: who may write a stack.

One clock decides when a lease ends. On a database server it is the server's, since the clocks of two hosts differ:
times that are handed in are shifted to it. SQLite and the in-memory twin serve one machine, and take the caller's.
"""

from datetime import datetime
from typing import Protocol

from garrison.store.records import Lease

__all__ = ["LeaseStore"]


class LeaseStore(Protocol):
    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        """Take the stack if nobody holds it, if the holder's lease has expired, or if its token is `instead_of` (that
        of a holder known to be dead). Of two callers at once, one succeeds.

        Args:
            lease: it lasts from `now` until its `expires_at`.
            now: the caller's time.

        Returns:
            None on success, otherwise the holder's lease.
        """

    def renew(self, token: str, expires_at: datetime, now: datetime) -> bool:
        """Let the lease end at `expires_at`, by the clock that says `now`. False when it is no longer ours. A lease
        that has expired and was not taken is ours again."""

    def release(self, token: str) -> None:
        """Give the stack back, if the lease is still ours."""

    def leases(self, *, now: datetime | None = None) -> list[Lease]:
        """By stack.

        Args:
            now: the caller's time. Leave out those that have expired, and give the times of the others by that clock.
        """
