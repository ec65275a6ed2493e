"""The history."""

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import Connection, func, insert, select

from garrison.store.records import Event
from garrison.store.sql.batches import batches
from garrison.store.sql.schema import events

__all__ = ["add", "find", "last_times"]

_FIELDS = tuple(name for name in Event.__slots__ if name != "id")
_ADD = insert(events)


def add(connection: Connection, added: Iterable[Event]) -> None:
    if rows := [{name: getattr(one, name) for name in _FIELDS} for one in added]:
        connection.execute(_ADD, rows)


def find(
    connection: Connection,
    *,
    stack: str | None,
    target: str | None,
    name: str | None,
    kinds: Collection[str] | None,
    subject: tuple[str, str] | None,
    since: datetime | None,
    after_id: int | None,
    limit: int,
) -> list[Event]:
    query = select(events).limit(limit)
    for column, wanted in ((events.c.stack, stack), (events.c.target, target), (events.c.name, name)):
        if wanted is not None:
            query = query.where(column == wanted)
    if subject is not None:
        query = query.where(events.c.subject_kind == subject[0], events.c.subject_name == subject[1])
    if kinds is not None:
        query = query.where(events.c.kind.in_(kinds))
    if since is not None:
        query = query.where(events.c.at >= since)
    if after_id is not None:
        query = query.where(events.c.id > after_id).order_by(events.c.id)
    else:
        query = query.order_by(events.c.id.desc())
    return [Event(**row) for row in connection.execute(query).mappings()]


def last_times(connection: Connection, kind: str, targets: Collection[str]) -> dict[str, datetime]:
    query = select(events.c.target, func.max(events.c.at, type_=events.c.at.type)).group_by(events.c.target)
    query = query.where(events.c.kind == kind)
    return {
        name: at for some in batches(targets) for name, at in connection.execute(query.where(events.c.target.in_(some)))
    }
