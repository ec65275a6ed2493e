"""Looking at what is on record: the targets of one stack or of all, asked now or as they are remembered.

Nothing is written. What a command sees depends on where and as whom it runs; the agent, `discover` and the commands
that change targets add to what is remembered.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from garrison.base.errors import InvalidError
from garrison.fleet.context import Fleet
from garrison.fleet.drift import Drift, find_drift_everywhere
from garrison.fleet.last_failure import read_failures
from garrison.fleet.lease import is_dead
from garrison.fleet.observation import Cause, Presence, Sighting
from garrison.fleet.remember import last_sighting
from garrison.fleet.status import FleetStatus, fleet_status
from garrison.fleet.survey import Seen, look, managed_names, with_memory
from garrison.fleet.target import TargetSpec
from garrison.fleet.view import FleetView
from garrison.store.records import CommandRecord, Resource, StackRecord, TargetRecord

__all__ = ["Drifts", "find_drifts", "status_of"]

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Drifts:
    """What differs.

    Attributes:
        unknown: targets of which something cannot be told, with the cause and the reason in words: those that were not
            seen, and those that cannot load an adapter that is missing there.
        checked: adapters that were compared.
    """

    found: tuple[Drift, ...]
    unknown: dict[str, str]
    checked: int


async def status_of(fleet: Fleet, view: FleetView, *, stack: str | None, cached: bool) -> FleetStatus:
    """
    Raises:
        InvalidError: there is no such stack.
    """
    known = await _known(fleet, stack)
    if cached:
        sightings = {one.name: with_memory(last_sighting(one), one) for one in known.targets}
        records = known.targets
    else:
        seen = await _look(fleet, known, view)
        sightings = {name: one.sighting for name, one in seen.items()}
        records = tuple(one.record for _, one in sorted(seen.items()))
    leases = await fleet.read(fleet.store.leases, now=fleet.clock.now())
    unfinished: dict[str, list[CommandRecord]] = {}
    for command, _ in await fleet.read(fleet.store.unfinished, stack):
        unfinished.setdefault(command.stack, []).append(command)
    return fleet_status(
        known.stacks,
        records,
        known.resources,
        sightings,
        now=fleet.clock.now(),
        leases=leases,
        dead={one.token for one in leases if is_dead(one.holder)},
        unfinished=unfinished,
        failures=await fleet.read(read_failures, fleet.store, known.stacks),
        cached=cached,
    )


async def find_drifts(fleet: Fleet, view: FleetView, *, stack: str | None) -> Drifts:
    """What is served against what was last applied, seen now.

    Raises:
        InvalidError: there is no such stack.
    """
    known = await _known(fleet, stack)
    seen = await _look(fleet, known, view)
    compared = [one for one in known.resources if stack is None or one.stack == stack]
    sightings = {name: one.sighting for name, one in sorted(seen.items())}
    found = find_drift_everywhere(compared, sightings.values())
    found.sort(key=lambda one: (one.resource.stack, one.resource.key))
    return Drifts(
        found=tuple(found),
        unknown=_unknown(sightings, known.stacks, compared),
        checked=sum(
            one.key.target in sightings and sightings[one.key.target].presence(one.key.name) is not Presence.UNKNOWN
            for one in compared
        ),
    )


def _unknown(
    sightings: Mapping[str, Sighting], stacks: Iterable[StackRecord], compared: Iterable[Resource]
) -> dict[str, str]:
    """By target. One that was not seen counts, whether or not anything was loaded there yet."""
    wanted: dict[str, set[str]] = {}
    for one in compared:
        wanted.setdefault(one.key.target, set()).add(one.key.name)
    for stack in stacks:
        for adapter in stack.declaration.get("adapters", ()):
            wanted.setdefault(adapter["target"], set()).add(adapter["lora_name"])
    found = {}
    for name, seen in sightings.items():
        missing = sorted(one for one in wanted.get(name, ()) if seen.presence(one) is Presence.UNKNOWN)
        if not seen.known:
            found[name] = f"{seen.cause}: {seen.detail}"
        elif missing:
            named = ", ".join(missing[:_MOST_NAMED]) + (", …" if len(missing) > _MOST_NAMED else "")
            found[name] = f"{Cause.NO_LORA_ROUTES}: it cannot load adapters at run time, and does not serve {named}"
    return found


@dataclass(frozen=True, slots=True)
class _Known:
    stacks: tuple[StackRecord, ...]
    targets: tuple[TargetRecord, ...]
    resources: tuple[Resource, ...]


async def _known(fleet: Fleet, stack: str | None) -> _Known:
    """What is on record of one stack, or of all: its targets, and what anybody owns there."""
    stacks = await fleet.read(fleet.store.stacks)
    resources = await fleet.read(fleet.store.resources)
    targets = await fleet.read(fleet.store.targets)
    if stack is None:
        return _Known(tuple(stacks), tuple(targets), tuple(resources))
    chosen = [one for one in stacks if one.name == stack]
    if not chosen:
        raise _no_stack(stack, stacks)
    names = set(chosen[0].declaration.get("targets", {})) | {one.key.target for one in resources if one.stack == stack}
    return _Known(
        tuple(chosen),
        tuple(one for one in targets if one.name in names),
        tuple(one for one in resources if one.key.target in names),
    )


async def _look(fleet: Fleet, known: _Known, view: FleetView) -> dict[str, Seen]:
    specs = {one.name: TargetSpec.from_json(one.name, one.spec) for one in known.targets}
    records = {one.name: one for one in known.targets}
    return await look(fleet, specs, records, managed_names(known.resources), view)


def _no_stack(name: str, stacks: Sequence[StackRecord]) -> InvalidError:
    there = ", ".join(one.name for one in stacks) or "none"
    return InvalidError(f"there is no stack {name!r} on record", hint=f"On record: {there}.")
