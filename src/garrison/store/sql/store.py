"""`SqlStore`: the queries of all nouns, each in a transaction."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from garrison.store.instance_store import InstanceRow
from garrison.store.records import (
    ActionRecord,
    ActionResult,
    AgentRecord,
    Changes,
    CommandRecord,
    Declared,
    Event,
    Key,
    Lease,
    Observation,
    Resource,
    StackRecord,
    TargetRecord,
)
from garrison.store.rules import without_news_of
from garrison.store.sql import agents as _agents
from garrison.store.sql import commands as _commands
from garrison.store.sql import events as _events
from garrison.store.sql import instances as _instances
from garrison.store.sql import leases as _leases
from garrison.store.sql import resources as _resources
from garrison.store.sql import retention as _retention
from garrison.store.sql import revisions as _revisions
from garrison.store.sql import stacks as _stacks
from garrison.store.sql import targets as _targets
from garrison.store.sql import upkeep as _upkeep
from garrison.store.sql.access import AccessInSql
from garrison.store.sql.address import parse_address
from garrison.store.sql.database import Database
from garrison.store.sql.upgrade import bring_up, make_file
from garrison.store.sql.usage import UsageInSql

__all__ = ["SqlStore", "open_store"]


def open_store(place: str | Path, *, wait: float = 10.0) -> "SqlStore":
    """Open the database, create it if necessary, and upgrade it to this program's schema. Threads may share the store.

    Args:
        place: the path of a SQLite file, or a URL: `sqlite:///path` or `postgresql://user@host/database`.
        wait: seconds to wait for a connection, and for another writer.

    Raises:
        InvalidError: the kind of database is not supported, or the database is damaged, not one of Garrison, or made
            by a newer Garrison.
        UnreachableError, DeniedError, LockedError, DiskFullError: it cannot be opened.
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


