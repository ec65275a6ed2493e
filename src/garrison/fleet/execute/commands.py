"""Builds the records of commands and actions, which are stored before anything is done."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from garrison.base.logs import bind
from garrison.fleet.execute.lease import this_process
from garrison.fleet.values.plan import Action
from garrison.store.records import ActionRecord, CommandRecord, Resource

__all__ = ["action_records", "new_command"]


def new_command(stack: str, kind: str, now: datetime, *, mode: str | None = None) -> CommandRecord:
    """Return the record of a command that this process begins now. Ids sort by time.

    Log lines of the calling task carry the id from here on.
    """
    holder = this_process(kind)
    command = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
    bind(command=command, stack=stack)
    return CommandRecord(
        id=command,
        kind=kind,
        stack=stack,
        started_at=now,
        by=f"{holder.user}@{holder.host.partition('/')[0]} {holder.pid}",
        mode=mode,
    )


def action_records(command: str, actions: Sequence[Action]) -> list[ActionRecord]:
    """Return one record per action, in order; `seq` counts from 0."""
    return [
        ActionRecord(
            command=command,
            seq=seq,
            key=action.key,
            label=action.label,
            kind=str(action.kind),
            reason=action.reason,
            before=_before(action),
            after=_after(action),
            error=action.failure.to_json() if action.failure else None,
        )
        for seq, action in enumerate(actions)
    ]


def _before(action: Action) -> Mapping[str, Any] | None:
    old: Resource | None = action.replaced or action.recorded
    if old is not None:
        named = {"name": old.key.name} if old.key.name != action.name else {}
        return {"spec": dict(old.spec), "served_path": old.served_path, "parent": old.parent} | named
    if action.observed is not None:  # an unmanaged adapter that is taken over
        return {"spec": None, "served_path": action.observed.root, "parent": action.observed.parent}
    return None


def _after(action: Action) -> Mapping[str, Any] | None:
    if action.desired is None:
        return None
    return {"spec": action.desired.to_json(), "served_path": action.load_path, "parent": None}
