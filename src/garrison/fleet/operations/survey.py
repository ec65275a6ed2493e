"""Gathers everything that a plan is decided from: declared targets, applied resources, and an observation of each
target."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from garrison.fleet.context import Fleet
from garrison.fleet.observe.entry_faults import entry_faults
from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.observe.record_sighting import remember, served_of
from garrison.fleet.operations.file_checks import check_files, staging_targets, with_digests
from garrison.fleet.plan.addresses import as_moved, moved_targets
from garrison.fleet.plan.context import Mode, PlanOptions
from garrison.fleet.plan.planner import check_models, plan
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.observation import Capabilities, Cause, Served, Sighting
from garrison.fleet.values.plan import Plan
from garrison.fleet.values.target import TargetSpec
from garrison.fleet.values.view import FleetView
from garrison.store.records import Event, Resource, StackRecord, TargetRecord

__all__ = [
    "Seen",
    "Survey",
    "begun_on",
    "decide",
    "look",
    "look_of",
    "managed_names",
    "recorded_for",
    "survey",
    "with_memory",
]

_CREDENTIALS = frozenset({Cause.UNAUTHORIZED, Cause.FORBIDDEN, Cause.TLS})
"""Causes that may lie in this process: its key, its certificate, its CA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is known about one stack.

    Attributes:
        targets: every target involved: declared now, owning a resource of the stack, or with an action of one of its
            killed commands.
        known: the records of those that were declared before.
        records: the records of all `targets`, updated by this observation.
        moved: targets that are on record at another address, with that address.
        pending: observations of targets that are not on record with the settings used here: new ones, and those with
            another address or other settings. They are stored once the targets are declared with these settings.
        recorded: resources of this stack on any target, and of other stacks on these targets.
        only: the targets that all of this is limited to; None for the whole stack.
    """

    declaration: Declaration
    stack: StackRecord | None
    targets: Mapping[str, TargetSpec]
    known: Mapping[str, TargetRecord]
    records: Mapping[str, TargetRecord]
    recorded: tuple[Resource, ...]
    sightings: Mapping[str, Sighting]
    moved: Mapping[str, str] = field(default_factory=dict)
    pending: "Mapping[str, Seen]" = field(default_factory=dict)
    only: Collection[str] | None = None

    @property
    def owned(self) -> tuple[Resource, ...]:
        return tuple(one for one in self.recorded if one.stack == self.declaration.stack)


async def survey(
    fleet: Fleet,
    declaration: Declaration,
    view: FleetView,
    *,
    only: Collection[str] | None = None,
    as_applied: bool = False,
    record: bool = False,
    stack: StackRecord | None = None,
) -> Survey:
    """Read the records and observe the targets.

    Args:
        only: observe these targets only; the others count as not asked.
        as_applied: the declaration comes from the store, and means the content it was applied with. With `only`, just
            those targets are read, so that the cost does not depend on the size of the fleet.
        record: store the observations. Otherwise nothing is changed.
        stack: the stack's record, narrowed likewise, if the caller has read it.
    """
    narrow = only if as_applied else None
    stack = stack or await fleet.read(fleet.store.stack, declaration.stack, at=narrow)
    begun = await begun_on(fleet, declaration.stack)
    recorded = await recorded_for(fleet, declaration.stack, {*declaration.targets, *begun}, narrow)
    owned = [one for one in recorded if one.stack == declaration.stack]
    wanted = {*declaration.targets, *begun, *(one.key.target for one in owned)}
    wanted &= wanted if narrow is None else set(narrow)
    known = {one.name: one for one in await fleet.read(fleet.store.targets, wanted)}
    begun &= known.keys()
    bodies = dict(stack.declaration.get("targets", {})) if stack else {}
    bodies |= {name: record.spec for name, record in known.items()}
    involved = ({one.key.target for one in owned} | begun) & bodies.keys()
    specs = {name: TargetSpec.from_json(name, bodies[name]) for name in involved}
    # Another stack may have changed the target since this one was applied: the record counts.
    declared = {name: spec for name, spec in declaration.targets.items() if not as_applied or name not in known}
    if as_applied:
        declared |= {name: TargetSpec.from_json(name, known[name].spec) for name in declaration.targets.keys() & known}
        declaration = replace(declaration, targets=declared)
    specs |= declared
    moved = moved_targets(declared, known)
    records = {
        name: known[name] if name in known and name not in moved else _new_record(fleet, spec)
        for name, spec in specs.items()
    }
    asked = {name: spec for name, spec in specs.items() if only is None or name in only}
    as_recorded = {
        name for name, spec in asked.items() if name in known and TargetSpec.from_json(name, known[name].spec) == spec
    }
    seen = await look(fleet, asked, records, managed_names(recorded), view, record=as_recorded if record else ())
    return Survey(
        declaration=declaration if as_applied else await with_digests(fleet, declaration, owned),
        stack=stack,
        targets=specs,
        known=known,
        records=records | {name: one.record for name, one in seen.items() if one.counts},
        moved=moved,
        pending={name: one for name, one in seen.items() if one.counts and name not in as_recorded},
        recorded=as_moved(recorded, moved),
        only=narrow,
        sightings={name: one.sighting for name, one in seen.items()},
    )


async def recorded_for(
    fleet: Fleet, stack: str, targets: Collection[str], only: Collection[str] | None
) -> list[Resource]:
    """Return what the stack owns anywhere, and what others own on its targets; limited to the targets `only`, if
    given."""
    if only is not None:
        return await fleet.read(fleet.store.resources, targets=only)
    owned = await fleet.read(fleet.store.resources, stack=stack)
    involved = {*targets, *(one.key.target for one in owned)}
    others = [one for one in await fleet.read(fleet.store.resources, targets=involved) if one.stack != stack]
    return owned + others


async def begun_on(fleet: Fleet, stack: str) -> set[str]:
    """Return the targets where an action was started and its end is not on record: its command was killed, or is still
    running."""
    return (await fleet.read(fleet.store.begun)).get(stack, set())


def managed_names(resources: Iterable[Resource]) -> dict[str, set[str]]:
    """Return the names that any stack owns, by target."""
    found: dict[str, set[str]] = {}
    for one in resources:
        found.setdefault(one.key.target, set()).add(one.key.name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One observation of one target, and what it would change.

    Attributes:
        record: the target's record, updated by the observation.
        events: what the observation would add to the history.
        counts: whether it says something about the target, and not only about this process; see `_counts`.
    """

    sighting: Sighting
    record: TargetRecord
    events: tuple[Event, ...] = ()
    counts: bool = True


