"""Everything a plan is decided from: how targets are declared, what was last applied, and a look at each of them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from garrison.fleet.context import Fleet
from garrison.fleet.observe.entry_faults import entry_faults
from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.observe.record_sighting import remember, served_of
from garrison.fleet.plan.addresses import as_moved, moved_targets
from garrison.fleet.plan.context import Mode, PlanOptions
from garrison.fleet.plan.planner import check_models, plan
from garrison.fleet.values.declaration import AdapterSpec, Declaration
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Capabilities, Cause, Served, Sighting
from garrison.fleet.values.plan import Action, ActionKind, Plan, Way
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
"""Causes that this process may have brought itself: its key, its certificate, its CA."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What was found out for one stack.

    Attributes:
        targets: every target that is involved: declared now, still serving something of the stack, or in the middle
            of one of its commands that was killed.
        known: of these, those that were declared before, as they are remembered.
        records: how every one of `targets` is remembered, this look included.
        moved: targets that are on record at another address, with that address.
        pending: looks at targets that are not on record as they were asked: new ones, and those with another address
            or other settings. They are stored once the targets are declared so.
        recorded: what this stack owns anywhere, and what others own on these targets.
        only: the targets that all of this is narrowed to; None where it is the whole stack.
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
    """Read what is remembered, and look at the targets.

    Args:
        only: look at these targets alone; the others count as not asked.
        as_applied: the declaration is the store's, and means the content that it was applied with. With `only` it is
            narrowed to those targets, and so is everything that is read: the cost does not depend on the fleet's size.
        record: store what was seen. Without it nothing changes.
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
        declaration=declaration if as_applied else await _with_digests(fleet, declaration, owned),
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
    """What the stack owns anywhere, and what others own on its targets; at the targets `only`, where given."""
    if only is not None:
        return await fleet.read(fleet.store.resources, targets=only)
    owned = await fleet.read(fleet.store.resources, stack=stack)
    involved = {*targets, *(one.key.target for one in owned)}
    others = [one for one in await fleet.read(fleet.store.resources, targets=involved) if one.stack != stack]
    return owned + others


async def begun_on(fleet: Fleet, stack: str) -> set[str]:
    """Targets on which something may have been done that is not on record yet: a command had started it, and was
    killed, or is under way."""
    return (await fleet.read(fleet.store.begun)).get(stack, set())


def managed_names(resources: Iterable[Resource]) -> dict[str, set[str]]:
    """Names that some stack owns, by target."""
    found: dict[str, set[str]] = {}
    for one in resources:
        found.setdefault(one.key.target, set()).add(one.key.name)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at one target, and what it would change.

    Attributes:
        record: the target as it would be remembered after this look.
        events: what the look would add to the history.
        counts: whether the look says something about the target, and not about this process: see `_counts`.
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
    """Look at each target once.

    Args:
        record: targets whose sighting is stored. They must be asked as they are on record, with the same settings:
            anything else says nothing about the target that others share. A target that is not in the store is not
            put there.
    """
    view.observing(len(targets))
    found: dict[str, Seen] = {}
    changed: list[TargetRecord] = []
    calm: list[str] = []
    told: list[Event] = []
    at = fleet.clock.now()
    looks = [look_of(spec, records[name]) for name, spec in targets.items()]

    def saw(sighting: Sighting) -> None:
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
    """Whether `seen` may be remembered. A command runs with the environment of whoever started it: a key that is wrong
    or missing there is no news of a target that others see well."""
    if seen.cause is Cause.LOCAL:
        return False
    # Of a target that was never seen, or whose credentials were refused before, it is all that is known.
    return seen.cause not in _CREDENTIALS or record.state == "new" or record.cause in _CREDENTIALS


def look_of(spec: TargetSpec, record: TargetRecord, served: Mapping[str, Served] | None = None) -> Look:
    """What the observer has to know of a target. `served`: its last list, where it is at hand."""
    return Look(
        target=spec,
        base=spec.base_model or record.base,
        served=served_of(record) if served is None else served,
        probe=record.state != "reachable" or _may_be_another(record),
        doubtful=record.state == "unreachable",
    )


def with_memory(seen: Sighting, record: TargetRecord) -> Sighting:
    """The sighting with the capabilities that are remembered, where this look did not ask for them."""
    return replace(seen, capabilities=Capabilities.from_json(record.capabilities))


async def _with_digests(fleet: Fleet, declaration: Declaration, owned: Iterable[Resource]) -> Declaration:
    """`declaration` with the digest of each adapter whose content can be read here. Where it cannot be read any more,
    and the content that was applied is still in the adapter store, that content is meant."""
    applied = {(one.key.target, one.key.name): one.spec for one in owned}
    digests: dict[str, str | None] = {}
    adapters: list[AdapterSpec] = []
    for spec in declaration.adapters:
        if spec.lora_path not in digests:
            digests[spec.lora_path] = await fleet.disk(fleet.artifacts.digest, spec.lora_path)
        digest = digests[spec.lora_path]
        last = applied.get((spec.target, spec.lora_name), {})
        if digest is None and last.get("digest") and last.get("lora_path") == spec.lora_path:
            digest = await _kept(fleet, declaration.targets[spec.target], str(last["digest"]))
        adapters.append(replace(spec, digest=digest))
    return replace(declaration, adapters=tuple(adapters))


async def decide(fleet: Fleet, found: Survey, *, mode: Mode, options: PlanOptions) -> Plan:
    """The plan, with loads blocked whose files cannot be loaded.

    Raises:
        InvalidError: a declared base model is not the one that is served.
    """
    check_models(found.declaration.models, found.sightings)
    seen = (one for one in found.recorded if one.key.target in found.sightings)
    faults = await entry_faults(fleet, (one.served_path for one in seen))
    stores = {name for name, spec in found.targets.items() if await fleet.disk(fleet.artifacts.can_stage, spec)}

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
        prefix_caching={name: _prefix_caching(spec, found.records[name]) for name, spec in found.targets.items()},
    )
    warnings = [
        f"{name} was at {address}: what that server serves stays there, and nobody looks after it"
        for name, address in sorted(found.moved.items())
    ]
    actions = tuple([await _checked(fleet, found, action) for action in drafted.actions])
    return replace(drafted, actions=actions, warnings=(*drafted.warnings, *warnings))


async def _checked(fleet: Fleet, found: Survey, action: Action) -> Action:
    """vLLM answers 200 to an adapter that does not fit and serves garbage: what can be told from the files is told
    before anything is sent."""
    if action.desired is None or action.way not in (Way.LOAD, Way.SWAP, Way.LOAD_THEN_UNLOAD):
        return action
    seen, target = found.sightings[action.target], found.targets[action.target]
    base = seen.served.get(seen.base) if seen.base else None
    spec = action.desired
    # An intact copy in the store stands for its content, whatever has become of the source.
    kept = action.stage and action.load_path and await fleet.disk(fleet.artifacts.intact, action.load_path)
    place = action.load_path if kept and action.load_path else spec.lora_path
    content = await fleet.disk(fleet.artifacts.check, place, target, base.root if base else None)
    failure = content.failure if content is not None else None
    digest = spec.digest if action.stage and not kept else None
    if digest and await fleet.disk(fleet.artifacts.digest, spec.lora_path) != digest:
        another = await fleet.disk(fleet.artifacts.holds, target, digest)  # entry of the store has it still
        failure = None if another else failure or _nowhere(action.reason, spec)
    if failure is None:
        return action
    reason = "its files cannot be loaded"
    return replace(action, kind=ActionKind.BLOCKED, way=None, reason=reason, failure=failure)


def _nowhere(reason: str, spec: AdapterSpec) -> Failure:
    return Failure(
        code=FailureCode.NOT_UPDATABLE,
        message=f"{spec.lora_name}: {reason}. Neither {spec.lora_path} nor the adapter store has the content that was "
        "applied any more",
        hint="`garrison apply` rolls out what is there now; or put the files back that were there.",
    )


async def _kept(fleet: Fleet, target: TargetSpec, digest: str) -> str | None:
    """`digest`, where the target's store has that content."""
    path = fleet.artifacts.staged_path(target, digest)
    if path is None:
        return None
    intact = await fleet.disk(fleet.artifacts.intact, path)
    return digest if intact or await fleet.disk(fleet.artifacts.holds, target, digest) else None


def _may_be_another(record: TargetRecord) -> bool:
    """Whether something is remembered that would mislead if the server was started anew between two looks: that it
    cannot load adapters, or that it keeps no prefix blocks. Then it is asked each time."""
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
