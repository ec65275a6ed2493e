"""API keys and the audit log in the in-memory store."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from garrison.base.errors import InternalError
from garrison.store.audit_store import AuditRow
from garrison.store.key_store import KeyRow, KeyTable
from garrison.store.records import Event
from garrison.testing.store_state import MemoryState, locked

__all__ = ["AccessInMemory"]


class AccessInMemory(MemoryState):
    """The part of `MemoryStore` that knows API keys and the audit log."""

    @locked
    def keys_revision(self) -> int:
        return self._keys_revision

    @locked
    def keys(self) -> KeyTable:
        return KeyTable(self._keys_revision, tuple(row for _, row in sorted(self._keys.items())))

    @locked
    def create_key(self, row: KeyRow, events: Iterable[Event] = ()) -> KeyRow:
        if any(one.digest == row.digest for one in self._keys.values()):
            raise InternalError("the database in memory refused a row: its digest is on record")
        self._last_key += 1
        self._keys_revision += 1
        self._keys[self._last_key] = made = replace(row, id=self._last_key)
        self._add(events)
        return made

    @locked
    def save_key(self, row: KeyRow, events: Iterable[Event] = ()) -> bool:
        known = self._keys.get(row.id)
        if known is None or known.revision != row.revision - 1:
            return False
        self._keys_revision += 1
        self._keys[row.id] = replace(row, created=known.created, last_used=known.last_used)
        self._add(events)
        return True

    @locked
    def delete_key(self, id: int, events: Iterable[Event] = ()) -> bool:
        if self._keys.pop(id, None) is None:
            return False
        self._keys_revision += 1
        self._add(events)
        return True

    @locked
    def touch_keys(self, times: Mapping[int, datetime]) -> None:
        for number, at in times.items():
            known = self._keys.get(number)
            if known is not None and (known.last_used is None or known.last_used < at):
                self._keys[number] = replace(known, last_used=at)

    @locked
    def add_audit(self, rows: Sequence[AuditRow]) -> None:
        for one in rows:
            self._last_audit += 1
            self._audit.append(replace(one, id=self._last_audit))

    @locked
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
        found = [
            one
            for one in reversed(self._audit)
            if (key_id is None or one.key_id == key_id)
            and (action is None or one.action == action)
            and (subject is None or (one.subject_kind, one.subject_name) == subject)
            and (since is None or one.at >= since)
            and (before_id is None or one.id < before_id)
        ]
        return found[:limit]
