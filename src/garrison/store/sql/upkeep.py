"""The database's own facts, digests on record, and retention."""

from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, insert, or_, select, update

from garrison.store.records import CommandState
from garrison.store.sql.schema import (
    actions,
    commands,
    contents,
    events,
    meta,
    observations,
    owned,
    resources,
    stacks,
    targets,
)

__all__ = ["content", "identity", "prune", "put_content", "revision"]


def identity(connection: Connection) -> str:
    return str(connection.execute(select(meta.c.identity)).scalar_one())


def revision(connection: Connection) -> int:
    return int(connection.execute(select(meta.c.revision)).scalar_one())


def content(connection: Connection, path: str, stamp: str) -> str | None:
    query = select(contents.c.digest).where(contents.c.path == path, contents.c.stamp == stamp)
    return connection.execute(query).scalar_one_or_none()


def put_content(connection: Connection, path: str, stamp: str, digest: str) -> None:
    values = {"stamp": stamp, "digest": digest}
    if not connection.execute(update(contents).where(contents.c.path == path).values(values)).rowcount:
        connection.execute(insert(contents).values(path=path, **values))


def prune(connection: Connection, before: datetime) -> int:
    gone = connection.execute(delete(events).where(events.c.at < before)).rowcount
    gone += connection.execute(delete(observations).where(_old_observation(before))).rowcount
    gone += connection.execute(delete(resources).where(_old_version(before))).rowcount
    old = _old_command(before)
    gone += connection.execute(delete(actions).where(actions.c.command.in_(select(commands.c.id).where(old)))).rowcount
    return gone + connection.execute(delete(commands).where(old)).rowcount


def _old_observation(before: datetime) -> ColumnElement[bool]:
    last = (
        select(func.max(observations.c.id))
        .where(observations.c.target.in_(select(targets.c.name)))
        .group_by(observations.c.target)
    )
    return and_(observations.c.at < before, observations.c.id.not_in(last))


def _old_version(before: datetime) -> ColumnElement[bool]:
    """What is kept of a key begins with its first version that must be kept, so that the last one always tells whether
    it is owned."""
    earlier = resources.alias("earlier")
    of_the_key = and_(*(earlier.c[name] == resources.c[name] for name in ("target", "type", "name")))
    is_owned = exists().where(*(owned.c[name] == earlier.c[name] for name in ("target", "type", "name", "version")))
    running = exists().where(commands.c.id == earlier.c.command, commands.c.state == str(CommandState.RUNNING))
    kept = exists().where(
        of_the_key,
        earlier.c.version <= resources.c.version,
        or_(earlier.c.at >= before, is_owned, running),
    )
    return and_(resources.c.at < before, ~kept)


def _old_command(before: datetime) -> ColumnElement[bool]:
    same = and_(*(owned.c[name] == resources.c[name] for name in ("target", "type", "name", "version")))
    by_resource = exists().where(same, resources.c.command == commands.c.id)
    by_stack = exists().where(stacks.c.command == commands.c.id)
    return and_(commands.c.state != str(CommandState.RUNNING), commands.c.ended_at < before, ~by_resource, ~by_stack)
