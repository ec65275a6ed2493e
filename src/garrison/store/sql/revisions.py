"""The revision counter of what was declared and applied, and which stacks and targets each revision concerns."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, select, text, update

from garrison.store.records import Changes
from garrison.store.sql.columns import Words
from garrison.store.sql.schema import changes, meta

__all__ = ["changes_since", "current", "record"]

# Frequent statements are built once: building one costs as much as running it.
_CURRENT = select(meta.c.revision)
_COUNT = update(meta).values(revision=meta.c.revision + 1).returning(meta.c.revision)
_RECORD = text(
    "INSERT INTO changes (kind, name, revision) VALUES (:kind, :name, :revision) "
    "ON CONFLICT (kind, name) DO UPDATE SET revision = excluded.revision"
).bindparams(bindparam("name", type_=Words()))


def record(connection: Connection, *, stacks: Iterable[str] = (), targets: Iterable[str] = ()) -> None:
    """Count a change of stacks, target specs or resources.

    The caller holds the writer lock until the commit, so that a reader that sees a revision sees everything up to it.
    """
    revision = connection.execute(_COUNT).scalar_one()
    rows = [{"kind": "stack", "name": name, "revision": revision} for name in sorted(set(stacks))]
    rows += [{"kind": "target", "name": name, "revision": revision} for name in sorted(set(targets))]
    if rows:
        connection.execute(_RECORD, rows)


def current(connection: Connection) -> int:
    return int(connection.execute(_CURRENT).scalar_one())


def changes_since(connection: Connection, since: int) -> Changes:
    found: dict[str, set[str]] = {"stack": set(), "target": set()}
    query = select(changes.c.kind, changes.c.name).where(changes.c.revision > since)
    revision = current(connection)
    if revision > since:
        for kind, name in connection.execute(query):
            found[kind].add(name)
    return Changes(revision=revision, stacks=frozenset(found["stack"]), targets=frozenset(found["target"]))
