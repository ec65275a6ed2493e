"""Extracts a declaration from the current state, such that applying it changes nothing on any target. Pure.

A managed adapter is written as it was applied, or as it is served now if it was changed from outside. An unmanaged one
is written with its served path and base model; applying the manifest adopts it without sending anything to the target.
An adapter that is not served (lost, or never loaded) is omitted, with a note.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from garrison.base.errors import UsageError
from garrison.fleet.observe.record_sighting import served_of
from garrison.fleet.report.inventory_rows import AdapterRow
from garrison.fleet.report.public_names import PublicNames
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Key, Resource, StackRecord, TargetRecord

__all__ = ["Extract", "extract"]

_DEFAULT_STACK = "extracted"


@dataclass(frozen=True, slots=True)
class Extract:
    """A declaration with notes for the reader of the manifest: what was omitted, and how to apply it."""

    declaration: Declaration
    notes: tuple[str, ...]


def extract(
    rows: Iterable[AdapterRow],
    stacks: Sequence[StackRecord],
    targets: Sequence[TargetRecord],
    resources: Sequence[Resource],
    *,
    stack: str | None = None,
) -> Extract:
    """Declare the adapters in `rows`.

    Args:
        rows: rows of the inventory: all of them, or the result of a query.
        stacks: stacks on record.
        targets: targets on record.
        resources: all owned resources.
        stack: name of the stack; adapters that belong to other stacks are omitted. When None: the only stack that
            `rows` belong to, or `extracted` if none is managed.

    Raises:
        UsageError: `rows` belong to several stacks, and `stack` is None.
    """
    chosen = list(rows)
    named = PublicNames.of(stacks, resources)
    resources, targets = named.resources, [named.record(one) for one in targets]
    name = stack or _only_stack(chosen)
    chosen = [row for row in chosen if row.stack in (None, name)]
    records = {one.name: one for one in targets}
    owned = {one.key: one for one in resources}
    adapters: list[AdapterDeclaration] = []
    left_out: list[str] = []
    # Managed adapters first, so that they keep their labels if an unmanaged one has the same name.
    for row in sorted(chosen, key=lambda row: (not row.managed, row.target, row.name)):
        resource = owned.get(Key(row.target, ADAPTER_TYPE, row.name)) if row.managed else None
        spec = _spec(row, resource, records.get(row.target))
        if not row.managed and (re.search(r"\s", row.name) or not row.name.isprintable()):
            left_out.append(f"omitted, its name is not valid in a manifest: {row.name!r} on {row.target}")
        elif spec is None:
            left_out.append(f"omitted, not served: {row.name} on {row.target} ({row.detail or row.status})")
        else:
            adapters.append(spec)
    before = next((one for one in stacks if one.name == name), None)
    notes = [*left_out]
    if before is not None and not _is_whole(name, chosen, resources):
        notes.append(f"this is only part of stack {name}: apply it with --mode patch, or the rest will be unloaded")
    return Extract(_declaration(name, adapters, records, before), tuple(notes))


def _only_stack(rows: Iterable[AdapterRow]) -> str:
    names = sorted({row.stack for row in rows if row.stack is not None})
    if len(names) > 1:
        raise UsageError(
            f"these adapters belong to {len(names)} stacks: {', '.join(names)}",
            hint=f"A manifest declares one stack; choose it, for example with --stack {names[0]}.",
        )
    return names[0] if names else _DEFAULT_STACK


def _spec(row: AdapterRow, resource: Resource | None, record: TargetRecord | None) -> AdapterDeclaration | None:
    served = served_of(record).get(row.name) if record is not None else None
    root = served.root if served is not None else None
    if not row.managed:
        if served is None or root is None:
            return None
        return AdapterDeclaration(
            target=row.target, label=row.name, lora_name=row.name, lora_path=root, base_model_name=served.parent
        )
    if resource is None or row.status == "missing" or (not resource.operation.serves and root is None):
        return None
    spec = replace(AdapterDeclaration(**resource.spec), digest=None)
    if served is None or root is None:
        return spec  # the target is unreachable: written as it was applied
    if root != resource.served_path:
        spec = replace(spec, lora_path=root)
    return replace(spec, base_model_name=served.parent) if resource.parent not in (None, served.parent) else spec


def _is_whole(stack: str, rows: Iterable[AdapterRow], resources: Iterable[Resource]) -> bool:
    taken = {(row.target, row.name) for row in rows if row.stack == stack}
    return all((one.key.target, one.key.name) in taken for one in resources if one.stack == stack)


def _declaration(
    name: str, adapters: Sequence[AdapterDeclaration], records: Mapping[str, TargetRecord], before: StackRecord | None
) -> Declaration:
    """Return the declaration with the stack's own policy, hooks and targets, so that applying it keeps them."""
    known = Declaration.from_json(before.declaration) if before is not None else Declaration(stack=name)
    used = {spec.target for spec in adapters} | known.targets.keys()
    targets = {one: TargetSpec.from_json(one, records[one].spec) for one in sorted(used) if one in records}
    return replace(known, targets=targets, adapters=tuple(adapters))
