"""Extracts a declaration from the current state. Applying it does what is owed anyway, and nothing else. Pure.

A managed adapter is written as it is declared, or as it is served now if it was changed from outside. One that is owed
is written too, although it is not served yet; one that was lost since is omitted, with a note. An unmanaged one is
added to a stack on record only if that was asked for. It is written with its served path and base model; applying the
manifest adopts it without sending anything to the target.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from garrison.base.errors import UsageError
from garrison.base.output.plain_text import plain
from garrison.base.redaction import excerpt
from garrison.fleet.manifest.writable import unwritable, unwritable_name
from garrison.fleet.observe.record_sighting import served_of
from garrison.fleet.report.inventory_rows import AdapterRow
from garrison.fleet.report.public_names import PublicNames
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration
from garrison.fleet.values.target import TargetSpec
from garrison.store.records import Key, Resource, StackRecord, TargetRecord

__all__ = ["Extract", "extract"]

_DEFAULT_STACK = "extracted"
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Extract:
    """A declaration with notes for the reader of the manifest: what was omitted, and how to apply it.

    `owed`: applying it does something at a target, which is owed without it too.
    """

    declaration: Declaration
    notes: tuple[str, ...]
    owed: bool = False


def extract(
    rows: Iterable[AdapterRow],
    stacks: Sequence[StackRecord],
    targets: Sequence[TargetRecord],
    resources: Sequence[Resource],
    *,
    stack: str | None = None,
    strangers: bool = True,
) -> Extract:
    """Declare the adapters in `rows`.

    Args:
        rows: rows of the inventory: all of them, or the result of a query.
        stacks: stacks on record.
        targets: targets on record.
        resources: all owned resources.
        stack: name of the stack; adapters that belong to other stacks are omitted. When None: the only stack that
            `rows` belong to, or `extracted` if none is managed.
        strangers: whether adapters that no stack owns are added to a stack that is on record.

    Raises:
        UsageError: `rows` belong to several stacks, and `stack` is None; or no manifest takes the name of the stack.
    """
    chosen = list(rows)
    named = PublicNames.of(stacks, resources)
    resources, targets = named.resources, [named.record(one) for one in targets]
    name = stack or _only_stack(chosen)
    if why := unwritable_name(name):
        raise UsageError(f"invalid name of a stack: it {why}", hint="Choose another one with --stack.")
    before = next((one for one in stacks if one.name == name), None)
    known = Declaration.from_json(before.declaration) if before is not None else Declaration(stack=name)
    chosen = [row for row in chosen if row.stack in (None, name)]
    notes = []
    if before is not None and not strangers and (others := sum(not row.managed for row in chosen)):
        chosen = [row for row in chosen if row.managed]
        noun = "adapter that no stack owns is" if others == 1 else "adapters that no stack owns are"
        notes.append(f"{others:,} {noun} left out; `garrison extract --query status:unmanaged` writes them")
    taken = _taken(known, before, chosen, resources, {one.name: one for one in targets})
    if before is not None and not _is_whole(chosen, known, before, resources):
        notes.append(f"this is only part of stack {name}: apply it with --mode patch, or the rest will be unloaded")
    if taken.owed:
        notes.append(f"owed, so that an apply carries it out: {', '.join(taken.owed)}")
    adapters = tuple(taken.adapters)
    return Extract(
        _declaration(known, adapters, {one.name: one for one in targets}),
        (*taken.left_out, *notes),
        owed=bool(taken.owed) or (before is not None and before.ending),
    )


@dataclass(slots=True)
class _Taken:
    """The adapters to declare. `owed`: those that are not served as declared, as `target/name`."""

    adapters: list[AdapterDeclaration] = field(default_factory=list)
    owed: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def _taken(
    known: Declaration,
    before: StackRecord | None,
    rows: Iterable[AdapterRow],
    resources: Iterable[Resource],
    records: Mapping[str, TargetRecord],
) -> _Taken:
    declared = {(one.target, one.lora_name): one for one in known.adapters}
    owned = {one.key: one for one in resources}
    ending = before is not None and before.ending
    taken = _Taken()
    # Managed adapters first, so that they keep their labels if an unmanaged one has the same name.
    for row in sorted(rows, key=lambda row: (not row.managed, row.target, row.name)):
        place = f"{row.name} on {row.target}"
        resource = owned.get(Key(row.target, ADAPTER_TYPE, row.name)) if row.managed else None
        wanted = None if ending else declared.get((row.target, row.name))
        if row.managed and wanted is None:
            taken.left_out.append(f"omitted, no longer declared and still to be unloaded: {place}")
            continue
        spec = _spec(row, wanted, resource, records.get(row.target))
        if spec is None:
            taken.left_out.append(f"omitted, not served: {plain(place)} ({row.detail or row.status})")
        elif not row.managed and (why := unwritable(spec.lora_name, spec.lora_path, spec.base_model_name)):
            shown = ascii(excerpt(row.name, _SHOWN_CHARACTERS))
            taken.left_out.append(f"omitted, no manifest can declare it: {shown} on {row.target} ({why})")
        else:
            taken.adapters.append(spec)
            if row.status in ("owed", "failed"):
                taken.owed.append(f"{row.target}/{row.name}")
    return taken


def _only_stack(rows: Iterable[AdapterRow]) -> str:
    names = sorted({row.stack for row in rows if row.stack is not None})
    if len(names) > 1:
        raise UsageError(
            f"these adapters belong to {len(names)} stacks: {', '.join(names)}",
            hint=f"A manifest declares one stack; choose it, for example with --stack {names[0]}.",
        )
    return names[0] if names else _DEFAULT_STACK


def _spec(
    row: AdapterRow, wanted: AdapterDeclaration | None, resource: Resource | None, record: TargetRecord | None
) -> AdapterDeclaration | None:
    """Return the adapter to declare; None if it is not served, and nobody owes that it is."""
    served = served_of(record).get(row.name) if record is not None else None
    root = served.root if served is not None else None
    if wanted is None:
        if served is None or root is None:
            return None
        return AdapterDeclaration(
            target=row.target, label=row.name, lora_name=row.name, lora_path=root, base_model_name=served.parent
        )
    spec = replace(wanted, digest=None)
    if resource is None or (row.status in ("owed", "failed") and not resource.operation.serves):
        return spec
    if row.status == "missing" or (not resource.operation.serves and root is None):
        return None
    if served is None or root is None:
        return spec  # the target is unreachable
    if root != resource.served_path:
        spec = replace(spec, lora_path=root)
    return replace(spec, base_model_name=served.parent) if resource.parent not in (None, served.parent) else spec


def _is_whole(
    rows: Iterable[AdapterRow], known: Declaration, before: StackRecord, resources: Iterable[Resource]
) -> bool:
    taken = {(row.target, row.name) for row in rows if row.stack == known.stack}
    owned = {(one.key.target, one.key.name) for one in resources if one.stack == known.stack}
    wanted = set() if before.ending else {(one.target, one.lora_name) for one in known.adapters}
    return owned | wanted <= taken


def _declaration(
    known: Declaration, adapters: Sequence[AdapterDeclaration], records: Mapping[str, TargetRecord]
) -> Declaration:
    """Return the declaration with the stack's own policy, hooks and targets, so that applying it keeps them."""
    used = {spec.target for spec in adapters} | known.targets.keys()
    targets = {one: TargetSpec.from_json(one, records[one].spec) for one in sorted(used) if one in records}
    return replace(known, targets=targets, adapters=tuple(adapters))
