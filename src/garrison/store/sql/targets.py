"""Targets, and how they were seen."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from garrison.store.records import Observation, TargetRecord
from garrison.store.rules import observation_of, refuse_changed, seen_otherwise
from garrison.store.sql.schema import observations, owned, targets

__all__ = ["declare", "drop", "find", "forget", "list_observations", "respecify", "sight", "touch"]

_BATCH = 500
"""Names in one statement; both databases take some ten thousand parameters."""

_THIS = targets.c.name == bindparam("this")


def find(connection: Connection, names: Collection[str] | None = None) -> list[TargetRecord]:
    query = select(targets).order_by(targets.c.name)
    if names is None:
        return [_record(row) for row in connection.execute(query)]
    found = [_record(row) for some in _batches(names) for row in connection.execute(query.where(_any(some)))]
    return sorted(found, key=lambda target: target.name)


def declare(
    connection: Connection, declared: Sequence[TargetRecord], seen: Mapping[str, Mapping[str, Any]] | None = None
) -> None:
    known = {target.name: target for target in find(connection, [target.name for target in declared])}
    refuse_changed(declared, known, seen)
    if old := [target for target in declared if target.name in known]:
        respecify(connection, old)
    if new := [target for target in declared if target.name not in known]:
        connection.execute(
            insert(targets),
            [
                {"name": target.name, "spec": target.spec, "declared_at": target.declared_at} | _seen(target)
                for target in new
            ],
        )
        _observe(connection, [target for target in new if target.state != "new"])


def respecify(connection: Connection, declared: Sequence[TargetRecord]) -> None:
    connection.execute(
        update(targets).where(_THIS),
        [{"this": target.name, "spec": target.spec, "declared_at": target.declared_at} for target in declared],
    )


def sight(connection: Connection, seen: Sequence[TargetRecord]) -> None:
    if not seen:
        return
    known = {target.name: target for target in find(connection, [target.name for target in seen])}
    _observe(
        connection,
        [target for target in seen if target.name in known and seen_otherwise(known[target.name], target)],
    )
    connection.execute(update(targets).where(_THIS), [{"this": target.name} | _seen(target) for target in seen])


def touch(connection: Connection, names: Collection[str], at: datetime) -> list[str]:
    """Those on record as unreachable, by name; they are left alone."""
    away: list[str] = []
    is_away = targets.c.state == "unreachable"
    for some in _batches(names):
        found = connection.execute(update(targets).where(_any(some), ~is_away).values(last_seen=at, last_checked=at))
        if found.rowcount < len(some):
            away += connection.scalars(select(targets.c.name).where(_any(some), is_away))
    return sorted(away)


def forget(connection: Connection, name: str) -> None:
    connection.execute(delete(targets).where(targets.c.name == name))


def drop(connection: Connection, names: Collection[str]) -> int:
    """Those at which nothing is owned. How many."""
    owing = select(owned.c.target)
    return sum(
        connection.execute(delete(targets).where(_any(some), targets.c.name.not_in(owing))).rowcount
        for some in _batches(names)
    )


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


def _seen(target: TargetRecord) -> dict[str, Any]:
    return {
        "state": target.state,
        "cause": target.cause,
        "detail": target.detail,
        "since": target.since,
        "last_seen": target.last_seen,
        "last_checked": target.last_checked,
        "base": target.base,
        "served": target.served,
        "capabilities": target.capabilities,
    }


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


def _any(names: Collection[str]) -> Any:
    return targets.c.name.in_(names)


def _batches(names: Collection[str]) -> Iterator[list[str]]:
    rest = iter(sorted(set(names)))
    while some := list(islice(rest, _BATCH)):
        yield some
