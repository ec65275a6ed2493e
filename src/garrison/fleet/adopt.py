"""Taking adapters that nobody owns into a stack, exactly as they are served. Nothing is sent that changes a target."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from garrison.base.errors import ConflictError, InvalidError, UnreachableError
from garrison.fleet import events
from garrison.fleet.apply import patched
from garrison.fleet.commands import action_records, new_command
from garrison.fleet.context import Fleet
from garrison.fleet.declaration import ADAPTER_TYPE, AdapterSpec, Declaration
from garrison.fleet.lease import hold
from garrison.fleet.observation import Served, Sighting
from garrison.fleet.plan_values import Action, ActionKind, Way
from garrison.fleet.survey import look, managed_names
from garrison.fleet.target import TargetSpec
from garrison.fleet.view import FleetView
from garrison.store.records import (
    ActionResult,
    ActionState,
    CommandState,
    Event,
    Key,
    Operation,
    Resource,
    StackRecord,
    TargetRecord,
)

__all__ = ["Adopted", "Candidate", "Choose", "ConfirmAdoption", "adopt", "candidates"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An adapter that was just seen. `owner`: the stack that has it, if any."""

    target: str
    served: Served
    owner: str | None = None

    @property
    def key(self) -> Key:
        return Key(self.target, ADAPTER_TYPE, self.served.name)


