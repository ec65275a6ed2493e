"""Reports adapters under the names that they are declared and asked for by, whatever they are called on a target. Pure.

A versioned adapter is recorded and served as `sql@3f2a9c1b7d04`; while it is updated there are two of it. Reports show
one, called `sql`: the version that was declared last, or else the one that answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.observation import Served, Sighting
from garrison.fleet.values.versions import answering, public_name
from garrison.store.records import Key, Resource, StackRecord, TargetRecord

__all__ = ["PublicNames"]


@dataclass(frozen=True, slots=True)
class PublicNames:
    """What is on record, with public names. Made by `of`.

    Attributes:
        resources: one for each adapter.
    """

    resources: tuple[Resource, ...]
    _names: Mapping[str, Mapping[str, str | None]] = field(default_factory=dict)
    """For each target: the public name of what is called otherwise there; None for another version of the same."""

    @classmethod
    def of(cls, stacks: Iterable[StackRecord], resources: Sequence[Resource]) -> "PublicNames":
        if all(one.key.name == public_name(one) for one in resources):
            return cls(tuple(resources))
        versions: dict[tuple[str, str, str], list[Resource]] = {}
        for one in resources:
            versions.setdefault((one.stack, one.key.target, public_name(one)), []).append(one)
        declared = _declared(stacks)
        names: dict[str, dict[str, str | None]] = {}
        chosen = []
        for place, some in versions.items():
            _, target, public = place
            shown = next((one for one in some if one.key.name == declared.get(place)), None)
            shown = shown or answering((one for one in some if one.operation.serves), None) or some[-1]
            for one in some:
                if one.key.name != public:
                    names.setdefault(target, {})[one.key.name] = public if one is shown else None
            chosen.append(replace(shown, key=Key(target, shown.key.type, public)))
        return cls(tuple(sorted(chosen, key=lambda one: one.key)), names)

    def sighting(self, seen: Sighting) -> Sighting:
        """Return `seen` with public names."""
        names = self._names.get(seen.target)
        if names is None:
            return seen
        served: dict[str, Served] = {}
        for name, one in seen.served.items():
            if (public := names.get(name, name)) is not None:
                served[public] = replace(one, name=public)
        return replace(seen, served=served)

    def record(self, record: TargetRecord) -> TargetRecord:
        """Return `record` with public names."""
        names = self._names.get(record.name)
        if names is None:
            return record
        served = [(names.get(str(one["name"]), str(one["name"])), one) for one in record.served]
        return replace(record, served=tuple({**one, "name": name} for name, one in served if name is not None))


def _declared(stacks: Iterable[StackRecord]) -> dict[tuple[str, str, str], str]:
    """Return the names under which declared adapters are to be served, by stack, target and public name."""
    found = {}
    for stack in stacks:
        for body in () if stack.ending else stack.declaration.get("adapters", ()):
            if body.get("versioned"):
                found[stack.name, body["target"], body["lora_name"]] = AdapterDeclaration(**body).served_name
    return found
