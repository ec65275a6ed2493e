"""Usage by day, key and route: the part of `SqlStore` that knows it."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, text

from garrison.store.sql.columns import Utc, Words
from garrison.store.sql.database import Database
from garrison.store.sql.schema import usage, usage_batches
from garrison.store.usage_store import Usage, UsageBatch, UsageBy, UsageRow

__all__ = ["UsageInSql"]

_COUNTED = tuple(one.name for one in fields(Usage))
_COLUMNS = {UsageBy.DAY: usage.c.day, UsageBy.KEY: usage.c.key_id, UsageBy.ROUTE: usage.c.route}
_NAMES = ("day", "key_id", "route", *_COUNTED)
_ADD = text(
    f"INSERT INTO usage ({', '.join(_NAMES)}) VALUES ({', '.join(f':{name}' for name in _NAMES)}) "  # noqa: S608 - our columns
    f"ON CONFLICT (day, key_id, route) DO UPDATE SET "
    f"{', '.join(f'{name} = usage.{name} + excluded.{name}' for name in _COUNTED)}"
).bindparams(bindparam("route", type_=Words()))
_MARK = text(
    "INSERT INTO usage_batches (source, number, at) VALUES (:source, :number, :at) ON CONFLICT (source) "
    "DO UPDATE SET number = excluded.number, at = excluded.at WHERE usage_batches.number < excluded.number"
).bindparams(bindparam("at", type_=Utc()))


class UsageInSql:
    """`UsageStore` on SQLite or PostgreSQL."""

    _database: Database

    def add_usage(self, batches: Sequence[UsageBatch], at: datetime) -> None:
        if not batches:
            return
        with self._database.write() as connection:
            sums: dict[tuple[str, int, str], Usage] = {}
            for batch in batches:
                if _is_new(connection, batch, at):
                    _sum(sums, batch.rows)
            if sums:
                connection.execute(_ADD, [_values(key, counted) for key, counted in sorted(sums.items(), key=_first)])

    def usage(
        self,
        first: date,
        last: date,
        *,
        by: Collection[UsageBy],
        key_id: int | None = None,
        route: str | None = None,
        limit: int = 1000,
    ) -> list[UsageRow]:
        split = [column for one, column in _COLUMNS.items() if one in by]
        sums = (func.coalesce(func.sum(usage.c[name]), 0).label(name) for name in _COUNTED)
        query = select(*split, *sums, func.count().label("days")).group_by(*split).order_by(*split).limit(limit)
        query = query.where(usage.c.day >= first.isoformat(), usage.c.day <= last.isoformat())
        if key_id is not None:
            query = query.where(usage.c.key_id == key_id)
        if route is not None:
            query = query.where(usage.c.route == route)
        with self._database.read() as connection:
            return [_row(one) for one in connection.execute(query).mappings() if one["days"]]

    def prune_usage(self, before: datetime) -> int:
        old = delete(usage).where(usage.c.day < before.date().isoformat())
        with self._database.write() as connection:
            gone = connection.execute(old).rowcount
            return gone + connection.execute(delete(usage_batches).where(usage_batches.c.at < before)).rowcount


def _is_new(connection: Connection, batch: UsageBatch, at: datetime) -> bool:
    """Put the number of a batch on record, and return whether it is later than the one before."""
    return connection.execute(_MARK, {"source": batch.source, "number": batch.number, "at": at}).rowcount > 0


def _sum(sums: dict[tuple[str, int, str], Usage], rows: Iterable[UsageRow]) -> None:
    for one in rows:
        assert one.day is not None
        assert one.key_id is not None
        assert one.route is not None
        key = (one.day.isoformat(), one.key_id, one.route)
        sums[key] = sums[key] + one.usage if key in sums else one.usage


def _first(pair: tuple[tuple[str, int, str], Usage]) -> tuple[str, int, str]:
    return pair[0]


def _values(key: tuple[str, int, str], counted: Usage) -> dict[str, Any]:
    return {"day": key[0], "key_id": key[1], "route": key[2], **asdict(counted)}


def _row(found: Mapping[Any, Any]) -> UsageRow:
    day = found.get("day")
    counted: dict[str, Any] = {name: (float if name == "seconds" else int)(found[name]) for name in _COUNTED}
    return UsageRow(
        day=None if day is None else date.fromisoformat(day),
        key_id=found.get("key_id"),
        route=found.get("route"),
        usage=Usage(**counted),
    )
