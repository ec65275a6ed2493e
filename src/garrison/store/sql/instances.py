"""Instances."""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from garrison.base.errors import ConflictError
from garrison.store.instance_store import InstanceRow
from garrison.store.sql.schema import instances

__all__ = ["create", "find", "remove", "save"]

_FIELDS = tuple(name for name in InstanceRow.__slots__ if name != "id")
_CHANGING = ("spec", "state", "since", "reason", "updated", "wanted", "port", "revision", "costs")
_SAVE = (
    update(instances)
    .where(instances.c.id == bindparam("_id"))
    .values({name: bindparam(f"_{name}", type_=instances.c[name].type) for name in _CHANGING})
)


def find(connection: Connection, node: str) -> list[InstanceRow]:
    query = select(instances).where(instances.c.node == node).order_by(instances.c.name)
    return [InstanceRow(**row) for row in connection.execute(query).mappings()]


def create(connection: Connection, row: InstanceRow) -> InstanceRow:
    taken = select(instances.c.id).where(instances.c.node == row.node, instances.c.name == row.name)
    if connection.execute(taken).first() is not None:
        raise ConflictError(
            f"instance {row.name!r} exists already",
            hint="Choose another name, or change that one.",
            details={"instance": row.name},
        )
    made = connection.execute(insert(instances).values({name: getattr(row, name) for name in _FIELDS}))
    assert made.inserted_primary_key is not None
    return replace(row, id=made.inserted_primary_key[0])


def save(connection: Connection, rows: Sequence[InstanceRow]) -> None:
    if rows:
        values = [{"_id": one.id} | {f"_{name}": getattr(one, name) for name in _CHANGING} for one in rows]
        connection.execute(_SAVE, values)


def remove(connection: Connection, number: int) -> None:
    connection.execute(delete(instances).where(instances.c.id == number))
