"""What the agent keeps of each target between two looks: copies of the store's records, by target."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from garrison.fleet.agent.state import AgentState
from garrison.fleet.context import Fleet
from garrison.fleet.observe.observer import Look
from garrison.fleet.observe.record_sighting import served_of
from garrison.fleet.operations.survey import look_of
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Changes, Declared, Key, Resource, TargetRecord

__all__ = ["WatchList", "Watched"]

_PAGE = 200
"""Number of targets to read at once. Between two pages the event loop runs other work."""
_INTERVAL = 30.0
"""Seconds between two looks at a target that no stack declares any more."""


@dataclass(slots=True)
class Watched:
    """One target.

    Attributes:
        interval: seconds between two looks while it is healthy.
        served: the last list that was believed, by name.
        failures: consecutive looks that were not believed.
        calm: the list that required no action; an equal list is this very object, so that an identity check suffices.
        calm_until: monotonic seconds after which that must be decided again.
        seen_at: time of the last believed look, if the record does not have it yet.
        stacks: the observed stacks that declare the target or own something on it.
        declared_by: the stacks among these that declare it.
        adapters: what each stack declares on it.
        resources: what any stack owns on it.
    """

    spec: TargetSpec
    record: TargetRecord
    interval: float
    served: Mapping[str, Served] = field(default_factory=dict)
    failures: int = 0
    calm: Mapping[str, Served] | None = None
    calm_until: float = float("inf")
    seen_at: datetime | None = None
    stacks: tuple[str, ...] = ()
    declared_by: frozenset[str] = frozenset()
    adapters: dict[str, list[AdapterDeclaration]] = field(default_factory=dict)
    resources: list[Resource] = field(default_factory=list)

    @property
    def managed(self) -> set[str]:
        """Names of adapters that any stack owns here."""
        return {one.key.name for one in self.resources}

    @property
    def wanted(self) -> set[str]:
        """Names of adapters that should be served here, or were loaded here and should stay."""
        declared = (spec for specs in self.adapters.values() for spec in specs)
        return self.managed | {spec.served_name for spec in declared if not spec.on_demand}

    def next_look(self) -> Look:
        """Return what the observer needs to know for the next look."""
        return look_of(self.spec, self.record, self.served)

    def saw(self, seen: Sighting) -> None:
        """Count a failed look; keep the list of one that was believed."""
        self.failures = 0 if seen.known else self.failures + 1
        if seen.known:
            self.served = seen.served
            self.seen_at = seen.at

    def record_at(self, seen_at: datetime | None) -> TargetRecord:
        """Return the record with the time of a believed look, which is all that a calm look changes."""
        if seen_at is None or (self.record.last_seen is not None and self.record.last_seen >= seen_at):
            return self.record
        return replace(self.record, last_seen=seen_at, last_checked=seen_at)


class WatchList:
    """Every target that one of the stacks declares, owns something on, or began something on.

    The first `reload` reads them all; later ones read only what has changed since.

    Args:
        state: its counts of stacks, targets and targets out of reach are kept up to date.
        stacks: names of the stacks to observe; all if None.
        interval: seconds between two looks, overriding the stacks' policies.

    Attributes:
        heads: for each stack, the part of its declaration that concerns no single target: policy and hooks.
        ending: stacks that were destroyed and still own something somewhere.
        begun: for each stack, the targets on which a command started an action and has not recorded its end.
        away: names of targets that are out of reach.
    """

    def __init__(
        self, fleet: Fleet, state: AgentState, *, stacks: Collection[str] | None, interval: float | None
    ) -> None:
        self._fleet = fleet
        self._state = state
        self._only = stacks
        self._interval = interval
        self._revision = -1
        self.heads: dict[str, Declaration] = {}
        self.ending: set[str] = set()
        self.targets: dict[str, Watched] = {}
        self.begun: dict[str, set[str]] = {}
        self.away: set[str] = set()

    async def reload(self) -> Changes | None:
        """Follow the store; return the stacks and targets that were read again, or None if nothing changed.

        Raises:
            GarrisonError: the store cannot be read. What was not read yet is read by the next call.
        """
        store = self._fleet.store
        if self._revision >= 0 and await self._fleet.read(store.revision) == self._revision:
            return None
        # Read before the rest: a change made from here on has a later revision, and the next call reads it.
        changes = await self._fleet.read(store.changes, self._revision)
        if changes.stacks:
            heads = await self._fleet.read(store.stacks, at=())
            kept = [one for one in heads if self._only is None or one.name in self._only]
            self.heads = {one.name: Declaration.from_json(one.declaration) for one in kept}
            self.ending = {one.name for one in kept if one.ending}
            self._set_intervals()
        begun = await self._fleet.read(store.begun)
        self.begun = {stack: targets for stack, targets in begun.items() if stack in self.heads}
        unknown = {name for targets in self.begun.values() for name in targets if name not in self.targets}
        names = sorted(changes.targets | unknown)
        for start in range(0, len(names), _PAGE):
            await self._load(names[start : start + _PAGE])
        self._revision = changes.revision
        self._state.stacks, self._state.targets = len(self.heads), len(self.targets)
        return replace(changes, targets=frozenset(names))

    def remember(self, one: Watched, record: TargetRecord) -> None:
        """Keep `record` as what is known of the target."""
        one.record = record
        self._count_away(record.name, record)

    def learn(self, one: Watched, record: TargetRecord) -> None:
        """Keep what somebody else recorded of the target, unless a look has seen it since."""
        self.remember(one, _newer(one.record, record))

    def owns(self, key: Key) -> bool:
        """Return whether any stack owns the adapter."""
        one = self.targets.get(key.target)
        return one is not None and any(resource.key == key for resource in one.resources)

    def owing(self) -> set[str]:
        """Return the stacks that own something."""
        return {one.stack for watched in self.targets.values() for one in watched.resources}

    def declarations(self) -> list[Declaration]:
        """Return what each stack declares on the watched targets."""
        specs: dict[str, dict[str, TargetSpec]] = {name: {} for name in self.heads}
        adapters: dict[str, list[AdapterDeclaration]] = {name: [] for name in self.heads}
        for name, watched in self.targets.items():
            for stack in watched.declared_by:
                specs[stack][name] = watched.spec
                adapters[stack] += watched.adapters[stack]
        return [replace(head, targets=specs[name], adapters=tuple(adapters[name])) for name, head in self.heads.items()]

    async def _load(self, names: Collection[str]) -> None:
        store = self._fleet.store
        records = {one.name: one for one in await self._fleet.read(store.targets, names)}
        declared: dict[str, list[Declared]] = {}
        for part in await self._fleet.read(store.declared, names):
            declared.setdefault(part.target, []).append(part)
        resources: dict[str, list[Resource]] = {}
        for one in await self._fleet.read(store.resources, targets=names):
            resources.setdefault(one.key.target, []).append(one)
        # Nothing is awaited from here on: a look that ends meanwhile sees either the old copies or the new ones.
        for name in names:
            record = records.get(name)
            found = record and self._watched(record, declared.get(name, ()), resources.get(name, []))
            if found:
                self.targets[name] = found
            else:
                self.targets.pop(name, None)
            self._count_away(name, found.record if found else None)

    def _count_away(self, name: str, record: TargetRecord | None) -> None:
        if record is not None and (record.state == "unreachable" or record.cause is not None):
            self.away.add(name)
        else:
            self.away.discard(name)
        self._state.out_of_reach = len(self.away)

    def _watched(self, record: TargetRecord, parts: Iterable[Declared], resources: list[Resource]) -> Watched | None:
        """Return the target with what was kept of it so far; None if it concerns none of the stacks."""
        mine = {part.stack: part for part in parts if part.stack in self.heads}
        begun = {stack for stack, targets in self.begun.items() if record.name in targets}
        involved = mine.keys() | begun | {one.stack for one in resources if one.stack in self.heads}
        if not involved:
            return None
        old = self.targets.get(record.name)
        declared_by = frozenset(stack for stack, part in mine.items() if part.spec is not None)
        return Watched(
            spec=TargetSpec.from_json(record.name, record.spec),
            record=_newer(old.record, record) if old else record,
            interval=self._interval_of(declared_by),
            served=old.served if old else served_of(record),
            failures=old.failures if old else 0,
            seen_at=old.seen_at if old else None,
            stacks=tuple(sorted(involved)),
            declared_by=declared_by,
            adapters={
                stack: [AdapterDeclaration(**one) for one in mine[stack].adapters] if stack in mine else []
                for stack in mine.keys() | begun
            },
            resources=resources,
        )

    def _set_intervals(self) -> None:
        for watched in self.targets.values():
            watched.interval = self._interval_of(watched.declared_by)

    def _interval_of(self, stacks: Iterable[str]) -> float:
        wanted = (self.heads[stack].policy.interval for stack in stacks if stack in self.heads)
        return self._interval or min(wanted, default=_INTERVAL)


def _newer(seen: TargetRecord, recorded: TargetRecord) -> TargetRecord:
    """Return the record of the later observation of a target: what a look saw may not be written yet, and would be news
    again if it were forgotten."""
    if seen.spec != recorded.spec or seen.last_checked is None:
        return recorded
    if recorded.last_checked is not None and recorded.last_checked >= seen.last_checked:
        return recorded
    return replace(seen, declared_at=recorded.declared_at)
