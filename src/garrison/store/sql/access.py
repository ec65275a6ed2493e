"""The part of `SqlStore` that knows API keys and the audit log."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from garrison.store.audit_store import AuditRow
from garrison.store.key_store import KeyRow, KeyTable
from garrison.store.records import Event
from garrison.store.sql import audit as _audit
from garrison.store.sql import events as _events
from garrison.store.sql import keys as _keys
from garrison.store.sql.database import Database

__all__ = ["AccessInSql"]


class AccessInSql:
    """`KeyStore` and `AuditStore` on SQLite or PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def keys_revision(self) -> int:
        with self._database.read() as connection:
            return _keys.revision(connection)

    def keys(self) -> KeyTable:
        with self._database.read() as connection:
            return _keys.find(connection)

    def create_key(self, row: KeyRow, events: Iterable[Event] = ()) -> KeyRow:
        with self._database.write() as connection:
            made = _keys.create(connection, row)
            _events.add(connection, events)
            return made

    def save_key(self, row: KeyRow, events: Iterable[Event] = ()) -> bool:
        with self._database.write() as connection:
            if done := _keys.save(connection, row):
                _events.add(connection, events)
            return done

    def delete_key(self, id: int, events: Iterable[Event] = ()) -> bool:
        with self._database.write() as connection:
            if done := _keys.remove(connection, id):
                _events.add(connection, events)
            return done

    def touch_keys(self, times: Mapping[int, datetime]) -> None:
        if not times:
            return
        with self._database.write(ordered=False) as connection:
            _keys.touch(connection, times)

    def add_audit(self, rows: Sequence[AuditRow]) -> None:
        if not rows:
            return
        with self._database.write() as connection:
            _audit.add(connection, rows)

    def audit(
        self,
        *,
        key_id: int | None = None,
        action: str | None = None,
        subject: tuple[str, str] | None = None,
        since: datetime | None = None,
        before_id: int | None = None,
        limit: int = 100,
    ) -> list[AuditRow]:
        with self._database.read() as connection:
            return _audit.find(
                connection,
                key_id=key_id,
                action=action,
                subject=subject,
                since=since,
                before_id=before_id,
                limit=limit,
            )
