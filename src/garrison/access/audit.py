"""The audit log: every management call, by whom, on what, and what came of it.

    with log.call(identity, "instances.start", ("instance", "qwen"), request_id=…) as call:
        call.before, call.after = …

The call is written when the block ends, however it ends: an error gives its status and code.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from garrison.access.audit_entry import Outcome, audit_row, outcome_of
from garrison.access.identity import Identity
from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import GarrisonError
from garrison.base.logs import logger
from garrison.net.thread_pool import ThreadPool
from garrison.store.audit_store import AuditRow, AuditStore

__all__ = ["AuditFilter", "AuditLog", "AuditPage", "Call"]

_MOST_WAITING = 10_000
"""Kept for a store that cannot be written. The oldest are dropped, counted and logged."""
_BATCH = 500
_RETRY_SECONDS = 5.0
_MOST_LISTED = 1000

_log = logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFilter:
    """Which calls are listed; all of those that are set must match. `subject` is a kind and a name."""

    key_id: int | None = None
    action: str | None = None
    subject: tuple[str, str] | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditPage:
    """Calls, newest first. `next` continues the list; None at its end."""

    calls: tuple[AuditRow, ...]
    next: int | None


@dataclass(slots=True)
class Call:
    """A call in progress; the caller fills in what it learns.

    Attributes:
        subject: kind and name of what it is done to.
        before, after: JSON; secrets in it are hidden before it is kept.
        outcome: of a call that ends well.
    """

    subject: tuple[str, str]
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    outcome: Outcome = field(default_factory=lambda: Outcome(200, "ok"))


class AuditLog:
    """Appends calls to the store, in batches, without holding up the event loop.

    Attributes:
        dropped: calls that were lost because the store could not be written for long.

    Args:
        node: the name of this machine.
    """

    def __init__(self, store: AuditStore, *, pool: ThreadPool, clock: Clock | None = None, node: str = "") -> None:
        self.dropped = 0
        self._store = store
        self._pool = pool
        self._clock = clock or SystemClock()
        self._node = node
        self._waiting: list[AuditRow] = []
        self._writing: asyncio.Task[None] | None = None

    @contextmanager
    def call(
        self, who: Identity, action: str, subject: tuple[str, str], *, request_id: str = "", peer: str = ""
    ) -> Iterator[Call]:
        """Record what is done in the block: on an event loop, since it is written later.

        Args:
            action: a verb, such as `keys.create`.
            subject: kind and name of what it is done to, as far as they are known.
            peer: the address that the call came from.
        """
        at = self._clock.now()
        call = Call(subject)
        try:
            yield call
        except BaseException as error:
            call.outcome = outcome_of(error)
            raise
        finally:
            self.put(
                audit_row(
                    who,
                    action,
                    call.subject,
                    at=at,
                    before=call.before,
                    after=call.after,
                    outcome=call.outcome,
                    request_id=request_id,
                    peer=peer,
                    node=self._node,
                )
            )

    def put(self, row: AuditRow) -> None:
        """Write a call soon."""
        self._waiting.append(row)
        if (excess := len(self._waiting) - _MOST_WAITING) > 0:
            del self._waiting[:excess]
            self.dropped += excess
            _log.error("audited calls are lost, because the store cannot be written", lost=self.dropped)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def page(
        self, chosen: AuditFilter | None = None, *, before_id: int | None = None, limit: int = 100
    ) -> AuditPage:
        """Return calls, newest first, with those that were put before.

        Args:
            before_id: `next` of the page before.
            limit: from 1 to 1000; a value outside is moved inside.

        Raises:
            GarrisonError: the store cannot be read.
        """
        await self.flush(_RETRY_SECONDS)
        wanted, limit = chosen or AuditFilter(), min(max(1, limit), _MOST_LISTED)

        def read() -> list[AuditRow]:
            return self._store.audit(
                key_id=wanted.key_id,
                action=wanted.action,
                subject=wanted.subject,
                since=wanted.since,
                before_id=before_id,
                limit=limit + 1,
            )

        found = await self._pool.run(read, "read the audit log")
        more = len(found) > limit
        return AuditPage(tuple(found[:limit]), found[limit - 1].id if more else None)

    async def flush(self, seconds: float) -> bool:
        """Wait until every call is on disk, at most `seconds`; return whether it is."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=seconds)
        return self._writing is None

    async def close(self, seconds: float) -> int:
        """Write what waits, within a limit; return how many calls were lost since the start."""
        if not await self.flush(seconds) and self._writing is not None:
            self._writing.cancel()
            self.dropped += len(self._waiting)
            _log.error("audited calls are lost, because the store cannot be written", lost=self.dropped)
        return self.dropped

    async def _write_all(self) -> None:
        try:
            while some := self._waiting[:_BATCH]:
                try:
                    await self._pool.run(_adding(self._store, some), "write the audit log")
                except GarrisonError as error:
                    _log.warning("the audit log cannot be written", error=error.message, waiting=len(self._waiting))
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    # The oldest may have been dropped meanwhile, from the beginning of these.
                    written = set(map(id, some))
                    self._waiting = [one for one in self._waiting if id(one) not in written]
        finally:
            self._writing = None


def _adding(store: AuditStore, rows: list[AuditRow]) -> Callable[[], None]:
    return lambda: store.add_audit(rows)
