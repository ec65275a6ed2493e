"""Computes status and drift of one stack or of all, from targets observed now or as last recorded.

Nothing is written: what a command can observe depends on the machine and user it runs as. Only the agent, `discover`
and commands that change targets store observations.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from garrison.base.errors import InvalidError
from garrison.base.known_names import known_names
from garrison.fleet.context import Fleet
from garrison.fleet.execute.lease import is_dead
from garrison.fleet.observe.drift import find_drift_everywhere
from garrison.fleet.observe.entry_faults import content_drift, entry_faults
from garrison.fleet.observe.record_sighting import last_sighting
from garrison.fleet.operations.survey import Seen, look, managed_names, with_memory
from garrison.fleet.report.agents import AgentStatus, agent_statuses
from garrison.fleet.report.drifts import DriftRow, Drifts
from garrison.fleet.report.fleet_status import fleet_status
from garrison.fleet.report.last_failure import read_failures
from garrison.fleet.report.status import CutShort, FleetStatus
from garrison.fleet.values import events
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.observation import Cause, Presence, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView
from garrison.store.records import Resource, StackRecord, TargetRecord

__all__ = ["agents_of", "find_drifts", "last_destroyed", "no_stack", "status_of"]

_MOST_NAMED = 5


async def status_of(fleet: Fleet, view: FleetView, *, stack: str | None, cached: bool) -> FleetStatus:
    """Return the status of one stack, or of all when None.

    Args:
        cached: use the last recorded observations instead of observing the targets.

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
    unfinished: dict[str, list[CutShort]] = {}
    for command, actions in await fleet.read(fleet.store.unfinished, stack):
        unfinished.setdefault(command.stack, []).append(CutShort.of(command, actions))
    found = fleet_status(
        known.stacks,
        records,
        known.resources,
        sightings,
        now=fleet.clock.now(),
        leases=leases,
        dead={one.token for one in leases if is_dead(one.holder)},
        unfinished=unfinished,
        faults=await entry_faults(fleet, (one.served_path for one in known.resources)),
        failures=await fleet.read(read_failures, fleet.store, known.stacks),
        cached=cached,
    )
    empty = not found.stacks and not found.targets
    return replace(
        found,
        agents=await agents_of(fleet, stack),
        destroyed=await last_destroyed(fleet) if empty else None,
    )


async def agents_of(fleet: Fleet, stack: str | None) -> tuple[AgentStatus, ...]:
    """Return the agents that keep one stack, or any of them, also those that were killed."""
    agents = await fleet.read(fleet.store.agents)
    gone = {one.token for one in agents if is_dead(one.holder)}
    return agent_statuses(agents, fleet.clock.now(), gone, stack=stack)


async def last_destroyed(fleet: Fleet) -> tuple[str, datetime] | None:
    """Return the stack that was destroyed last, and when; None if the history has none."""
    for event in await fleet.read(fleet.store.events, kinds=(events.DESTROYED,), limit=1):
        return event.stack or "", event.at
    return None


async def find_drifts(fleet: Fleet, view: FleetView, *, stack: str | None) -> Drifts:
    """Observe the targets and compare what they serve with what was last applied.

    Raises:
        InvalidError: there is no such stack.
    """
    known = await _known(fleet, stack)
    seen = await _look(fleet, known, view)
    compared = [one for one in known.resources if stack is None or one.stack == stack]
    sightings = {name: one.sighting for name, one in sorted(seen.items())}
    found = find_drift_everywhere(compared, sightings.values())
    found += content_drift(compared, sightings, await entry_faults(fleet, (one.served_path for one in compared)))
    found.sort(key=lambda one: (one.resource.stack, one.resource.key))
    return Drifts(
        found=tuple(map(DriftRow.of, found)),
        unknown=_unknown(sightings, known.stacks, compared),
        checked=sum(
            one.key.target in sightings and sightings[one.key.target].presence(one.key.name) is not Presence.UNKNOWN
            for one in compared
        ),
    )


def _unknown(
    sightings: Mapping[str, Sighting], stacks: Iterable[StackRecord], compared: Iterable[Resource]
) -> dict[str, str]:
    """Return the reason by target. An unobserved target counts even if nothing was loaded there yet."""
    wanted: dict[str, set[str]] = {}
    for one in compared:
        wanted.setdefault(one.key.target, set()).add(one.key.name)
    for stack in stacks:
        for adapter in (AdapterDeclaration(**one) for one in stack.declaration.get("adapters", ())):
            if not adapter.on_demand:
                wanted.setdefault(adapter.target, set()).add(adapter.served_name)
    found = {}
    for name, seen in sightings.items():
        missing = sorted(one for one in wanted.get(name, ()) if seen.presence(one) is Presence.UNKNOWN)
        if not seen.known:
            found[name] = f"{seen.cause}: {seen.detail}"
        elif missing:
            named = ", ".join(missing[:_MOST_NAMED]) + (", …" if len(missing) > _MOST_NAMED else "")
            found[name] = f"{Cause.NO_LORA_ROUTES}: cannot load adapters at run time, and does not serve {named}"
    return found


@dataclass(frozen=True, slots=True)
class _Known:
    stacks: tuple[StackRecord, ...]
    targets: tuple[TargetRecord, ...]
    resources: tuple[Resource, ...]


async def _known(fleet: Fleet, stack: str | None) -> _Known:
    """Return what is on record of one stack, or of all: its targets, and the resources of every stack on them."""
    stacks = await fleet.read(fleet.store.stacks)
    resources = await fleet.read(fleet.store.resources)
    targets = await fleet.read(fleet.store.targets)
    if stack is None:
        return _Known(tuple(stacks), tuple(targets), tuple(resources))
    chosen = [one for one in stacks if one.name == stack]
    if not chosen:
        raise no_stack(stack, stacks)
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


def no_stack(name: str, stacks: Sequence[StackRecord]) -> InvalidError:
    """Return the error for a stack that is not on record; `stacks` are those that are."""
    there = known_names(name, (one.name for one in stacks))
    return InvalidError(f"no stack {name!r} on record", hint=f"{there} `garrison apply` makes a stack of a manifest.")
