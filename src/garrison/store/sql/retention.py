"""Retention: finds old rows in a read, and deletes them in small batches, releasing the writer lock between batches.

Rows that were found stay deletable whatever others write meanwhile: versions and observations are only appended, and a
command that has ended does not run again.
"""

import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    literal_column,
    or_,
    select,
)

from garrison.store.records import CommandState
from garrison.store.sql.database import Database
from garrison.store.sql.schema import actions, audit, commands, events, observations, owned, resources, stacks, targets

__all__ = ["prune"]

_BATCH = 500
"""Rows that one transaction deletes, approximately."""

_KEY = ("target", "type", "name")
_RUNNING: ColumnElement[str] = literal_column(f"'{CommandState.RUNNING}'")

T = TypeVar("T")


def prune(database: Database, before: datetime) -> int:
    """Delete what is older than `before`, as `UpkeepStore.prune` describes; return the number of rows."""
    with database.read() as connection:
        versions = _old_versions(connection, before)
        seen = _old_observations(connection, before)
    gone = sum(_delete_old(database, one, before) for one in (_EVENTS, _AUDIT))
    gone += _delete(database, _OBSERVATION, ({"this": number} for number in seen))
    gone += _delete(database, _VERSIONS, (step for span in versions for step in _steps(span)), rows=1)
    # Commands last: one is kept as long as a version refers to it, and old versions are gone now.
    with database.read() as connection:
        ended = _old_commands(connection, before)
    for command, count in ended:
        for start in range(0, count, _BATCH):
            some = actions.c.command == command, actions.c.seq < start + _BATCH
            gone += _write(database, delete(actions).where(*some))
    gone += _delete(database, _ACTIONS, ({"this": command} for command, _ in ended))
    return gone + _delete(database, _COMMAND, ({"this": command} for command, _ in ended))


class _Span(NamedTuple):
    """Versions of one key, from `first` to `end`, exclusive."""

    key: dict[str, str]
    first: int
    end: int


def _oldest(table: Table) -> Delete:
    """Return the statement that deletes a batch of the rows before `:before`."""
    old = select(table.c.id).where(table.c.at < bindparam("before")).order_by(table.c.at).limit(_BATCH)
    return delete(table).where(table.c.id.in_(old))


_EVENTS, _AUDIT = _oldest(events), _oldest(audit)
_OBSERVATION = delete(observations).where(observations.c.id == bindparam("this"))
_ACTIONS = delete(actions).where(actions.c.command == bindparam("this"))
_COMMAND = delete(commands).where(commands.c.id == bindparam("this"))
_VERSIONS = delete(resources).where(
    *(resources.c[name] == bindparam(f"this_{name}") for name in _KEY), resources.c.version < bindparam("end")
)


def _old_versions(connection: Connection, before: datetime) -> list[_Span]:
    """Return the old versions of each key, up to the first one that must be kept.

    Versions after that one are kept, too, so that the last version always tells whether the key is owned.
    """
    is_owned = and_(*(owned.c[name] == resources.c[name] for name in (*_KEY, "version")))
    kept = or_(resources.c.at >= before, owned.c.version.is_not(None), commands.c.state == _RUNNING)
    first = func.min(resources.c.version)
    end = func.coalesce(func.min(case((kept, resources.c.version))), func.max(resources.c.version) + 1)
    columns = [resources.c[name] for name in _KEY]
    query = (
        select(*columns, first, end)
        .join_from(resources, owned, is_owned, isouter=True)
        .join(commands, and_(commands.c.id == resources.c.command, commands.c.state == _RUNNING), isouter=True)
        .group_by(*columns)
        .having(first < end)
    )
    return [
        _Span({f"this_{name}": value for name, value in zip(_KEY, row[:3], strict=True)}, row[3], row[4])
        for row in connection.execute(query)
    ]


def _steps(span: _Span) -> Iterator[dict[str, Any]]:
    """Yield the ends of batches, oldest versions first: the next version number follows from the last one left."""
    for end in range(span.first + _BATCH, span.end, _BATCH):
        yield span.key | {"end": end}
    yield span.key | {"end": span.end}


def _old_observations(connection: Connection, before: datetime) -> list[int]:
    last = (
        select(func.max(observations.c.id))
        .where(observations.c.target.in_(select(targets.c.name)))
        .group_by(observations.c.target)
    )
    query = select(observations.c.id).where(observations.c.at < before, observations.c.id.not_in(last))
    return list(connection.scalars(query))


def _old_commands(connection: Connection, before: datetime) -> list[tuple[str, int]]:
    """Return each command with the number of its last action plus one."""
    same = and_(*(owned.c[name] == resources.c[name] for name in (*_KEY, "version")))
    made = select(resources.c.command).join_from(owned, resources, same).where(resources.c.command.is_not(None))
    used = made.union(select(stacks.c.command).where(stacks.c.command.is_not(None)))
    count = func.coalesce(func.max(actions.c.seq) + 1, 0)
    query = (
        select(commands.c.id, count)
        .join_from(commands, actions, actions.c.command == commands.c.id, isouter=True)
        .where(commands.c.state != _RUNNING, commands.c.ended_at < before, commands.c.id.not_in(used))
        .group_by(commands.c.id)
    )
    return [(row[0], row[1]) for row in connection.execute(query)]


def _delete_old(database: Database, statement: Delete, before: datetime) -> int:
    gone = 0
    while some := _write(database, statement, {"before": before}):
        gone += some
    return gone


def _delete(database: Database, statement: Delete, rows_of: Iterable[dict[str, Any]], *, rows: int = _BATCH) -> int:
    """Run `statement` for each of `rows_of`, `rows` of them per transaction."""
    rest = iter(rows_of)
    gone = 0
    while some := list(islice(rest, rows)):
        gone += _write(database, statement, some)
    return gone


def _write(database: Database, statement: Delete, parameters: Any = None) -> int:
    """Delete one batch, then pause for as long as that took.

    Other writers poll for the lock, so they get it only if it is free for as long as it was held.
    """
    begun = time.perf_counter()
    with database.write() as connection:
        gone = connection.execute(statement, parameters).rowcount
    time.sleep(min(1.0, time.perf_counter() - begun))
    return gone
