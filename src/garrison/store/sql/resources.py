"""Resources: versions that are only appended, and which of them a stack owns now."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, ScalarSelect, and_, bindparam, delete, func, insert, select

from garrison.store.records import Event, Key, Operation, Resource
from garrison.store.sql.batches import batches
from garrison.store.sql.schema import owned, resources

__all__ = ["current", "forget", "put", "versions"]

_KEY = ("target", "type", "name")


def current(
    connection: Connection, *, stack: str | None = None, targets: Collection[str] | None = None
) -> list[Resource]:
    same = and_(*(owned.c[name] == resources.c[name] for name in (*_KEY, "version")))
    query = select(resources).join_from(owned, resources, same).order_by(*(owned.c[name] for name in _KEY))
    if stack is not None:
        query = query.where(owned.c.stack == stack)
    if targets is None:
        return [_record(row) for row in connection.execute(query)]
    return [
        _record(row) for some in batches(targets) for row in connection.execute(query.where(owned.c.target.in_(some)))
    ]


def versions(connection: Connection, key: Key) -> list[Resource]:
    query = select(resources).where(*(resources.c[name] == getattr(key, name) for name in _KEY))
    return [_record(row) for row in connection.execute(query.order_by(resources.c.version))]


def put(connection: Connection, added: Sequence[Resource]) -> None:
    """Append versions. The caller holds the writer lock, so that nobody else takes the same version numbers."""
    if not added:
        return
    connection.execute(_APPEND, [_row(one) for one in added])
    newest = {one.key: one for one in added}
    connection.execute(_DISOWN, [_key(key) for key in newest])
    if ours := [one for one in newest.values() if one.operation.owned]:
        connection.execute(_OWN, [_key(one.key) | {"this_stack": one.stack} for one in ours])


def forget(connection: Connection, target: str, at: datetime, event: Event) -> int:
    """Append a version `forgotten` to every resource owned at the target; return how many there were."""
    found = current(connection, targets=[target])
    put(
        connection,
        [replace(one, operation=Operation.FORGOTTEN, at=at, command=event.command, cause=event.cause) for one in found],
    )
    return len(found)


def _latest() -> ScalarSelect[int]:
    """Return the latest version number of the row's own key: one step in the primary key's index."""
    before = resources.alias("before")
    return (
        select(func.coalesce(func.max(before.c.version), 0))
        .where(*(before.c[name] == bindparam(f"this_{name}") for name in _KEY))
        .scalar_subquery()
    )


_APPEND = insert(resources).values(
    {column.name: bindparam(f"this_{column.name}") for column in resources.columns if column.name != "version"}
    | {"version": _latest() + 1}
)
_DISOWN = delete(owned).where(*(owned.c[name] == bindparam(f"this_{name}") for name in _KEY))
_OWN = insert(owned).values({name: bindparam(f"this_{name}") for name in (*_KEY, "stack")} | {"version": _latest()})


def _key(key: Key) -> dict[str, Any]:
    return {"this_target": key.target, "this_type": key.type, "this_name": key.name}


def _row(one: Resource) -> dict[str, Any]:
    return _key(one.key) | {
        "this_stack": one.stack,
        "this_label": one.label,
        "this_operation": str(one.operation),
        "this_spec": one.spec,
        "this_served_path": one.served_path,
        "this_parent": one.parent,
        "this_at": one.at,
        "this_command": one.command,
        "this_cause": one.cause,
    }


def _record(row: Sequence[Any]) -> Resource:
    target, type_, name, version, stack, label, operation, spec, served_path, parent, at, command, cause = row
    return Resource(
        key=Key(target, type_, name),
        stack=stack,
        label=label,
        operation=Operation(operation),
        spec=spec,
        served_path=served_path,
        parent=parent,
        at=at,
        version=version,
        command=command,
        cause=cause,
    )
