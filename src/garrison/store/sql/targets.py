"""Targets, and how they were observed."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, insert, literal_column, select, text, update

from garrison.store.records import Observation, TargetRecord
from garrison.store.rules import is_elsewhere, observation_of, refuse_changed, seen_otherwise
from garrison.store.sql.batches import batches
from garrison.store.sql.columns import Utc, Words
from garrison.store.sql.schema import declared, looks, observations, owned, targets, to_tidy

__all__ = [
    "all_to_tidy",
    "declare",
    "drop",
    "find",
    "find_at",
    "forget",
    "leave_to_tidy",
    "list_observations",
    "respecify",
    "sight",
    "tidied",
    "touch",
    "unreachable",
]

_THIS = targets.c.name == bindparam("this")
# A literal, not a parameter: SQLite uses a partial index only if the query repeats its condition word for word.
_ALL_AWAY = select(targets.c.name).where(targets.c.state == literal_column("'unreachable'"))


def find(connection: Connection, names: Collection[str] | None = None) -> list[TargetRecord]:
    if names is None:
        return _records(connection)
    return [record for some in batches(names) for record in _records(connection, targets.c.name.in_(some))]


def find_at(connection: Connection, base_urls: Collection[str]) -> list[TargetRecord]:
    found = [record for some in batches(base_urls) for record in _records(connection, targets.c.base_url.in_(some))]
    return sorted(found, key=lambda record: record.name)


def unreachable(connection: Connection, names: Collection[str]) -> list[TargetRecord]:
    away = set(connection.scalars(_ALL_AWAY))
    return find(connection, away & set(names))


def declare(
    connection: Connection, declared: Sequence[TargetRecord], seen: Mapping[str, Mapping[str, Any]] | None = None
) -> set[str]:
    """Store the specs of targets; return the names of those that are new or changed."""
    known = {
        name: spec
        for some in batches([target.name for target in declared])
        for name, spec in connection.execute(select(targets.c.name, targets.c.spec).where(targets.c.name.in_(some)))
    }
    refuse_changed(declared, known, seen)
    if old := [target for target in declared if target.name in known]:
        respecify(connection, old)
    if new := [target for target in declared if target.name not in known]:
        rows = [{"name": one.name} | _spec(one) | _seen(one) for one in new]
        connection.execute(insert(targets), rows)
        connection.execute(_LOOKED, [_times(target) for target in new])
        _observe(connection, [target for target in new if target.state != "new"])
    tidied(connection, [target.name for target in declared])
    return {target.name for target in declared if known.get(target.name) != target.spec}


def respecify(connection: Connection, declared: Sequence[TargetRecord]) -> None:
    connection.execute(update(targets).where(_THIS), [{"this": target.name} | _spec(target) for target in declared])


def sight(connection: Connection, seen: Sequence[TargetRecord]) -> set[str]:
    """Return the names of targets that have moved since; their observations are not stored."""
    known = {target.name: target for target in find(connection, [target.name for target in seen])} if seen else {}
    seen = [target for target in seen if target.name in known]
    moved = {target.name for target in seen if is_elsewhere(known[target.name], target)}
    seen = [target for target in seen if target.name not in moved]
    if not seen:
        return moved
    _observe(connection, [target for target in seen if seen_otherwise(known[target.name], target)])
    connection.execute(update(targets).where(_THIS), [{"this": target.name} | _seen(target) for target in seen])
    # In the order of names, like `touch`, which takes no writer lock: otherwise the two could deadlock.
    connection.execute(_LOOKED, [_times(target) for target in sorted(seen, key=lambda target: target.name)])
    return moved


def touch(connection: Connection, times: Mapping[str, datetime]) -> list[str]:
    """Set the times of targets; return the names of those on record as unreachable, which are not touched."""
    away = set(connection.scalars(_ALL_AWAY))
    if calm := [{"this": name, "at": times[name]} for name in sorted(times.keys() - away)]:
        connection.execute(_TOUCH, calm)
    return sorted(away & times.keys())


_TOUCH = (
    update(looks)
    .where(looks.c.target == bindparam("this"))
    .values(last_seen=bindparam("at"), last_checked=bindparam("at"))
)


def leave_to_tidy(connection: Connection, names: Collection[str]) -> None:
    tidied(connection, names)
    for some in batches(names):
        known = select(targets.c.name).where(targets.c.name.in_(some))
        connection.execute(insert(to_tidy).from_select(["target"], known))


def all_to_tidy(connection: Connection) -> list[str]:
    return list(connection.scalars(select(to_tidy.c.target).order_by(to_tidy.c.target)))


def tidied(connection: Connection, names: Collection[str]) -> None:
    for some in batches(names):
        connection.execute(delete(to_tidy).where(to_tidy.c.target.in_(some)))


def forget(connection: Connection, name: str) -> None:
    connection.execute(delete(targets).where(targets.c.name == name))
    connection.execute(delete(looks).where(looks.c.target == name))
    tidied(connection, [name])


def drop(connection: Connection, names: Collection[str]) -> set[str]:
    """Remove those of `names` that no stack declares and at which nothing is owned; return their names."""
    gone: set[str] = set()
    for some in batches(names):
        here = targets.c.name.in_(some)
        owning = select(owned.c.target).where(owned.c.target.in_(some))
        needed = owning.union(select(declared.c.target).where(declared.c.target.in_(some)))
        spare = delete(targets).where(here, targets.c.name.not_in(needed)).returning(targets.c.name)
        gone |= set(connection.scalars(spare))
    for some in batches(gone):
        connection.execute(delete(looks).where(looks.c.target.in_(some)))
    tidied(connection, gone)
    return gone


def list_observations(
    connection: Connection, *, target: str | None, since: datetime | None, limit: int
) -> list[Observation]:
    query = select(observations).order_by(observations.c.id.desc()).limit(limit)
    if target is not None:
        query = query.where(observations.c.target == target)
    if since is not None:
        query = query.where(observations.c.at >= since)
    return [
        Observation(
            target=row.target,
            at=row.at,
            state=row.state,
            cause=row.cause,
            detail=row.detail,
            base=row.base,
            served=tuple(row.served),
        )
        for row in connection.execute(query)
    ]


def _observe(connection: Connection, seen: Sequence[TargetRecord]) -> None:
    if not seen:
        return
    found = map(observation_of, seen)
    connection.execute(insert(observations), [{name: getattr(one, name) for name in one.__slots__} for one in found])


def _spec(target: TargetRecord) -> dict[str, Any]:
    return {"spec": target.spec, "declared_at": target.declared_at, "base_url": target.spec.get("base_url")}


def _seen(target: TargetRecord) -> dict[str, Any]:
    return {
        "state": target.state,
        "cause": target.cause,
        "detail": target.detail,
        "since": target.since,
        "base": target.base,
        "served": target.served,
        "capabilities": target.capabilities,
    }


def _times(target: TargetRecord) -> dict[str, Any]:
    return {"target": target.name, "last_seen": target.last_seen, "last_checked": target.last_checked}


_LOOKED = text(
    "INSERT INTO looks (target, last_seen, last_checked) VALUES (:target, :last_seen, :last_checked) "
    "ON CONFLICT (target) DO UPDATE SET last_seen = excluded.last_seen, last_checked = excluded.last_checked"
).bindparams(
    bindparam("target", type_=Words()), bindparam("last_seen", type_=Utc()), bindparam("last_checked", type_=Utc())
)


def _records(connection: Connection, which: ColumnElement[bool] | None = None) -> list[TargetRecord]:
    query = _SELECT if which is None else _SELECT.where(which)
    return [_record(row) for row in connection.execute(query)]


_SELECT = (
    select(
        targets.c.name,
        targets.c.spec,
        targets.c.declared_at,
        targets.c.state,
        targets.c.cause,
        targets.c.detail,
        targets.c.since,
        looks.c.last_seen,
        looks.c.last_checked,
        targets.c.base,
        targets.c.served,
        targets.c.capabilities,
    )
    .join_from(targets, looks, looks.c.target == targets.c.name, isouter=True)
    .order_by(targets.c.name)
)


def _record(row: Sequence[Any]) -> TargetRecord:
    name, spec, declared_at, state, cause, detail, since, last_seen, last_checked, base, served, capabilities = row
    return TargetRecord(
        name=name,
        spec=spec,
        declared_at=declared_at,
        state=state,
        cause=cause,
        detail=detail,
        since=since,
        last_seen=last_seen,
        last_checked=last_checked,
        base=base,
        served=tuple(served),
        capabilities=capabilities,
    )
