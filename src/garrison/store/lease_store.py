"""Leases: which process may write a stack.

One clock decides when a lease ends. On a database server it is the server's, since the clocks of two hosts differ:
times that callers pass are converted to it. SQLite and the in-memory twin serve one machine and use the caller's
clock.
"""

from datetime import datetime
from typing import Protocol

from garrison.store.records import Lease

__all__ = ["LeaseStore"]


class LeaseStore(Protocol):
    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        """Take the stack if nobody holds it, if the holder's lease has expired, or if its token is `instead_of`.

        If two callers do so at once, one succeeds.

        Args:
            lease: it lasts from `now` until its `expires_at`.
            now: the caller's time.
            instead_of: the token of a holder known to be dead.

        Returns:
            None on success, otherwise the holder's lease.
        """

    def renew(self, token: str, expires_at: datetime, now: datetime) -> bool:
        """Extend the lease to `expires_at`, by the caller's clock, which reads `now`.

        Returns:
            False if another process has taken the stack. An expired lease that nobody has taken can be renewed.
        """

    def release(self, token: str) -> None:
        """Release the stack, if the lease still exists."""

    def leases(self, *, now: datetime | None = None) -> list[Lease]:
        """Return leases, by stack.

        Args:
            now: the caller's time. If given, expired leases are omitted, and times are those of the caller's clock.
        """
