"""API keys."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, update

from garrison.store.key_store import KeyRow, KeyTable
from garrison.store.sql.schema import api_keys, meta

__all__ = ["create", "find", "remove", "revision", "save", "touch"]

_FIELDS = tuple(name for name in KeyRow.__slots__ if name != "id")
_CHANGING = tuple(name for name in _FIELDS if name not in ("created", "last_used"))
_COUNT = update(meta).values(keys_revision=meta.c.keys_revision + 1)
_REVISION = select(meta.c.keys_revision)
_TOUCH = (
    update(api_keys)
    .where(
        api_keys.c.id == bindparam("_id"),
        or_(api_keys.c.last_used.is_(None), api_keys.c.last_used < bindparam("_at", type_=api_keys.c.last_used.type)),
    )
    .values(last_used=bindparam("_at", type_=api_keys.c.last_used.type))
)


def revision(connection: Connection) -> int:
    return int(connection.execute(_REVISION).scalar_one())


def find(connection: Connection) -> KeyTable:
    rows = connection.execute(select(api_keys).order_by(api_keys.c.id)).mappings()
    return KeyTable(revision(connection), tuple(KeyRow(**row) for row in rows))


def create(connection: Connection, row: KeyRow) -> KeyRow:
    made = connection.execute(insert(api_keys).values({name: getattr(row, name) for name in _FIELDS}))
    connection.execute(_COUNT)
    assert made.inserted_primary_key is not None
    return replace(row, id=made.inserted_primary_key[0])


def save(connection: Connection, row: KeyRow) -> bool:
    known = api_keys.c.id == row.id, api_keys.c.revision == row.revision - 1
    values = {name: getattr(row, name) for name in _CHANGING}
    done = connection.execute(update(api_keys).where(*known).values(values)).rowcount == 1
    if done:
        connection.execute(_COUNT)
    return done


def remove(connection: Connection, number: int) -> bool:
    done = connection.execute(delete(api_keys).where(api_keys.c.id == number)).rowcount == 1
    if done:
        connection.execute(_COUNT)
    return done


def touch(connection: Connection, times: Mapping[int, datetime]) -> None:
    connection.execute(_TOUCH, [{"_id": number, "_at": at} for number, at in sorted(times.items())])
