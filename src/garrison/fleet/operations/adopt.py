"""Adopts unmanaged adapters into a stack exactly as they are served. Targets are only read, never changed."""

import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from garrison.base.errors import ConflictError, InvalidError, UnreachableError, UnusableError
from garrison.base.known_names import known_names
from garrison.base.redaction import excerpt
from garrison.fleet.context import Fleet
from garrison.fleet.execute.commands import action_records, new_command
from garrison.fleet.execute.lease import hold
from garrison.fleet.manifest.writable import LONGEST_NAME, unwritable, unwritable_name
from garrison.fleet.operations.apply import patched
from garrison.fleet.operations.fingerprint import digest_of
from garrison.fleet.operations.survey import look, managed_names
from garrison.fleet.values import events
from garrison.fleet.values.cures import cure_of, is_silent
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind, Way
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView
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

__all__ = ["Adopted", "Adoption", "Candidate", "Choose", "adopt", "candidates", "propose_adoption"]

_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Candidate:
    """An adapter that was just observed. `owner` is the stack that owns it, if any."""

    target: str
    served: Served
    owner: str | None = None

    @property
    def key(self) -> Key:
        return Key(self.target, ADAPTER_TYPE, self.served.name)


Choose = Callable[[Candidate], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """What an adoption would do.

    Attributes:
        addition: the declaration to add to the manifest: the adapters, and targets that the stack does not declare.
        already: adapters that the stack owns, as `target/name`.
    """

    stack: str
    addition: Declaration
    already: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Confirms this adoption; it covers the adapters with their contents, and the targets."""
        return digest_of((self.stack, json.dumps(self.addition.to_json(), sort_keys=True)))

    def to_json(self) -> dict[str, Any]:
        """Return JSON-ready values."""
        return {
            "stack": self.stack,
            "addition": self.addition.to_json(),
            "already": list(self.already),
            "fingerprint": self.fingerprint,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """The result of an adoption.

    Attributes:
        addition: the declaration to add to the manifest: the adapters, and targets that the stack did not declare.
        command: None if nothing was recorded, since the stack owned all of them.
        already: adapters that the stack owned before, as `target/name`.
    """

    stack: str
    addition: Declaration
    command: str | None = None
    already: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`."""
        return {
            "ok": True,
            "stack": self.stack,
            "command": self.command,
            "adopted": [
                {"target": one.target, "type": ADAPTER_TYPE, "name": one.lora_name, "lora_path": one.lora_path}
                for one in (self.addition.adapters if self.command else ())
            ],
            "already": list(self.already),
        }


@dataclass(frozen=True, slots=True)
class _Drafted:
    """An adoption, and what recording it needs."""

    adoption: Adoption
    new: tuple[Candidate, ...]
    before: StackRecord | None
    records: Mapping[str, TargetRecord]


async def propose_adoption(
    fleet: Fleet, stack: str, choose: Choose, view: FleetView, *, only: Iterable[str] | None = None
) -> Adoption:
    """Return what `adopt` would do now, for somebody to confirm. Nothing is held when this returns.

    Raises:
        ConflictError, InvalidError, UnreachableError: as for `adopt`.
    """
    return (await _draft(fleet, stack, choose, view, only)).adoption


async def adopt(
    fleet: Fleet,
    stack: str,
    choose: Choose,
    view: FleetView,
    *,
    fingerprint: str | None = None,
    only: Iterable[str] | None = None,
) -> Adopted:
    """Add the chosen adapters to `stack`, which is created if it does not exist.

    Args:
        choose: selects among the adapters that were observed.
        fingerprint: of the adoption that was confirmed; None adopts whatever is chosen now.
        only: names of the targets to observe; all on record when None.

    Raises:
        ConflictError: an adapter belongs to another stack, another command holds this stack or has changed a target
            meanwhile, or the adoption is not the one that was confirmed.
        InvalidError: no adapter was chosen, or a target is not on record.
        UnreachableError, UnusableError: no adapter was chosen, and a target could not be observed.
    """
    async with hold(fleet, stack, "adopt"):
        drafted = await _draft(fleet, stack, choose, view, only)
        found = drafted.adoption
        if fingerprint not in (None, found.fingerprint):
            raise ConflictError(
                f"rejected: the adapters to adopt into {stack} have changed since they were shown",
                hint="Nothing was done. Run the command again to see them as they are now.",
                details=found.to_json(),
            )
        if not drafted.new:
            return Adopted(stack=stack, addition=found.addition, already=found.already)
        command = await _record(fleet, found.addition, drafted.new, drafted.before, drafted.records)
        return Adopted(stack=stack, addition=found.addition, command=command, already=found.already)


def _declarable(new: Sequence[Candidate], view: FleetView) -> tuple[Candidate, ...]:
    """Return the adapters that a manifest can declare, and note the others: the next reconcile would unload them.

    Raises:
        InvalidError: there is none.
    """
    reasons = [unwritable(one.served.name, one.served.root or "", one.served.parent) for one in new]
    refused = [
        f"{excerpt(one.served.name, _SHOWN_CHARACTERS)!a} on {one.target}: {why}"
        for one, why in zip(new, reasons, strict=True)
        if why
    ]
    if refused and len(refused) == len(new):
        raise InvalidError(
            f"no manifest can declare {refused[0]}" + (f", and {len(refused) - 1} more" if len(refused) > 1 else ""),
            hint="Load it under another name or from another path, and adopt that.",
        )
    for text in refused:
        view.note(f"not adopted, since no manifest can declare it: {text}")
    return tuple(one for one, why in zip(new, reasons, strict=True) if not why)


async def _draft(fleet: Fleet, stack: str, choose: Choose, view: FleetView, only: Iterable[str] | None) -> _Drafted:
    if why := unwritable_name(stack):
        raise InvalidError(f"invalid name of a stack: it {why}", hint="Choose another one with --stack.")
    known = {one.name: one for one in await fleet.read(fleet.store.targets)}
    asked = _asked(known, only)
    recorded = await fleet.read(fleet.store.resources, targets=asked)
    seen = await look(fleet, asked, known, managed_names(recorded), view, record=asked)
    sightings = {name: one.sighting for name, one in seen.items()}
    chosen = [one for one in candidates(sightings.values(), recorded) if choose(one)]
    _refuse(stack, chosen, sightings)
    new = _declarable(tuple(one for one in chosen if one.owner is None), view)
    before = await fleet.read(fleet.store.stack, stack)
    return _Drafted(
        adoption=Adoption(
            stack=stack,
            addition=await _addition(fleet, stack, new, asked, before),
            already=tuple(f"{one.target}/{one.served.name}" for one in chosen if one.owner is not None),
        ),
        new=new,
        before=before,
        records={name: one.record for name, one in seen.items()},
    )


def candidates(sightings: Iterable[Sighting], recorded: Iterable[Resource]) -> list[Candidate]:
    """Return every served adapter, sorted by target and name. Pure."""
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
            raise InvalidError(f"no target {name!r} on record", hint=known_names(name, known))
    return {name: TargetSpec.from_json(name, known[name].spec) for name in names}


def _refuse(stack: str, chosen: Iterable[Candidate], sightings: Mapping[str, Sighting]) -> None:
    picked = list(chosen)
    foreign = [one for one in picked if one.owner not in (None, stack)]
    if foreign:
        first = foreign[0]
        more = f"; {len(foreign) - 1} more belong to other stacks" if len(foreign) > 1 else ""
        raise ConflictError(
            f"{first.served.name} on {first.target} belongs to stack {first.owner}{more}",
            hint=f"Remove it from the manifest of {first.owner} first, or choose other adapters.",
            details={"owned": [{"target": one.target, "name": one.served.name, "stack": one.owner} for one in foreign]},
        )
    if picked:
        return
    unknown = {name: f"{seen.cause}: {seen.detail}" for name, seen in sightings.items() if not seen.known}
    if unknown:
        name, why = next(iter(unknown.items()))
        silent = is_silent(sightings[name].cause)
        state = "is out of reach" if silent else "cannot be used"
        raise (UnreachableError if silent else UnusableError)(
            f"no matching adapter was found, and target {name} {state} ({why})",
            hint=cure_of(sightings[name].cause, sightings[name].detail)
            or "An adapter must be observed to be adopted; try again when the target answers.",
            details={"targets": unknown},
        )
    raise InvalidError("no matching adapter is served", hint="Run `garrison discover` to list unmanaged adapters.")


async def _addition(
    fleet: Fleet, stack: str, new: Iterable[Candidate], specs: Mapping[str, TargetSpec], before: StackRecord | None
) -> Declaration:
    """Declare the new adapters. Each label is the adapter's name, unless the stack uses that label for another one."""
    declared = Declaration.from_json(before.declaration) if before else Declaration(stack=stack)
    adapters: list[AdapterDeclaration] = []
    taken = {(one.label, one.lora_name, one.lora_path) for one in declared.adapters}
    for one in new:
        path = one.served.root or ""
        label = _free_label(one.served.name, one.target, path, taken)
        taken.add((label, one.served.name, path))
        adapters.append(
            AdapterDeclaration(
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
    """Return a label for an adapter; it is shared by targets that serve the same name from the same path."""

    def free(label: str) -> bool:
        return all(one == (label, name, path) for one in taken if one[0] == label)

    if free(name):
        return name
    ends = itertools.chain([f"-{target}"], (f"-{target}-{number}" for number in itertools.count(2)))
    labels = (f"{name[: max(1, LONGEST_NAME - len(end))]}{end}"[-LONGEST_NAME:] for end in ends)
    return next(filter(free, labels))


async def _record(
    fleet: Fleet,
    addition: Declaration,
    new: Iterable[Candidate],
    before: StackRecord | None,
    records: Mapping[str, TargetRecord],
) -> str:
    """Record the adoption and return the command's id.

    The declaration is stored first, then one version per adapter. If the process is killed in between, the next apply
    or the agent finds the adapters declared and served, and records them.
    """
    now = fleet.clock.now()
    command = new_command(addition.stack, "adopt", now)
    actions = [
        Action(
            kind=ActionKind.ADOPT,
            target=spec.target,
            name=spec.lora_name,
            label=spec.label,
            reason="adopted as served",
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
    seen = {one.name: one.spec for one in targets}  # another stack's command may have moved one of them
    await fleet.db(fleet.store.declare, stack, targets, command, planned, seen=seen)
    results = []
    for action, row in zip(actions, planned, strict=True):
        done = replace(row, state=ActionState.DONE, started_at=now, ended_at=now)
        resource = _version(addition.stack, action, command.id, fleet)
        told = Event(
            at=now, kind=events.ADOPTED, stack=addition.stack, target=action.target, name=action.name,
            cause="adopted as served", after={"served_path": action.load_path, "parent": resource.parent},
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
