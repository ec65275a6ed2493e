"""Commands and their actions."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from garrison.base.errors import InternalError
from garrison.store.records import ActionRecord, ActionState, CommandRecord, CommandState, Key
from garrison.store.sql.schema import actions, commands

__all__ = ["actions_of", "begin", "finish", "list_commands", "save_action", "unfinished"]


def begin(connection: Connection, command: CommandRecord, planned: Sequence[ActionRecord]) -> None:
    values = {name: getattr(command, name) for name in command.__slots__} | {"state": str(command.state)}
    connection.execute(insert(commands).values(values))
    if planned:
        connection.execute(insert(actions), [_row(action) for action in planned])


def save_action(connection: Connection, action: ActionRecord) -> None:
    row = _row(action)
    mine = (actions.c.command == action.command) & (actions.c.seq == action.seq)
    if connection.execute(update(actions).where(mine).values(row)).rowcount:
        return
    if connection.execute(select(commands.c.number).where(commands.c.id == action.command)).first() is None:
        raise InternalError(f"there is no command {action.command}")
    connection.execute(insert(actions).values(row))


def finish(connection: Connection, command: CommandRecord) -> None:
    ended = {"state": str(command.state), "ended_at": command.ended_at, "summary": command.summary}
    if not connection.execute(update(commands).where(commands.c.id == command.id).values(ended)).rowcount:
        raise InternalError(f"there is no command {command.id}")


def list_commands(connection: Connection, *, stack: str | None, limit: int) -> list[CommandRecord]:
    query = select(commands).order_by(commands.c.number.desc()).limit(limit)
    if stack is not None:
        query = query.where(commands.c.stack == stack)
    return [_command(row) for row in connection.execute(query)]


def unfinished(connection: Connection, stack: str) -> list[tuple[CommandRecord, list[ActionRecord]]]:
    running = (commands.c.stack == stack) & (commands.c.state == str(CommandState.RUNNING))
    found = [_command(row) for row in connection.execute(select(commands).where(running).order_by(commands.c.number))]
    if not found:
        return []
    begun: defaultdict[str, list[ActionRecord]] = defaultdict(list)
    theirs = actions.c.command.in_(select(commands.c.id).where(running))
    for row in connection.execute(select(actions).where(theirs).order_by(actions.c.seq)):
        begun[row.command].append(_action(row))
    return [(command, begun[command.id]) for command in found]


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
"""Fields of an action that are columns as they are."""


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
