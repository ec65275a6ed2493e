"""Resources: versions that are only added, and which of them a stack has now."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, and_, bindparam, delete, func, insert, select

from garrison.store.records import Event, Key, Operation, Resource
from garrison.store.sql.schema import owned, resources

__all__ = ["current", "forget", "put", "versions"]

_KEY = ("target", "type", "name")
_BATCH = 500


def current(connection: Connection, *, stack: str | None = None, target: str | None = None) -> list[Resource]:
    same = and_(*(owned.c[name] == resources.c[name] for name in (*_KEY, "version")))
    query = select(resources).join_from(owned, resources, same).order_by(*(owned.c[name] for name in _KEY))
    if stack is not None:
        query = query.where(owned.c.stack == stack)
    if target is not None:
        query = query.where(owned.c.target == target)
    return [_record(row) for row in connection.execute(query)]


def versions(connection: Connection, key: Key) -> list[Resource]:
    query = select(resources).where(*(resources.c[name] == getattr(key, name) for name in _KEY))
    return [_record(row) for row in connection.execute(query.order_by(resources.c.version))]


def put(connection: Connection, added: Sequence[Resource]) -> None:
    """Append. The caller holds the writer's lock, so that nobody counts the same version."""
    if not added:
        return
    last = _last_versions(connection, {one.key.target for one in added})
    newest: dict[Key, Resource] = {}
    rows = []
    for one in added:
        last[one.key] = last.get(one.key, 0) + 1
        newest[one.key] = replace(one, version=last[one.key])
        rows.append(_row(newest[one.key]))
    connection.execute(insert(resources), rows)
    connection.execute(
        delete(owned).where(*(owned.c[name] == bindparam(f"this_{name}") for name in _KEY)),
        [{f"this_{name}": getattr(key, name) for name in _KEY} for key in newest],
    )
    if ours := [one for one in newest.values() if one.operation.owned]:
        connection.execute(
            insert(owned),
            [
                {**{name: getattr(one.key, name) for name in _KEY}, "version": one.version, "stack": one.stack}
                for one in ours
            ],
        )


def forget(connection: Connection, target: str, at: datetime, event: Event) -> int:
    """Everything owned at the target gets a version `forgotten`."""
    found = current(connection, target=target)
    put(
        connection,
        [replace(one, operation=Operation.FORGOTTEN, at=at, command=event.command, cause=event.cause) for one in found],
    )
    return len(found)


def _last_versions(connection: Connection, targets: set[str]) -> dict[Key, int]:
    columns = [resources.c[name] for name in _KEY]
    query = select(*columns, func.max(resources.c.version)).group_by(*columns)
    names = sorted(targets)
    return {
        Key(*row[:3]): row[3]
        for start in range(0, len(names), _BATCH)
        for row in connection.execute(query.where(resources.c.target.in_(names[start : start + _BATCH])))
    }


def _row(one: Resource) -> dict[str, Any]:
    return {
        "target": one.key.target,
        "type": one.key.type,
        "name": one.key.name,
        "version": one.version,
        "stack": one.stack,
        "label": one.label,
        "operation": str(one.operation),
        "spec": one.spec,
        "served_path": one.served_path,
        "parent": one.parent,
        "at": one.at,
        "command": one.command,
        "cause": one.cause,
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
