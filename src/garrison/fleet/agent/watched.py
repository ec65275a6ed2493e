"""What the agent keeps of each target between two looks: copies of what the store has, by target."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from garrison.fleet.context import Fleet
from garrison.fleet.observe.observer import Look
from garrison.fleet.observe.record_sighting import served_of
from garrison.fleet.operations.survey import look_of
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Changes, Declared, Resource, TargetRecord

__all__ = ["WatchList", "Watched"]

_PAGE = 200
"""Targets that are read at once. The event loop is free between two pages."""
_INTERVAL = 30.0
"""Seconds between two looks at a target that no stack declares any more."""


@dataclass(slots=True)
class Watched:
    """One target.

    Attributes:
        due: the clock's monotonic seconds of its next look.
        looking: a look is under way; there is never a second one.
        failures: looks in a row that were not believed.
        calm: the list for which nothing was to be done; an equal list is this very object.
        calm_until: the clock's monotonic seconds when that is to be asked again.
        seen_at: when it was last believed, where the record does not say so yet.
        stacks: the stacks that declare it or own something on it, of those that are acted for.
        declared_by: of these, the stacks that declare it.
    """

    spec: TargetSpec
    record: TargetRecord
    interval: float
    due: float
    served: Mapping[str, Served] = field(default_factory=dict)
    looking: bool = False
    failures: int = 0
    calm: Mapping[str, Served] | None = None
    calm_until: float = float("inf")
    seen_at: datetime | None = None
    stacks: tuple[str, ...] = ()
    declared_by: frozenset[str] = frozenset()
    adapters: dict[str, list[AdapterDeclaration]] = field(default_factory=dict)
    """What each stack declares here."""
    resources: list[Resource] = field(default_factory=list)
    """What is owned here, by whichever stack."""

    @property
    def managed(self) -> set[str]:
        return {one.key.name for one in self.resources}

    @property
    def wanted(self) -> set[str]:
        """Names of adapters that shall be served here, or were loaded here and are not to be unloaded."""
        return self.managed | {spec.lora_name for specs in self.adapters.values() for spec in specs}

    def next_look(self) -> Look:
        return look_of(self.spec, self.record, self.served)

    def saw(self, seen: Sighting) -> None:
        """Count, and keep the list that was seen."""
        self.looking = False
        self.failures = 0 if seen.known else self.failures + 1
        if seen.known:
            self.served = seen.served
            self.seen_at = seen.at

    @property
    def remembered(self) -> TargetRecord:
        """The record, with the time of the last look that was believed: a calm look changes nothing else."""
        if self.seen_at is None or (self.record.last_seen is not None and self.record.last_seen >= self.seen_at):
            return self.record
        return replace(self.record, last_seen=self.seen_at, last_checked=self.seen_at)


class WatchList:
    """Every target that one of the stacks declares, owns something on, or began something on; read from the store, and
    from then on only what has changed since.

    Attributes:
        heads: what each stack declares about no single target, by stack: policy and hooks.
        ending: stacks that were destroyed, and are still owed something.
    """

    def __init__(self, fleet: Fleet, *, stacks: Collection[str] | None, interval: float | None) -> None:
        self._fleet = fleet
        self._only = stacks
        self._interval = interval
        self._revision = -1
        self.heads: dict[str, Declaration] = {}
        self.ending: set[str] = set()
        self.targets: dict[str, Watched] = {}
        self.begun: dict[str, set[str]] = {}

    async def reload(self) -> Changes | None:
        """Follow the store, and say what had changed; None where nothing had. A target that is new is due at once.

        Raises:
            GarrisonError: the store cannot be read. What was not read yet is read by the next call.
        """
        store = self._fleet.store
        if self._revision >= 0 and await self._fleet.read(store.revision) == self._revision:
            return None
        # What changes from here on has a later revision, and is read by the next call.
        changes = await self._fleet.read(store.changes, self._revision)
        if changes.stacks:
            heads = await self._fleet.read(store.stacks, at=())
            kept = [one for one in heads if self._only is None or one.name in self._only]
            self.heads = {one.name: Declaration.from_json(one.declaration) for one in kept}
            self.ending = {one.name for one in kept if one.ending}
            self._set_intervals()
        begun = await self._fleet.read(store.begun)
        self.begun = {stack: targets for stack, targets in begun.items() if stack in self.heads}
        strange = set[str]().union(*self.begun.values()) - self.targets.keys()
        names = sorted(changes.targets | strange)
        for start in range(0, len(names), _PAGE):
            await self._load(names[start : start + _PAGE])
        self._revision = changes.revision
        return changes

    def owing(self) -> set[str]:
        """Stacks that own something."""
        return {one.stack for watched in self.targets.values() for one in watched.resources}

    def declarations(self) -> list[Declaration]:
        """What each stack declares at the targets that are watched."""
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
        # From here on nothing waits: looks that end meanwhile find either the old copies or the new ones.
        for name in names:
            record = records.get(name)
            found = record and self._watched(record, declared.get(name, ()), resources.get(name, []))
            if found:
                self.targets[name] = found
            else:
                self.targets.pop(name, None)

    def _watched(self, record: TargetRecord, parts: Iterable[Declared], resources: list[Resource]) -> Watched | None:
        """None where none of the stacks has anything to do with the target. What was kept of it stays."""
        mine = {part.stack: part for part in parts if part.stack in self.heads}
        begun = {stack for stack, targets in self.begun.items() if record.name in targets}
        involved = mine.keys() | begun | {one.stack for one in resources if one.stack in self.heads}
        if not involved:
            return None
        old = self.targets.get(record.name)
        declared_by = frozenset(stack for stack, part in mine.items() if part.spec is not None)
        return Watched(
            spec=TargetSpec.from_json(record.name, record.spec),
            record=record,
            interval=self._interval_of(declared_by),
            due=old.due if old else self._fleet.clock.monotonic(),
            served=old.served if old else served_of(record),
            looking=old.looking if old else False,
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
        """A policy may have changed."""
        for watched in self.targets.values():
            watched.interval = self._interval_of(watched.declared_by)

    def _interval_of(self, stacks: Iterable[str]) -> float:
        wanted = (self.heads[stack].policy.interval for stack in stacks if stack in self.heads)
        return self._interval or min(wanted, default=_INTERVAL)
