"""What still needs something that is to be removed: engines that run, instances, stacks. Values in, values out."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.base.errors import ConflictError
from garrison.store.records import Resource, StackRecord, TargetRecord

__all__ = ["Need", "engine_needs", "instance_needs", "mentions", "refusal", "served_needs", "stack_needs"]

_MOST_NAMED = 10
_BREAKS = re.compile(r"""[\s'",;=\[\]{}]+""")


@dataclass(frozen=True, slots=True)
class Need:
    """Attributes:
    who: what needs it, and how: "instance qwen (stopped) serves it".
    cure: what ends that: a command, or a sentence.
    """

    who: str
    cure: str

    def to_json(self) -> dict[str, str]:
        return {"who": self.who, "cure": self.cure}


def refusal(what: str, needs: Sequence[Need]) -> ConflictError:
    """The error for something that is not removed, since it is needed."""
    lines = [f"{what} was not removed; it is needed:"]
    lines += [f"  {need.who}: {need.cure}" for need in needs[:_MOST_NAMED]]
    if len(needs) > _MOST_NAMED:
        lines.append(f"  and {len(needs) - _MOST_NAMED} more")
    return ConflictError(
        "\n".join(lines),
        hint="Do that first. --force removes it all the same.",
        details={"needed_by": [need.to_json() for need in needs]},
    )


def mentions(text: str, places: Collection[Path]) -> bool:
    """Whether a word of a command line, or an option, names one of these paths, or one beneath it."""
    roots = tuple(map(str, places))
    return any(word == root or word.startswith(root + "/") for word in _BREAKS.split(text) for root in roots)


def served_needs(served: Iterable[tuple[str, int, Sequence[str]]], places: Collection[Path]) -> list[Need]:
    """Of what `garrison serve` runs: name, pid and command line of each engine."""
    return [
        Need(f"garrison serve {name} (pid {pid}) runs with it", f"garrison stop {name}")
        for name, pid, argv in served
        if any(mentions(word, places) for word in argv)
    ]


def instance_needs(
    instances: Iterable[Mapping[str, Any]], places: Collection[Path], names: Collection[str] = ()
) -> list[Need]:
    """Of instances, as the API shows them, that run or will.

    Args:
        names: those of the model, by which an instance may name it.
    """
    found = []
    for one in instances:
        options = one["options"]
        model = str((options.get("backend_options") or {}).get("model") or "")
        by_name = model in names or any(model.startswith((f"{name}@", f"{name}:")) for name in names)
        if by_name or any(mentions(text, places) for text in _texts(options)):
            name = one["name"]
            cure = f"garrison instance delete {name}" + ("" if one["state"] in ("stopped", "failed") else " --stop")
            found.append(Need(f"instance {name} ({one['state']}) serves it", cure))
    return found


def engine_needs(instances: Iterable[Mapping[str, Any]], engine: str) -> list[Need]:
    """Of instances that have no other environment of `engine` to run in."""
    return [
        Need(f"instance {one['name']} ({one['state']}) has no other {engine}", f"garrison engine install {engine}")
        for one in instances
        if one["options"].get("backend_type") == engine
        and not one["options"].get("command_override")
        and not one["options"].get("docker_enabled")
    ]


def stack_needs(
    targets: Iterable[TargetRecord],
    resources: Iterable[Resource],
    stacks: Iterable[StackRecord],
    places: Collection[Path],
) -> list[Need]:
    """Of adapters on targets: what a stack owns there or declares, and what was served when it was last seen."""
    found: dict[tuple[str, str], Need] = {}
    for resource in resources:
        if mentions(resource.served_path, places) or mentions(str(resource.spec.get("lora_path", "")), places):
            key = resource.key
            found[key.target, key.name] = _of_stack(resource.stack, key.target, key.name)
    for stack in stacks:
        for spec in stack.declaration.get("adapters", ()):
            at = (spec["target"], spec["lora_name"])
            if at not in found and mentions(str(spec.get("lora_path", "")), places):
                found[at] = _of_stack(stack.name, *at)
    for target in targets:
        for served in target.served:
            name = str(served.get("name"))
            if (target.name, name) not in found and mentions(str(served.get("root", "")), places):
                found[target.name, name] = Need(f"{target.name} serves it as {name}", "unload it there")
    return [found[at] for at in sorted(found)]


def _of_stack(stack: str, target: str, name: str) -> Need:
    return Need(f"stack {stack} has it on {target} as {name}", "take it out of the manifest, and apply that")


def _texts(value: Any) -> Iterable[str]:
    """Every text in options."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _texts(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
