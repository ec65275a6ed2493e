"""Leases: who may write a stack."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from garrison.store.records import Holder, Lease
from garrison.store.rules import can_take
from garrison.store.sql.schema import leases

__all__ = ["acquire", "all_leases", "release", "renew"]


def acquire(connection: Connection, lease: Lease, now: datetime, instead_of: str | None) -> Lease | None:
    """The caller holds the writer's lock, so that nobody takes it between the look and the write."""
    mine = leases.c.stack == lease.stack
    row = connection.execute(select(leases).where(mine)).first()
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


def renew(connection: Connection, token: str, expires_at: datetime) -> bool:
    renewed = connection.execute(update(leases).where(leases.c.token == token).values(expires_at=expires_at))
    return renewed.rowcount > 0


def release(connection: Connection, token: str) -> None:
    connection.execute(delete(leases).where(leases.c.token == token))


def all_leases(connection: Connection) -> list[Lease]:
    return [_record(row) for row in connection.execute(select(leases).order_by(leases.c.stack))]


def _record(row: Sequence[Any]) -> Lease:
    stack, token, holder, acquired_at, expires_at = row
    return Lease(stack=stack, token=token, holder=Holder(**holder), acquired_at=acquired_at, expires_at=expires_at)
