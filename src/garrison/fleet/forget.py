"""Dropping a target: the only way in which one that is out of reach goes."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from garrison.base.errors import InvalidError
from garrison.fleet import events
from garrison.fleet.apply import tidy
from garrison.fleet.commands import new_command
from garrison.fleet.context import Fleet
from garrison.fleet.declaration import Declaration
from garrison.fleet.lease import hold
from garrison.fleet.survey import look, managed_names
from garrison.fleet.target import TargetSpec
from garrison.fleet.view import FleetView
from garrison.store.records import CommandState, Event, Resource, StackRecord, TargetRecord

__all__ = ["ConfirmForgetting", "Forgotten", "Loss", "forget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What goes with a target.

    Attributes:
        adapters: what stacks own there.
        owed: of those, names that should have been unloaded there, and now never are.
        declared_by: stacks whose last applied manifest has it; an apply of the same manifest brings it back.
        reachable: it answered just now.
    """

    target: TargetRecord
    adapters: tuple[Resource, ...]
    owed: tuple[str, ...]
    declared_by: tuple[str, ...]
    reachable: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target.name,
            "reachable": self.reachable,
            "last_seen": self.target.last_seen.isoformat() if self.target.last_seen else None,
            "adapters": [{"stack": one.stack, "name": one.key.name} for one in self.adapters],
            "owed": list(self.owed),
            "declared_by": list(self.declared_by),
        }


ConfirmForgetting = Callable[[Loss], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    loss: Loss
    confirmed: bool = True

    def to_json(self) -> dict[str, Any]:
        """The pinned shape of `--json`."""
        return {"ok": self.confirmed, "forgotten": self.confirmed, **self.loss.to_json()}


async def forget(
    fleet: Fleet, target: str, view: FleetView, *, confirm: ConfirmForgetting, force: bool = False
) -> Forgotten:
    """Drop `target`, what is owned on it, and its place in the stacks that declare it. The server is not touched: what
    it serves it goes on serving, unmanaged.

    Args:
        force: although it answers.

    Raises:
        InvalidError: it is not on record, or it answers and `force` is not given.
        ConflictError: another command holds one of its stacks.
    """
    known = {one.name: one for one in await fleet.read(fleet.store.targets)}
    if target not in known:
        there = ", ".join(known) or "none"
        raise InvalidError(f"there is no target {target!r} on record", hint=f"On record: {there}.")
    loss = await _loss(fleet, known[target], view)
    if loss.reachable and not force:
        raise InvalidError(
            f"{target} answers, so what it serves can be removed properly",
            hint="Take it out of the manifest and apply: that unloads what is ours. Or --force: then its adapters stay "
            "where they are, and nobody owns them.",
            details=loss.to_json(),
        )
    if not await fleet.disk(confirm, loss):
        return Forgotten(loss=loss, confirmed=False)
    stacks = sorted({*loss.declared_by, *(one.stack for one in loss.adapters)})
    async with contextlib.AsyncExitStack() as held:
        for stack in stacks:
            await held.enter_async_context(hold(fleet, stack, "forget"))
        # First what is owned: as long as it were, and no longer declared, an agent would unload it.
        told = Event(at=fleet.clock.now(), kind=events.FORGOTTEN, target=target, cause="forgotten by command")
        await fleet.db(fleet.store.forget, target, fleet.clock.now(), told)
        for stack in stacks:
            await _undeclare(fleet, stack, target)
            await tidy(fleet, stack)
    return Forgotten(loss=loss)


async def _loss(fleet: Fleet, record: TargetRecord, view: FleetView) -> Loss:
    resources = await fleet.read(fleet.store.resources, targets=[record.name])
    stacks = await fleet.read(fleet.store.stacks, at=[record.name])
    spec = TargetSpec.from_json(record.name, record.spec)
    seen = await look(fleet, {record.name: spec}, {record.name: record}, managed_names(resources), view)
    now = seen[record.name]
    here = tuple(one for one in resources if one.key.target == record.name)
    wanted = {one.name: _wanted(one, record.name) for one in stacks}
    return Loss(
        target=now.record,
        adapters=here,
        owed=tuple(sorted(one.key.name for one in here if one.key.name not in wanted.get(one.stack, ()))),
        declared_by=tuple(one.name for one in stacks if record.name in one.declaration.get("targets", {})),
        reachable=now.sighting.known,
    )


def _wanted(stack: StackRecord, target: str) -> set[str]:
    if stack.ending:
        return set()
    adapters: list[Mapping[str, Any]] = stack.declaration.get("adapters", [])
    return {str(one["lora_name"]) for one in adapters if one["target"] == target}


async def _undeclare(fleet: Fleet, name: str, target: str) -> None:
    """Otherwise the agent, which works from what was last applied, would bring it back."""
    stack = await fleet.read(fleet.store.stack, name)
    if stack is None:
        return
    declared = Declaration.from_json(stack.declaration)
    if target not in declared.targets:
        return
    left = replace(
        declared,
        targets={one: spec for one, spec in declared.targets.items() if one != target},
        adapters=tuple(one for one in declared.adapters if one.target != target),
        models=tuple(one for one in declared.models if one.target != target),
    )
    now = fleet.clock.now()
    command = new_command(name, "forget", now)
    await fleet.db(
        fleet.store.declare, replace(stack, declaration=left.to_json(), at=now, command=command.id), [], command, []
    )
    await fleet.db(fleet.store.finish, replace(command, state=CommandState.SUCCEEDED, ended_at=now))
