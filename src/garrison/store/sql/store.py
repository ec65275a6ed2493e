"""`SqlStore`: the queries of the nouns, each in its transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from garrison.store.records import (
    ActionRecord,
    CommandRecord,
    Event,
    Key,
    Lease,
    Observation,
    Resource,
    StackRecord,
    TargetRecord,
)
from garrison.store.rules import declared_targets
from garrison.store.sql import commands as _commands
from garrison.store.sql import events as _events
from garrison.store.sql import leases as _leases
from garrison.store.sql import resources as _resources
from garrison.store.sql import stacks as _stacks
from garrison.store.sql import targets as _targets
from garrison.store.sql import upkeep as _upkeep
from garrison.store.sql.address import parse_address
from garrison.store.sql.database import Database
from garrison.store.sql.upgrade import bring_up, make_file

__all__ = ["SqlStore", "open_store"]


def open_store(place: str | Path, *, wait: float = 10.0) -> "SqlStore":
    """Open, make where there is none, and bring to this program's schema. Threads may share the store.

    Args:
        place: a path is a SQLite file; text is a URL, `sqlite:///path` or `postgresql://user@host/database`.
        wait: seconds for a connection, and for another writer.

    Raises:
        InvalidError: no such kind of database, damaged, not Garrison's, or made by a newer Garrison.
        UnreachableError, DeniedError, LockedError, DiskFullError: it cannot be had.
    """
    address = parse_address(place)
    if address.path is not None:
        make_file(address.path)
    database = Database(address, wait=wait)
    try:
        bring_up(database)
    except BaseException:
        database.close()
        raise
    return SqlStore(database)


class SqlStore:
    """`FleetStore` on SQLite or PostgreSQL; what its methods promise is said there."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._identity: str | None = None

    # --- stacks

    def stacks(self) -> list[StackRecord]:
        with self._database.read() as connection:
            return _stacks.all_stacks(connection)

    def stack(self, name: str) -> StackRecord | None:
        with self._database.read() as connection:
            return _stacks.find(connection, name)

    def declare(
        self,
        stack: StackRecord,
        targets: Sequence[TargetRecord],
        command: CommandRecord,
        actions: Sequence[ActionRecord],
        events: Sequence[Event] = (),
        *,
        seen: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> StackRecord:
        with self._database.write() as connection:
            _commands.begin(connection, command, actions)
            stored = _stacks.save(connection, stack)
            _targets.declare(connection, targets, seen)
            _stacks.count_up(connection)
            _events.add(connection, events)
            return stored

    def drop_stack(self, name: str) -> None:
        with self._database.write() as connection:
            _stacks.drop(connection, name)

    # --- targets

    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        with self._database.read() as connection:
            return _targets.find(connection, names)

    def respecify(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            _targets.respecify(connection, targets)
            _stacks.count_up(connection)
            _events.add(connection, events)

    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            _targets.sight(connection, targets)
            _events.add(connection, events)

    def touch(self, names: Collection[str], at: datetime) -> list[str]:
        if not names:
            return []
        with self._database.write() as connection:
            return _targets.touch(connection, names, at)

    def forget(self, target: str, at: datetime, event: Event) -> int:
        with self._database.write() as connection:
            count = _resources.forget(connection, target, at, event)
            _targets.forget(connection, target)
            _stacks.count_up(connection)
            _events.add(connection, [event])
            return count

    def drop_targets(self, names: Collection[str]) -> None:
        if not names:
            return
        with self._database.write() as connection:
            spare = set(names) - declared_targets(_stacks.all_stacks(connection))
            if _targets.drop(connection, spare):
                _stacks.count_up(connection)

    def observations(
        self, *, target: str | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Observation]:
        with self._database.read() as connection:
            return _targets.list_observations(connection, target=target, since=since, limit=limit)

    # --- resources

    def resources(self, *, stack: str | None = None, target: str | None = None) -> list[Resource]:
        with self._database.read() as connection:
            return _resources.current(connection, stack=stack, target=target)

    def versions(self, key: Key) -> list[Resource]:
        with self._database.read() as connection:
            return _resources.versions(connection, key)

    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            _resources.put(connection, resources)
            if resources:
                _stacks.count_up(connection)
            _events.add(connection, events)

    # --- commands and actions

    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            _commands.begin(connection, command, actions)
            _events.add(connection, events)

    def save_action(
        self, action: ActionRecord, resources: Sequence[Resource] = (), events: Sequence[Event] = ()
    ) -> None:
        with self._database.write() as connection:
            _commands.save_action(connection, action)
            _resources.put(connection, resources)
            if resources:
                _stacks.count_up(connection)
            _events.add(connection, events)

    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            _commands.finish(connection, command)
            _events.add(connection, events)

    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        with self._database.read() as connection:
            return _commands.list_commands(connection, stack=stack, limit=limit)

    def unfinished(self, stack: str) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        with self._database.read() as connection:
            return _commands.unfinished(connection, stack)

    def actions(self, command: str) -> list[ActionRecord]:
        with self._database.read() as connection:
            return _commands.actions_of(connection, command)

    # --- leases

    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        with self._database.write() as connection:
            return _leases.acquire(connection, lease, now, instead_of)

    def renew(self, token: str, expires_at: datetime) -> bool:
        with self._database.write() as connection:
            return _leases.renew(connection, token, expires_at)

    def release(self, token: str) -> None:
        with self._database.write() as connection:
            _leases.release(connection, token)

    def leases(self) -> list[Lease]:
        with self._database.read() as connection:
            return _leases.all_leases(connection)

    # --- events

    def add_events(self, events: Iterable[Event]) -> None:
        if not (added := list(events)):
            return
        with self._database.write() as connection:
            _events.add(connection, added)

    def events(
        self,
        *,
        stack: str | None = None,
        target: str | None = None,
        name: str | None = None,
        kinds: Collection[str] | None = None,
        since: datetime | None = None,
        after_id: int | None = None,
        limit: int = 200,
    ) -> list[Event]:
        with self._database.read() as connection:
            return _events.find(
                connection,
                stack=stack,
                target=target,
                name=name,
                kinds=kinds,
                since=since,
                after_id=after_id,
                limit=limit,
            )

    # --- upkeep

    def revision(self) -> int:
        with self._database.read() as connection:
            return _upkeep.revision(connection)

    def identity(self) -> str:
        if self._identity is None:
            with self._database.read() as connection:
                self._identity = _upkeep.identity(connection)
        return self._identity

    def content(self, path: str, stamp: str) -> str | None:
        with self._database.read() as connection:
            return _upkeep.content(connection, path, stamp)

    def put_content(self, path: str, stamp: str, digest: str) -> None:
        with self._database.write() as connection:
            _upkeep.put_content(connection, path, stamp, digest)

    def prune(self, before: datetime) -> int:
        with self._database.write() as connection:
            return _upkeep.prune(connection, before)

    def close(self) -> None:
        self._database.close()
