"""Leases: which process may write a stack. On PostgreSQL the server's clock decides; see `lease_store`."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, DateTime, delete, func, insert, select, update

from garrison.store.records import Holder, Lease
from garrison.store.rules import can_take
from garrison.store.sql.schema import leases

__all__ = ["acquire", "all_leases", "release", "renew"]


def acquire(connection: Connection, lease: Lease, now: datetime, instead_of: str | None) -> Lease | None:
    """Take the stack, or return the lease that holds it.

    The caller holds the writer lock, so that nobody else takes the stack between read and write. Renewals take no such
    lock, so the row is locked against them.
    """
    ahead = _server_ahead(connection, now)
    now += ahead
    lease = replace(lease, acquired_at=lease.acquired_at + ahead, expires_at=lease.expires_at + ahead)
    mine = leases.c.stack == lease.stack
    row = connection.execute(select(leases).where(mine).with_for_update()).first()
    held = None if row is None else _record(row)
    if not can_take(held, lease, now, instead_of):
        return held
    connection.execute(delete(leases).where(mine))
    connection.execute(
        insert(leases).values(
            stack=lease.stack,
            token=lease.token,
            holder=asdict(lease.holder),
            acquired_at=lease.acquired_at,
            expires_at=lease.expires_at,
        )
    )
    return None


def renew(connection: Connection, token: str, expires_at: datetime, now: datetime) -> bool:
    until = expires_at + _server_ahead(connection, now)
    renewed = connection.execute(update(leases).where(leases.c.token == token).values(expires_at=until))
    return renewed.rowcount > 0


def release(connection: Connection, token: str) -> None:
    connection.execute(delete(leases).where(leases.c.token == token))


def all_leases(connection: Connection, now: datetime | None) -> list[Lease]:
    found = [_record(row) for row in connection.execute(select(leases).order_by(leases.c.stack))]
    if now is None or not found:
        return found
    ahead = _server_ahead(connection, now)
    return [
        replace(lease, acquired_at=lease.acquired_at - ahead, expires_at=lease.expires_at - ahead)
        for lease in found
        if lease.expires_at > now + ahead
    ]


def _server_ahead(connection: Connection, now: datetime) -> timedelta:
    """Return how far the deciding clock is ahead of the caller's.

    Not by the transaction's start time, since this transaction may have waited for the writer lock.
    """
    if connection.dialect.name != "postgresql":
        return timedelta()
    there: datetime = connection.execute(select(func.clock_timestamp(type_=DateTime(timezone=True)))).scalar_one()
    return there - now


def _record(row: Sequence[Any]) -> Lease:
    stack, token, holder, acquired_at, expires_at = row
    return Lease(stack=stack, token=token, holder=Holder(**holder), acquired_at=acquired_at, expires_at=expires_at)