Choose = Callable[[Candidate], bool]
ConfirmAdoption = Callable[[list[AdapterSpec]], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What was taken in.

    Attributes:
        addition: the part of a manifest that declares it: the adapters, and targets the stack did not declare before.
        command: None where nothing was done: all were the stack's already, or it was not confirmed.
        already: names that were the stack's before, as `target/name`.
    """

    stack: str
    addition: Declaration
    command: str | None = None
    confirmed: bool = True
    already: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The pinned shape of `--json`."""
        return {
            "ok": self.confirmed,
            "stack": self.stack,
            "command": self.command,
            "adopted": [
                {"target": one.target, "type": ADAPTER_TYPE, "name": one.lora_name, "lora_path": one.lora_path}
                for one in (self.addition.adapters if self.command else ())
            ],
            "already": list(self.already),
        }


async def adopt(
    fleet: Fleet,
    stack: str,
    choose: Choose,
    view: FleetView,
    *,
    confirm: ConfirmAdoption,
    only: Iterable[str] | None = None,
) -> Adopted:
    """Make the chosen adapters the stack's. A stack that is not there yet begins with them.

    Args:
        only: targets that are looked at; all that are on record when None.

    Raises:
        ConflictError: one belongs to another stack, or another command holds this one.
        InvalidError: none was chosen, or a target is not on record.
        UnreachableError: none was chosen, and a target could not be seen.
    """
    async with hold(fleet, stack, "adopt"):
        known = {one.name: one for one in await fleet.read(fleet.store.targets)}
        asked = _asked(known, only)
        recorded = await fleet.read(fleet.store.resources, targets=asked)
        seen = await look(fleet, asked, known, managed_names(recorded), view, record=asked)
        sightings = {name: one.sighting for name, one in seen.items()}
        chosen = [one for one in candidates(sightings.values(), recorded) if choose(one)]
        _refuse(stack, chosen, sightings)
        new = [one for one in chosen if one.owner is None]
        already = tuple(f"{one.target}/{one.served.name}" for one in chosen if one.owner is not None)
        before = await fleet.read(fleet.store.stack, stack)
        addition = await _addition(fleet, stack, new, asked, before)
        if not new:
            return Adopted(stack=stack, addition=addition, already=already)
        if not await fleet.disk(confirm, list(addition.adapters)):
            return Adopted(stack=stack, addition=addition, already=already, confirmed=False)
        records = {name: one.record for name, one in seen.items()}
        command = await _record(fleet, addition, new, before, records)
        return Adopted(stack=stack, addition=addition, command=command, already=already)


def candidates(sightings: Iterable[Sighting], recorded: Iterable[Resource]) -> list[Candidate]:
    """Every adapter that is served, by target and name. Pure."""
    owners = {one.key: one.stack for one in recorded}
    return [
        Candidate(seen.target, served, owners.get(Key(seen.target, ADAPTER_TYPE, name)))
        for seen in sorted(sightings, key=lambda seen: seen.target)
        for name, served in sorted(seen.adapters.items())
    ]


def _asked(known: Mapping[str, TargetRecord], only: Iterable[str] | None) -> dict[str, TargetSpec]:
    names = list(known) if only is None else list(only)
    for name in names:
        if name not in known:
            there = ", ".join(known) or "none"
            raise InvalidError(f"there is no target {name!r} on record", hint=f"On record: {there}.")
    return {name: TargetSpec.from_json(name, known[name].spec) for name in names}


def _refuse(stack: str, chosen: Iterable[Candidate], sightings: Mapping[str, Sighting]) -> None:
    picked = list(chosen)
    foreign = [one for one in picked if one.owner not in (None, stack)]
    if foreign:
        first = foreign[0]
        more = f", and {len(foreign) - 1} more of other stacks" if len(foreign) > 1 else ""
        raise ConflictError(
            f"{first.served.name} on {first.target} belongs to the stack {first.owner}{more}",
            hint=f"Take it out of the manifest of {first.owner} first, or choose others.",
            details={"owned": [{"target": one.target, "name": one.served.name, "stack": one.owner} for one in foreign]},
        )
    if picked:
        return
    unknown = {name: f"{seen.cause}: {seen.detail}" for name, seen in sightings.items() if not seen.known}
    if unknown:
        name, why = next(iter(unknown.items()))
        raise UnreachableError(
            f"no such adapter was seen, and {name} is out of reach ({why})",
            hint="What cannot be seen cannot be adopted; try again when the target answers.",
            details={"targets": unknown},
        )
    raise InvalidError("no such adapter is served", hint="`garrison discover` lists what is served and unmanaged.")


async def _addition(
    fleet: Fleet, stack: str, new: Iterable[Candidate], specs: Mapping[str, TargetSpec], before: StackRecord | None
) -> Declaration:
    """Labels are names, unless a name is taken by something else in the stack."""
    declared = Declaration.from_json(before.declaration) if before else Declaration(stack=stack)
    adapters: list[AdapterSpec] = []
    taken = {(one.label, one.lora_name, one.lora_path) for one in declared.adapters}
    for one in new:
        path = one.served.root or ""
        label = _free_label(one.served.name, one.target, path, taken)
        taken.add((label, one.served.name, path))
        adapters.append(
            AdapterSpec(
                target=one.target,
                label=label,
                lora_name=one.served.name,
                lora_path=path,
                base_model_name=one.served.parent,
                digest=await fleet.disk(fleet.artifacts.digest, path),
            )
        )
    targets = {one.target: specs[one.target] for one in adapters if one.target not in declared.targets}
    return Declaration(stack=stack, targets=targets, adapters=tuple(adapters))


def _free_label(name: str, target: str, path: str, taken: set[tuple[str, str, str]]) -> str:
    """A label names one adapter; on several targets it is the same one where name and path are."""

    def free(label: str) -> bool:
        return all(one == (label, name, path) for one in taken if one[0] == label)

    if free(name):
        return name
    label, number = f"{name}-{target}", 2
    while not free(label):
        label, number = f"{name}-{target}-{number}", number + 1
    return label


async def _record(
    fleet: Fleet,
    addition: Declaration,
    new: Iterable[Candidate],
    before: StackRecord | None,
    records: Mapping[str, TargetRecord],
) -> str:
    """The intention first, then a version an adapter. After a kill between the two, the next apply or the agent finds
    them declared and served, and records them."""
    now = fleet.clock.now()
    command = new_command(addition.stack, "adopt", now)
    actions = [
        Action(
            kind=ActionKind.ADOPT,
            target=spec.target,
            name=spec.lora_name,
            label=spec.label,
            reason="adopted as it is",
            way=Way.RECORD,
            load_path=spec.lora_path,
            desired=spec,
            observed=one.served,
        )
        for spec, one in zip(addition.adapters, new, strict=True)
    ]
    whole = patched(Declaration.from_json(before.declaration), addition) if before else addition
    stack = StackRecord(name=addition.stack, declaration=whole.to_json(), at=now, command=command.id)
    targets = [records[name] for name in addition.targets]
    planned = action_records(command.id, actions)
    await fleet.db(fleet.store.declare, stack, targets, command, planned)
    results = []
    for action, row in zip(actions, planned, strict=True):
        done = replace(row, state=ActionState.DONE, started_at=now, ended_at=now)
        resource = _version(addition.stack, action, command.id, fleet)
        told = Event(
            at=now, kind=events.ADOPTED, stack=addition.stack, target=action.target, name=action.name,
            cause="adopted as it is", after={"served_path": action.load_path, "parent": resource.parent},
            command=command.id,
        )  # fmt: skip
        results.append(ActionResult(action=done, resources=(resource,), events=(told,)))
    await fleet.db(fleet.store.save_actions, results)
    summary = {"done": len(actions), "failed": 0, "owed": 0}
    ended = replace(command, state=CommandState.SUCCEEDED, ended_at=fleet.clock.now(), summary=summary)
    await fleet.db(fleet.store.finish, ended)
    return command.id


def _version(stack: str, action: Action, command: str, fleet: Fleet) -> Resource:
    assert action.desired is not None
    assert action.observed is not None
    return Resource(
        key=action.key,
        stack=stack,
        label=action.label,
        operation=Operation.ADOPTED,
        spec=action.desired.to_json(),
        served_path=action.load_path or "",
        parent=action.observed.parent,
        at=fleet.clock.now(),
        command=command,
    )
