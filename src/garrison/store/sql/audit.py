"""The audit log."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection, insert, select

from garrison.store.audit_store import AuditRow
from garrison.store.sql.schema import audit

__all__ = ["add", "find"]

_FIELDS = tuple(name for name in AuditRow.__slots__ if name != "id")
_ADD = insert(audit)


def add(connection: Connection, rows: Sequence[AuditRow]) -> None:
    connection.execute(_ADD, [{name: getattr(one, name) for name in _FIELDS} for one in rows])


def find(
    connection: Connection,
    *,
    key_id: int | None,
    action: str | None,
    subject: tuple[str, str] | None,
    since: datetime | None,
    before_id: int | None,
    limit: int,
) -> list[AuditRow]:
    query = select(audit).order_by(audit.c.id.desc()).limit(limit)
    if key_id is not None:
        query = query.where(audit.c.key_id == key_id)
    if action is not None:
        query = query.where(audit.c.action == action)
    if subject is not None:
        query = query.where(audit.c.subject_kind == subject[0], audit.c.subject_name == subject[1])
    if since is not None:
        query = query.where(audit.c.at >= since)
    if before_id is not None:
        query = query.where(audit.c.id < before_id)
    return [AuditRow(**row) for row in connection.execute(query).mappings()]