async def look(
    fleet: Fleet,
    targets: Mapping[str, TargetSpec],
    records: Mapping[str, TargetRecord],
    managed: Mapping[str, Collection[str]],
    view: FleetView,
    *,
    record: Collection[str] = (),
) -> dict[str, Seen]:
    """Observe each target once.

    Args:
        record: targets whose observation is stored. They must be asked with the settings on record: what another key or
            address shows says nothing about the target that other stacks share. Targets that are not in the store are
            not added.
    """
    view.observing(targets)
    found: dict[str, Seen] = {}
    changed: list[TargetRecord] = []
    calm: list[str] = []
    told: list[Event] = []
    at = fleet.clock.now()
    looks = [look_of(spec, records[name]) for name, spec in targets.items()]

    def saw(sighting: Sighting) -> None:
        # A sighting becomes an updated record and the events of its transitions. Of a target that is as it was, only
        # the time is stored, which is cheap for thousands.
        name = sighting.target
        after = remember(records[name], sighting, managed.get(name, ()))
        seen = with_memory(sighting, after.record)
        counts = _counts(seen, records[name])
        found[name] = Seen(sighting=seen, record=after.record, events=after.events, counts=counts)
        view.observed(seen)
        if name not in record or not counts:
            return
        told.extend(after.events)
        if after.changed:
            changed.append(after.record)
        else:
            calm.append(name)

    await Observer(fleet.dialer, fleet.clock).observe(looks, saw)
    if changed or told:
        await fleet.db(fleet.store.sight, changed, told)
    if calm:
        await fleet.db(fleet.store.touch, dict.fromkeys(calm, at))
    return found