class SqlStore(AccessInSql, UsageInSql):
    """`FleetStore` on SQLite or PostgreSQL. Its protocols document the methods."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._identity: str | None = None

    # --- stacks

    def stacks(self, *, at: Collection[str] | None = None) -> list[StackRecord]:
        with self._database.read() as connection:
            return _stacks.all_stacks(connection) if at is None else _stacks.find_narrowed(connection, at)

    def stack(self, name: str, *, at: Collection[str] | None = None) -> StackRecord | None:
        with self._database.read() as connection:
            if at is None:
                return _stacks.find(connection, name)
            found = _stacks.find_narrowed(connection, at, name=name)
            return found[0] if found else None

    def declared(self, targets: Collection[str]) -> list[Declared]:
        with self._database.read() as connection:
            return _stacks.declared_at(connection, targets)

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
            stored, changed, gone = _stacks.save(connection, stack)
            _targets.leave_to_tidy(connection, gone)
            changed |= _targets.declare(connection, targets, seen)
            _revisions.record(connection, stacks=[stack.name], targets=changed)
            _events.add(connection, events)
            return stored

    def drop_stack(self, name: str) -> None:
        with self._database.write() as connection:
            targets = _stacks.drop(connection, name)
            if targets is not None:
                _targets.leave_to_tidy(connection, targets)
                _revisions.record(connection, stacks=[name], targets=targets)

    # --- targets

    def targets(self, names: Collection[str] | None = None) -> list[TargetRecord]:
        with self._database.read() as connection:
            return _targets.find(connection, names)

    def targets_at(self, base_urls: Collection[str]) -> list[TargetRecord]:
        with self._database.read() as connection:
            return _targets.find_at(connection, base_urls)

    def unreachable(self, names: Collection[str]) -> list[TargetRecord]:
        with self._database.read() as connection:
            return _targets.unreachable(connection, names)

    def respecify(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        if not targets:
            self.add_events(events)
            return
        with self._database.write() as connection:
            _targets.respecify(connection, targets)
            _revisions.record(connection, targets=[target.name for target in targets])
            _events.add(connection, events)

    def sight(self, targets: Sequence[TargetRecord], events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            moved = _targets.sight(connection, targets)
            _events.add(connection, without_news_of(moved, events) if moved else events)

    def touch(self, times: Mapping[str, datetime]) -> list[str]:
        if not times:
            return []
        with self._database.write(ordered=False) as connection:
            return _targets.touch(connection, times)

    def forget(self, target: str, at: datetime, event: Event) -> int:
        with self._database.write() as connection:
            count = _resources.forget(connection, target, at, event)
            _targets.forget(connection, target)
            _revisions.record(connection, targets=[target])
            _events.add(connection, [event])
            return count

    def to_tidy(self) -> list[str]:
        with self._database.read() as connection:
            return _targets.all_to_tidy(connection)

    def tidied(self, names: Collection[str]) -> None:
        if not names:
            return
        with self._database.write() as connection:
            _targets.tidied(connection, names)

    def drop_targets(self, names: Collection[str]) -> None:
        if not names:
            return
        with self._database.write() as connection:
            if gone := _targets.drop(connection, names):
                _revisions.record(connection, targets=gone)

    def observations(
        self, *, target: str | None = None, since: datetime | None = None, limit: int = 200
    ) -> list[Observation]:
        with self._database.read() as connection:
            return _targets.list_observations(connection, target=target, since=since, limit=limit)

    # --- resources

    def resources(self, *, stack: str | None = None, targets: Collection[str] | None = None) -> list[Resource]:
        with self._database.read() as connection:
            return _resources.current(connection, stack=stack, targets=targets)

    def versions(self, key: Key) -> list[Resource]:
        with self._database.read() as connection:
            return _resources.versions(connection, key)

    def put(self, resources: Sequence[Resource], events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            self._put(connection, resources)
            _events.add(connection, events)

    # --- commands and actions

    def begin(self, command: CommandRecord, actions: Sequence[ActionRecord], events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            _commands.begin(connection, command, actions)
            _events.add(connection, events)

    def save_actions(self, results: Sequence[ActionResult]) -> None:
        with self._database.write() as connection:
            _commands.save_actions(connection, [one.action for one in results])
            self._put(connection, [resource for one in results for resource in one.resources])
            _events.add(connection, [event for one in results for event in one.events])

    def finish(self, command: CommandRecord, events: Sequence[Event] = ()) -> None:
        with self._database.write() as connection:
            _commands.finish(connection, command)
            _events.add(connection, events)

    def commands(self, *, stack: str | None = None, limit: int = 50) -> list[CommandRecord]:
        with self._database.read() as connection:
            return _commands.list_commands(connection, stack=stack, limit=limit)

    def unfinished(
        self, stack: str | None = None, *, besides: Collection[str] = ()
    ) -> list[tuple[CommandRecord, list[ActionRecord]]]:
        with self._database.read() as connection:
            return _commands.unfinished(connection, stack, besides)

    def begun(self) -> dict[str, set[str]]:
        with self._database.read() as connection:
            return _commands.begun(connection)

    def actions(self, command: str) -> list[ActionRecord]:
        with self._database.read() as connection:
            return _commands.actions_of(connection, command)

    # --- leases

    def acquire(self, lease: Lease, now: datetime, *, instead_of: str | None = None) -> Lease | None:
        with self._database.write() as connection:
            return _leases.acquire(connection, lease, now, instead_of)

    def renew(self, token: str, expires_at: datetime, now: datetime) -> bool:
        with self._database.write(ordered=False) as connection:
            return _leases.renew(connection, token, expires_at, now)

    def release(self, token: str) -> None:
        with self._database.write(ordered=False) as connection:
            _leases.release(connection, token)

    def leases(self, *, now: datetime | None = None) -> list[Lease]:
        with self._database.read() as connection:
            return _leases.all_leases(connection, now)

    # --- agents

    def beat(self, agent: AgentRecord) -> None:
        with self._database.write(ordered=False) as connection:
            _agents.beat(connection, agent)

    def agents(self) -> list[AgentRecord]:
        with self._database.read() as connection:
            return _agents.all_agents(connection)

    def drop_agents(self, tokens: Collection[str]) -> None:
        with self._database.write(ordered=False) as connection:
            _agents.drop(connection, tokens)

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
        subject: tuple[str, str] | None = None,
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
                subject=subject,
                since=since,
                after_id=after_id,
                limit=limit,
            )

    def last_times(self, kind: str, targets: Collection[str]) -> dict[str, datetime]:
        with self._database.read() as connection:
            return _events.last_times(connection, kind, targets)

    # --- instances

    def instances(self, node: str) -> list[InstanceRow]:
        with self._database.read() as connection:
            return _instances.find(connection, node)

    def create_instance(self, row: InstanceRow, events: Iterable[Event] = ()) -> InstanceRow:
        with self._database.write() as connection:
            made = _instances.create(connection, row)
            _events.add(connection, events)
            return made

    def save_instances(self, rows: Sequence[InstanceRow], events: Iterable[Event] = ()) -> None:
        with self._database.write() as connection:
            _instances.save(connection, rows)
            _events.add(connection, events)

    def delete_instance(self, id: int, events: Iterable[Event] = ()) -> None:
        with self._database.write() as connection:
            _instances.remove(connection, id)
            _events.add(connection, events)

    # --- upkeep

    def revision(self) -> int:
        with self._database.read() as connection:
            return _revisions.current(connection)

    def changes(self, since: int) -> Changes:
        with self._database.read() as connection:
            return _revisions.changes_since(connection, since)

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
        return _retention.prune(self._database, before)

    def close(self) -> None:
        self._database.close()

    def _put(self, connection: Connection, resources: Sequence[Resource]) -> None:
        if resources:
            _resources.put(connection, resources)
            _revisions.record(connection, targets={one.key.target for one in resources})
