"""What the agent keeps of each target between two looks. Copies of what the store has, by target."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from garrison.fleet.declaration import AdapterSpec, Declaration
from garrison.fleet.observation import Served, Sighting
from garrison.fleet.observe import Look
from garrison.fleet.remember import served_of
from garrison.fleet.survey import look_of
from garrison.fleet.target import TargetSpec
from garrison.store.records import Resource, StackRecord, TargetRecord

__all__ = ["Watched", "watch"]


@dataclass(slots=True)
class Watched:
    """One target.

    Attributes:
        due: the clock's monotonic seconds of its next look.
        looking: a look is under way; there is never a second one.
        failures: looks in a row that were not believed.
        calm: the list for which nothing was to be done; an equal list is this very object.
        calm_until: the clock's monotonic seconds when that is to be asked again.
        stacks: the stacks that declare it or own something on it, of those that are acted for.
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
    stacks: tuple[str, ...] = ()
    adapters: dict[str, list[AdapterSpec]] = field(default_factory=dict)
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


def watch(
    stacks: Iterable[StackRecord],
    declarations: Mapping[str, Declaration],
    targets: Iterable[TargetRecord],
    resources: Iterable[Resource],
    before: Mapping[str, Watched],
    *,
    begun: Mapping[str, Iterable[str]],
    now: float,
    interval: float | None,
) -> dict[str, Watched]:
    """Every target that one of `stacks` declares or owns something on. What was kept of it stays; new ones are due at
    once.

    Args:
        resources: what is owned by any stack: that of others is managed, too.
        begun: targets on which a command of a stack that has not ended began something, by stack.
        interval: seconds between two looks, instead of the shortest of its stacks' policies.
    """
    owned: dict[str, list[Resource]] = {}
    for one in resources:
        owned.setdefault(one.key.target, []).append(one)
    adapters: dict[str, dict[str, list[AdapterSpec]]] = {}
    intervals: dict[str, float] = {}
    for stack in stacks:
        declaration = declarations[stack.name]
        for name in declaration.targets:
            adapters.setdefault(name, {}).setdefault(stack.name, [])
            intervals[name] = min(intervals.get(name, float("inf")), declaration.policy.interval)
        for spec in declaration.adapters:
            adapters.setdefault(spec.target, {}).setdefault(stack.name, []).append(spec)
        for name in begun.get(stack.name, ()):
            adapters.setdefault(name, {}).setdefault(stack.name, [])
    found = {}
    for record in targets:
        here, declared = owned.get(record.name, []), adapters.get(record.name, {})
        involved = declared.keys() | {one.stack for one in here if one.stack in declarations}
        if not involved:
            continue
        old = before.get(record.name)
        found[record.name] = Watched(
            spec=TargetSpec.from_json(record.name, record.spec),
            record=record,
            interval=interval or intervals.get(record.name, 30.0),
            due=old.due if old else now,
            served=old.served if old else served_of(record),
            looking=old.looking if old else False,
            failures=old.failures if old else 0,
            stacks=tuple(sorted(involved)),
            adapters=declared,
            resources=here,
        )
    return found
