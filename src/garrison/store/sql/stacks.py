"""Stacks, and the counter of what was declared."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from garrison.base.errors import ConflictError
from garrison.store.records import StackRecord
from garrison.store.sql.schema import meta, owned, stacks

__all__ = ["all_stacks", "count_up", "drop", "find", "save"]


def all_stacks(connection: Connection) -> list[StackRecord]:
    return [_record(row) for row in connection.execute(select(stacks).order_by(stacks.c.name))]


def find(connection: Connection, name: str) -> StackRecord | None:
    row = connection.execute(select(stacks).where(stacks.c.name == name)).first()
    return None if row is None else _record(row)


def save(connection: Connection, stack: StackRecord) -> StackRecord:
    """With its version counted up."""
    values: dict[str, Any] = {
        "declaration": stack.declaration,
        "at": stack.at,
        "command": stack.command,
        "ending": stack.ending,
    }
    mine = stacks.c.name == stack.name
    changed = connection.execute(update(stacks).where(mine).values(version=stacks.c.version + 1, **values))
    if not changed.rowcount:
        connection.execute(insert(stacks).values(name=stack.name, version=1, **values))
    return _record(connection.execute(select(stacks).where(mine)).one())


def drop(connection: Connection, name: str) -> None:
    count = connection.execute(select(func.count()).select_from(owned).where(owned.c.stack == name)).scalar_one()
    if count:
        raise ConflictError(f"the stack {name} still owns {count} resources", hint="Destroy it first.")
    if connection.execute(delete(stacks).where(stacks.c.name == name)).rowcount:
        count_up(connection)


def count_up(connection: Connection) -> None:
    """Stacks, target specs or resources have changed."""
    connection.execute(update(meta).values(revision=meta.c.revision + 1))


def _record(row: Sequence[Any]) -> StackRecord:
    name, declaration, at, version, command, ending = row
    return StackRecord(name=name, declaration=declaration, at=at, version=version, command=command, ending=ending)
