"""Drops a target from the record: the only way to remove one that is unreachable."""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from garrison.base.errors import ConflictError, InvalidError
from garrison.base.known_names import known_names
from garrison.fleet.context import Fleet
from garrison.fleet.execute.commands import new_command
from garrison.fleet.execute.lease import hold
from garrison.fleet.operations.apply import tidy
from garrison.fleet.operations.fingerprint import digest_of
from garrison.fleet.operations.survey import Seen, look, managed_names
from garrison.fleet.values import events
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.observation import Cause
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView
from garrison.store.records import CommandState, Event, Resource, StackRecord, TargetRecord

__all__ = ["Forgotten", "Loss", "forget", "propose_forgetting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is lost when a target is forgotten.

    Attributes:
        adapters: adapters that stacks own there.
        owed: names of those whose unload is owed, and will now never happen.
        declared_by: stacks whose last applied manifest declares it; applying that manifest again brings it back.
        reachable: whether the target answered just now.
        untold: why observing it said nothing about it, only about the credentials of this process.
    """

    target: TargetRecord
    adapters: tuple[Resource, ...]
    owed: tuple[str, ...]
    declared_by: tuple[str, ...]
    reachable: bool
    untold: str | None = None

    @property
    def stacks(self) -> tuple[str, ...]:
        """The stacks that are changed."""
        return tuple(sorted({*self.declared_by, *(one.stack for one in self.adapters)}))

    @property
    def fingerprint(self) -> str:
        """Confirms this loss; it covers what is dropped from the record, not how the target was seen."""
        lost = [[one.stack, one.key.type, one.key.name] for one in self.adapters]
        return digest_of((self.target.name, json.dumps([sorted(lost), self.owed, sorted(self.declared_by)])))

    def to_json(self) -> dict[str, Any]:
        return {
            "target": self.target.name,
            "reachable": self.reachable,
            "last_seen": self.target.last_seen.isoformat() if self.target.last_seen else None,
            "adapters": [{"stack": one.stack, "name": one.key.name} for one in self.adapters],
            "owed": list(self.owed),
            "declared_by": list(self.declared_by),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """The result of forgetting a target."""

    loss: Loss

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`."""
        return {"ok": True, "forgotten": True, **self.loss.to_json()}


async def propose_forgetting(fleet: Fleet, target: str, view: FleetView, *, force: bool = False) -> Loss:
    """Return what forgetting `target` would lose now, for somebody to confirm. Nothing is held or changed.

    Raises:
        InvalidError: as for `forget`.
    """
    record = await _known(fleet, target)
    loss = await _loss(fleet, record, await _look(fleet, record, view))
    _refuse_reachable(loss, force)
    return loss


async def forget(
    fleet: Fleet, target: str, view: FleetView, *, fingerprint: str | None = None, force: bool = False
) -> Forgotten:
    """Drop `target`, the resources on it, and its entries in the stacks that declare it.

    The server is not contacted for any change: it continues to serve its adapters, unmanaged.

    Args:
        fingerprint: of the loss that was confirmed; None accepts whatever is lost now.
        force: forget the target even if it answers.

    Raises:
        InvalidError: the target is not on record; or `force` is False, and it answers, or may answer to other
            credentials than those of this process.
        ConflictError: another command holds one of its stacks, or something else would be lost than was confirmed.
    """
    record = await _known(fleet, target)
    seen = await _look(fleet, record, view)
    loss = await _loss(fleet, record, seen)
    _refuse_reachable(loss, force)
    async with contextlib.AsyncExitStack() as held:
        for stack in loss.stacks:
            await held.enter_async_context(hold(fleet, stack, "forget"))
        # Only now nobody changes it any more. Read again, or a stack that has since declared the target is not held.
        expected = fingerprint or loss.fingerprint
        loss = await _loss(fleet, await _known(fleet, target), seen)
        if loss.fingerprint != expected:
            raise ConflictError(
                f"rejected: what is on record about target {target} has changed since it was shown",
                hint="Nothing was done. Run the command again to see what would be lost now.",
                details={**loss.to_json(), "fingerprint": loss.fingerprint},
            )
        # Resources before declarations: an agent unloads adapters that are owned and no longer declared.
        told = Event(at=fleet.clock.now(), kind=events.FORGOTTEN, target=target, cause="forgotten by command")
        await fleet.db(fleet.store.forget, target, fleet.clock.now(), told)
        for stack in loss.stacks:
            await _undeclare(fleet, stack, target)
            await tidy(fleet, stack)
    return Forgotten(loss=loss)


async def _known(fleet: Fleet, target: str) -> TargetRecord:
    for record in await fleet.read(fleet.store.targets, [target]):
        return record
    names = [one.name for one in await fleet.read(fleet.store.targets)]
    raise InvalidError(f"no target {target!r} on record", hint=known_names(target, names))


def _refuse_reachable(loss: Loss, force: bool) -> None:
    if force:
        return
    name = loss.target.name
    if loss.reachable:
        raise InvalidError(
            f"target {name} is reachable, so its adapters can be unloaded properly",
            hint="Remove it from the manifest and apply, which unloads the managed adapters. Or use --force: its "
            "adapters then stay loaded, unmanaged.",
            details=loss.to_json(),
        )
    if loss.untold:
        raise InvalidError(
            f"target {name} may be reachable with other credentials than those used now ({loss.untold})",
            hint="Try again with the key and certificates that it was applied with. Or use --force: its adapters then "
            "stay loaded, unmanaged.",
            details=loss.to_json(),
        )


async def _look(fleet: Fleet, record: TargetRecord, view: FleetView) -> Seen:
    resources = await fleet.read(fleet.store.resources, targets=[record.name])
    spec = TargetSpec.from_json(record.name, record.spec)
    seen = await look(fleet, {record.name: spec}, {record.name: record}, managed_names(resources), view)
    return seen[record.name]


async def _loss(fleet: Fleet, record: TargetRecord, now: Seen) -> Loss:
    resources = await fleet.read(fleet.store.resources, targets=[record.name])
    stacks = await fleet.read(fleet.store.stacks, at=[record.name])
    # A variable that is not set says nothing of a target that was out of reach; a refused key says that it answers.
    untold = not now.counts and (record.state == "reachable" or now.sighting.cause is not Cause.LOCAL)
    here = tuple(one for one in resources if one.key.target == record.name)
    wanted = {one.name: _wanted(one, record.name) for one in stacks}
    return Loss(
        target=now.record,
        adapters=here,
        owed=tuple(sorted(one.key.name for one in here if one.key.name not in wanted.get(one.stack, ()))),
        declared_by=tuple(one.name for one in stacks if record.name in one.declaration.get("targets", {})),
        reachable=now.sighting.known,
        untold=f"{now.sighting.cause}: {now.sighting.detail}" if untold else None,
    )


def _wanted(stack: StackRecord, target: str) -> set[str]:
    if stack.ending:
        return set()
    adapters: list[Mapping[str, Any]] = stack.declaration.get("adapters", [])
    return {AdapterDeclaration(**one).served_name for one in adapters if one["target"] == target}


async def _undeclare(fleet: Fleet, name: str, target: str) -> None:
    """Remove `target` from the declaration of a stack.

    Otherwise the agent, which works from the last applied declaration, would load its adapters again.
    """
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
