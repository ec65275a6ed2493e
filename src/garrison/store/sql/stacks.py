"""Stacks, and the parts of their declarations by target."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from garrison.base.errors import ConflictError
from garrison.store.records import Declared, StackRecord
from garrison.store.rules import head_of, narrowed, parts
from garrison.store.sql.batches import batches
from garrison.store.sql.columns import dump
from garrison.store.sql.schema import declared, owned, stacks

__all__ = ["all_stacks", "declared_at", "drop", "find", "find_narrowed", "save"]


def all_stacks(connection: Connection) -> list[StackRecord]:
    return [_record(row) for row in connection.execute(_WHOLE.order_by(stacks.c.name))]


def find(connection: Connection, name: str) -> StackRecord | None:
    row = connection.execute(_WHOLE.where(stacks.c.name == name)).first()
    return None if row is None else _record(row)


def find_narrowed(connection: Connection, at: Collection[str], *, name: str | None = None) -> list[StackRecord]:
    """Return all stacks, or the one called `name`, with only what they declare at some targets."""
    query = _HEADS.order_by(stacks.c.name)
    if name is not None:
        query = query.where(stacks.c.name == name)
    heads = [_record(row) for row in connection.execute(query)]
    bodies: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for stack, target, body in _parts_at(connection, at, stack=name):
        bodies[stack][target] = body
    return [replace(one, declaration=narrowed(one.declaration, bodies[one.name])) for one in heads]


def declared_at(connection: Connection, targets: Collection[str]) -> list[Declared]:
    return [
        Declared(stack=stack, target=target, spec=body["spec"], adapters=tuple(body["adapters"]))
        for stack, target, body in _parts_at(connection, targets)
    ]


def save(connection: Connection, stack: StackRecord) -> tuple[StackRecord, set[str], set[str]]:
    """Store a stack.

    Returns:
        The stack with its version incremented, the targets at which its declaration changed, and those of them at which
        it no longer declares anything.
    """
    values: dict[str, Any] = {
        "declaration": stack.declaration,
        "at": stack.at,
        "command": stack.command,
        "ending": stack.ending,
        "head": head_of(stack.declaration),
    }
    changed = update(stacks).where(stacks.c.name == stack.name).values(version=stacks.c.version + 1, **values)
    version = connection.execute(changed.returning(stacks.c.version)).scalar()
    if version is None:
        version = 1
        connection.execute(insert(stacks).values(name=stack.name, version=version, **values))
    return replace(stack, version=version), *_save_parts(connection, stack)


def drop(connection: Connection, name: str) -> set[str] | None:
    """Remove a stack; return the targets that it declared, or None if it is not on record."""
    count = connection.execute(select(func.count()).select_from(owned).where(owned.c.stack == name)).scalar_one()
    if count:
        raise ConflictError(f"stack {name} still owns {count} resources", hint="Destroy it first.")
    if not connection.execute(delete(stacks).where(stacks.c.name == name)).rowcount:
        return None
    mine = declared.c.stack == name
    targets = set(connection.scalars(select(declared.c.target).where(mine)))
    connection.execute(delete(declared).where(mine))
    return targets


def _save_parts(connection: Connection, stack: StackRecord) -> tuple[set[str], set[str]]:
    """Write only the rows that differ, so that readers with a copy read only those again."""
    mine = declared.c.stack == stack.name
    before = {row[0]: row[1] for row in connection.execute(select(declared.c.target, declared.c.body).where(mine))}
    now = {target: dump(part) for target, part in parts(stack.declaration).items()}
    fresh = {target for target, body in now.items() if before.get(target) != body}
    gone = before.keys() - now.keys()
    for some in batches((fresh & before.keys()) | gone):
        connection.execute(delete(declared).where(mine, declared.c.target.in_(some)))
    if fresh:
        connection.execute(
            insert(declared), [{"stack": stack.name, "target": name, "body": now[name]} for name in sorted(fresh)]
        )
    return fresh | gone, gone


def _parts_at(
    connection: Connection, targets: Collection[str], *, stack: str | None = None
) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    query = select(declared.c.stack, declared.c.target, declared.c.body).order_by(declared.c.target, declared.c.stack)
    if stack is not None:
        query = query.where(declared.c.stack == stack)
    for some in batches(targets):
        for owner, target, body in connection.execute(query.where(declared.c.target.in_(some))):
            yield owner, target, json.loads(body)


_WHOLE = select(stacks.c.name, stacks.c.declaration, stacks.c.at, stacks.c.version, stacks.c.command, stacks.c.ending)
_HEADS = select(stacks.c.name, stacks.c.head, stacks.c.at, stacks.c.version, stacks.c.command, stacks.c.ending)


def _record(row: Sequence[Any]) -> StackRecord:
    name, declaration, at, version, command, ending = row
    return StackRecord(name=name, declaration=declaration, at=at, version=version, command=command, ending=ending)
