"""Where declared adapters are loaded, by what is on record and what was seen. Pure."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from garrison.fleet.values.causes import OWED, RESTARTED
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.demand import Place
from garrison.fleet.values.versions import answering, public_name
from garrison.store.records import Operation, Resource

__all__ = ["AdapterPlace", "Known", "Seen", "adapter_places", "held", "is_loaded"]


@dataclass(frozen=True, slots=True)
class AdapterPlace:
    """One declared adapter at one target.

    Attributes:
        name: what clients call it.
        on_demand: it is loaded when a request asks for it.
        model: what the target calls it; empty while it is not loaded.
        loaded_at: when that was recorded.
        reason: why it is not loaded, for whoever asks for it; empty where that does not take long.
        leaving: what the target calls versions of it that are being unloaded.
    """

    target: str
    name: str
    stack: str
    on_demand: bool = False
    model: str = ""
    loaded_at: datetime | None = None
    reason: str = ""
    leaving: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a target was last seen to serve: path by name. `at`: when that look began."""

    at: datetime
    served: Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What decides where adapters are loaded.

    Attributes:
        declarations: of stacks that are not being destroyed.
        resources: what is on record, by target.
        seen: by target; one that was not seen yet is missing.
        away: why targets cannot be asked, by target.
        since: of targets that are instances of this machine, since when their engine runs; None if it does not.
        leaving: by target and name there: no request is sent to these.
        gone: by target and name there, when these left the record. A look that began before says nothing about them.
    """

    declarations: Sequence[Declaration] = ()
    resources: Mapping[str, Sequence[Resource]] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    away: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[str, datetime | None] = field(default_factory=dict)
    leaving: Collection[Place] = frozenset()
    gone: Mapping[Place, datetime] = field(default_factory=dict)


def adapter_places(known: Known) -> dict[Place, AdapterPlace]:
    """Return each declared adapter, by target and the name that clients use."""
    found: dict[Place, AdapterPlace] = {}
    for declaration in known.declarations:
        restore = declaration.policy.on_drift == "restore"
        for spec in declaration.adapters:
            place = (spec.target, spec.lora_name)
            if place not in found:
                found[place] = _place(spec, declaration.stack, known, restore=restore)
    return found


def is_loaded(one: Resource, known: Known) -> bool:
    """Return whether the target serves a version, as far as anybody can tell now.

    What was seen after it was loaded decides. An engine that was started since has nothing of what was there before.
    """
    target = one.key.target
    seen, since = known.seen.get(target), known.since.get(target)
    if target in known.since and since is None:
        return False
    if seen is not None and seen.at > one.at:
        there = seen.served.get(one.key.name) == one.served_path
        return there and (since is None or seen.at >= since)
    return since is None or one.at >= since


def _place(spec: AdapterDeclaration, stack: str, known: Known, *, restore: bool) -> AdapterPlace:
    mine = [one for one in known.resources.get(spec.target, ()) if one.stack == stack and _is_version(one, spec)]
    leaving = frozenset(one.key.name for one in mine if (spec.target, one.key.name) in known.leaving)
    usable = [one for one in mine if one.operation.serves and one.key.name not in leaving and is_loaded(one, known)]
    chosen = answering(usable, spec.served_name)
    place = AdapterPlace(spec.target, spec.lora_name, stack, spec.on_demand, leaving=leaving)
    if chosen is not None:
        return replace(place, model=chosen.key.name, loaded_at=chosen.at)
    return replace(place, reason="" if leaving else _reason(spec, mine, known, restore=restore))


def _is_version(one: Resource, spec: AdapterDeclaration) -> bool:
    return public_name(one) == spec.lora_name


def _reason(spec: AdapterDeclaration, mine: Iterable[Resource], known: Known, *, restore: bool) -> str:
    """Say why nobody is about to load it; empty if somebody is."""
    if spec.target not in known.since and spec.target in known.away:
        return f"{spec.target} cannot be asked: {known.away[spec.target]}"
    own = next((one for one in mine if one.key.name == spec.served_name), None)
    if own is None or own.operation is not Operation.LOST or restore or spec.on_demand or own.cause in OWED:
        return ""
    if spec.target in known.since and own.cause == RESTARTED:
        return ""
    return f"it is gone from {spec.target} since {own.at:%Y-%m-%d %H:%M:%S} UTC, and the policy is to report that only"


def held(target: str, known: Known) -> set[str]:
    """Return the names of the adapters that a target holds, whoever loaded them."""
    resources = known.resources.get(target, ())
    recorded = {one.key.name for one in resources if one.operation.serves and is_loaded(one, known)}
    seen, since = known.seen.get(target), known.since.get(target)
    if seen is None or (target in known.since and (since is None or seen.at < since)):
        return recorded
    known_better = {one.key.name for one in resources}
    known_better |= {name for (where, name), at in known.gone.items() if where == target and at >= seen.at}
    return recorded | (seen.served.keys() - known_better)