def _counts(seen: Sighting, record: TargetRecord) -> bool:
    """Return whether `seen` may be stored.

    A command runs in the environment of its user. If a key is wrong or missing there, that is not news about a target
    which others can observe.
    """
    if seen.cause is Cause.LOCAL:
        return False
    # For a target that was never observed, or whose credentials were refused before, it is all that is known.
    return seen.cause not in _CREDENTIALS or record.state == "new" or record.cause in _CREDENTIALS


def look_of(spec: TargetSpec, record: TargetRecord, served: Mapping[str, Served] | None = None) -> Look:
    """Return what the observer must know about a target. `served`: its last list, if the caller has it."""
    return Look(
        target=spec,
        base=spec.base_model or record.base,
        served=served_of(record) if served is None else served,
        probe=record.state != "reachable" or _may_be_another(record),
        doubtful=record.state == "unreachable",
    )


def with_memory(seen: Sighting, record: TargetRecord) -> Sighting:
    """Return the sighting with the recorded capabilities, which this observation may not have probed."""
    return replace(seen, capabilities=Capabilities.from_json(record.capabilities))


async def decide(
    fleet: Fleet, found: Survey, *, mode: Mode, options: PlanOptions, ending: Collection[str] = frozenset()
) -> Plan:
    """Compute the plan, with loads blocked whose files cannot be loaded.

    Args:
        ending: targets that are instances to be deleted.

    Raises:
        InvalidError: a declared base model is not the one that is served.
    """
    check_models(found.declaration.models, found.sightings)
    seen = (one for one in found.recorded if one.key.target in found.sightings)
    faults = await entry_faults(fleet, (one.served_path for one in seen))
    stores = await staging_targets(fleet, found.targets)

    def staged_path(target: str, digest: str) -> str | None:
        return fleet.artifacts.staged_path(found.targets[target], digest) if target in stores else None

    drafted = plan(
        found.declaration,
        found.recorded,
        found.sightings,
        mode=mode,
        options=options,
        known_targets=found.known,
        declared_before=_targets_before(found.stack),
        staged_path=staged_path,
        faults=faults,
        ending=frozenset(ending),
        demand=fleet.traffic.demand(),
        prefix_caching={name: _prefix_caching(spec, found.records[name]) for name, spec in found.targets.items()},
    )
    warnings = [
        f"{name} was at {address}: adapters on that server stay loaded, and are no longer managed"
        for name, address in sorted(found.moved.items())
    ]
    actions, untold = await check_files(fleet, drafted.actions, found.targets, found.sightings)
    return replace(drafted, actions=tuple(actions), warnings=(*drafted.warnings, *warnings, *untold))


def _may_be_another(record: TargetRecord) -> bool:
    """Return whether the record says that the target cannot load adapters, or does not cache prefixes.

    That would mislead if the server was restarted with other options between two observations, so such a target is
    probed each time.
    """
    return any(record.capabilities.get(name) is False for name in ("lora_routes", "prefix_caching"))


def _new_record(fleet: Fleet, spec: TargetSpec) -> TargetRecord:
    return TargetRecord(name=spec.name, spec=spec.to_json(), declared_at=fleet.clock.now())


def _targets_before(stack: StackRecord | None) -> Collection[str]:
    return stack.declaration.get("targets", {}).keys() if stack else ()


def _prefix_caching(spec: TargetSpec, record: TargetRecord) -> bool | None:
    if spec.prefix_caching is not None:
        return spec.prefix_caching
    known: bool | None = record.capabilities.get("prefix_caching")
    return known
