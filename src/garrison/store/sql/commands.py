"""Commands and their actions."""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, literal_column, select, update

from garrison.base.errors import InternalError
from garrison.store.records import ActionRecord, ActionState, CommandRecord, CommandState, Key
from garrison.store.sql.schema import actions, commands

__all__ = ["actions_of", "begin", "begun", "finish", "list_commands", "save_actions", "unfinished"]

# A literal, not a parameter: SQLite uses a partial index only if the query repeats its condition word for word.
_RUNNING = commands.c.state == literal_column(f"'{CommandState.RUNNING}'")


def begin(connection: Connection, command: CommandRecord, planned: Sequence[ActionRecord]) -> None:
    values = {name: getattr(command, name) for name in command.__slots__} | {"state": str(command.state)}
    connection.execute(insert(commands).values(values))
    if planned:
        connection.execute(insert(actions), [_row(action) for action in planned])


def save_actions(connection: Connection, saved: Sequence[ActionRecord]) -> None:
    """Store the last state of each action, in one statement."""
    last = {(action.command, action.seq): action for action in saved}
    rows = [{f"this_{name}": value for name, value in _row(action).items()} for action in last.values()]
    if not rows or connection.execute(_UPDATE, rows).rowcount == len(rows):
        return
    for action in last.values():  # one of them is new to its command, or its command does not exist
        mine = (actions.c.command == action.command) & (actions.c.seq == action.seq)
        if connection.execute(select(actions.c.seq).where(mine)).first() is not None:
            continue
        if connection.execute(select(commands.c.number).where(commands.c.id == action.command)).first() is None:
            raise InternalError(f"command {action.command} is not on record")
        connection.execute(insert(actions).values(_row(action)))


def finish(connection: Connection, command: CommandRecord) -> None:
    ended = {"state": str(command.state), "ended_at": command.ended_at, "summary": command.summary}
    if not connection.execute(update(commands).where(commands.c.id == command.id).values(ended)).rowcount:
        raise InternalError(f"command {command.id} is not on record")


def list_commands(connection: Connection, *, stack: str | None, limit: int) -> list[CommandRecord]:
    query = select(commands).order_by(commands.c.number.desc()).limit(limit)
    if stack is not None:
        query = query.where(commands.c.stack == stack)
    return [_command(row) for row in connection.execute(query)]


def unfinished(
    connection: Connection, stack: str | None, besides: Collection[str]
) -> list[tuple[CommandRecord, list[ActionRecord]]]:
    query = select(commands).where(_RUNNING)
    if stack is not None:
        query = query.where(commands.c.stack == stack)
    # Sorted here: with ORDER BY, SQLite would walk through all commands on record.
    rows = sorted(connection.execute(query), key=lambda row: row.number)
    found = [one for row in rows if (one := _command(row)).id not in besides]
    return [(command, actions_of(connection, command.id)) for command in found]


def begun(connection: Connection) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {stack: set() for stack in connection.scalars(_STACKS)}
    for stack, target in connection.execute(_STARTED) if found else ():
        found[stack].add(target)
    return found


def actions_of(connection: Connection, command: str) -> list[ActionRecord]:
    query = select(actions).where(actions.c.command == command).order_by(actions.c.seq)
    return [_action(row) for row in connection.execute(query)]


def _command(row: Row[Any]) -> CommandRecord:
    return CommandRecord(
        id=row.id,
        kind=row.kind,
        stack=row.stack,
        started_at=row.started_at,
        by=row.by,
        mode=row.mode,
        state=CommandState(row.state),
        ended_at=row.ended_at,
        summary=row.summary,
    )


_SAME = (
    "command", "seq", "label", "kind", "reason", "step", "before", "after", "error", "gap_ms", "started_at", "ended_at",
)  # fmt: skip
"""Fields of an action that are columns of the same name and value."""


def _row(action: ActionRecord) -> dict[str, Any]:
    return {name: getattr(action, name) for name in _SAME} | {
        "target": action.key.target,
        "type": action.key.type,
        "name": action.key.name,
        "state": str(action.state),
    }


def _action(row: Row[Any]) -> ActionRecord:
    values = row._mapping
    return ActionRecord(
        key=Key(row.target, row.type, row.name),
        state=ActionState(row.state),
        **{name: values[name] for name in _SAME},
    )


_STACKS = select(commands.c.stack).where(_RUNNING).distinct()
_STARTED = (
    select(commands.c.stack, actions.c.target)
    .join_from(
        commands, actions, (actions.c.command == commands.c.id) & (actions.c.state == literal_column("'started'"))
    )
    .where(_RUNNING)
)
_UPDATE = (
    update(actions)
    .where(actions.c.command == bindparam("this_command"), actions.c.seq == bindparam("this_seq"))
    .values({name: bindparam(f"this_{name}") for name in (*_SAME, "target", "type", "name", "state")})
)
