"""Fingerprints of plans: what a person confirmed is compared with what would be done now. Pure.

A fingerprint covers the actions, the values that each of them is based on, the declaration, and the stack's declaration
on record, which a reconcile replaces. It leaves out what changes by itself or does not matter to these actions: times,
durations, versions, wording, and targets and adapters at which nothing would be done.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from operator import attrgetter
from typing import Any

from garrison.base.errors import ConflictError
from garrison.fleet.values.declaration import Declaration
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.store.records import Resource, StackRecord

__all__ = ["digest_of", "fingerprint_of", "plan_changes", "reject_changed"]

_MOST_CHANGES = 5
_BYTES = 16

# `attrgetter` and `repr`: a plan may have 100,000 actions, and JSON with sorted keys takes five times as long. A record
# has its keys in the order in which it was stored, so equal ones look alike.
_adapter = attrgetter(
    "target", "label", "lora_name", "lora_path", "base_model_name", "is_3d_lora_weight", "digest", "probe", "versioned",
    "on_demand",
)  # fmt: skip
_action = attrgetter("kind", "target", "name", "label", "way", "stage", "load_path", "conflict")
_served = attrgetter("name", "root", "parent")
_resource = attrgetter("key.target", "key.type", "key.name", "stack", "label", "served_path", "parent", "spec")


def fingerprint_of(drafted: Plan, declaration: Declaration, before: StackRecord | None) -> str:
    """Return the fingerprint of a plan, 32 hexadecimal digits. The order of declarations does not matter.

    Args:
        declaration: what the plan was made for, with the digests of the adapters' contents.
        before: the stack on record. Not covered for a patch, which keeps what it does not mention, nor for a plan that
            changes nothing.
    """
    parts = [drafted.stack, drafted.mode]
    parts += sorted(map(_action_text, (one for one in drafted.actions if one.kind is not ActionKind.KEEP)))
    parts += sorted(_text(one.to_json()) for one in drafted.targets if _matters(one.kind))
    parts += sorted(map(_instance_text, (one for one in drafted.instances if one.kind is not InstanceKind.UNCHANGED)))
    if not drafted.empty:
        parts += _declaration_texts(declaration)
        if before is not None and drafted.mode != "patch":
            parts += [_text(before.ending), *_record_texts(before.declaration)]
    return digest_of(parts)


def digest_of(parts: Iterable[str]) -> str:
    """Return the digest of `parts`, in order. Two lists of parts never run into each other."""
    found = hashlib.blake2b(digest_size=_BYTES)
    for part in parts:
        found.update(f"{len(part)}:{part}".encode())
    return found.hexdigest()


def reject_changed(drafted: Plan, confirmed: str | None) -> None:
    """Check that `drafted` is the plan that was confirmed; None: no particular plan was.

    Raises:
        ConflictError: it is another one. Details: `plan` and `fingerprint`, as they are now.
    """
    if confirmed is None or drafted.fingerprint == confirmed:
        return
    raise ConflictError(
        f"rejected: the plan for stack {drafted.stack} has changed since it was shown",
        hint="Nothing was done. Run the command again to see the plan as it is now.",
        details={"fingerprint": drafted.fingerprint, "plan": drafted.to_json()},
    )


def plan_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say how one plan differs from another, for display; both as `Plan.to_json` returns them."""
    old, new = _by_place(before), _by_place(after)
    said = [
        f"{place}: {old.get(place, 'nothing to do')}, now {new.get(place, 'nothing to do')}"
        for place in dict.fromkeys((*old, *new))
        if old.get(place) != new.get(place)
    ]
    if not said:
        return "what the plan is based on has changed: the declaration on record, or the content of files"
    more = f"; and {len(said) - _MOST_CHANGES} more" if len(said) > _MOST_CHANGES else ""
    return "; ".join(said[:_MOST_CHANGES]) + more


def _by_place(plan: Mapping[str, Any]) -> dict[str, str]:
    """What is done, in words, by adapter and target."""
    found = {}
    for one in plan["instances"]:
        if one["kind"] != "unchanged":
            found[f"instance {one['name']}"] = _words(one["kind"], one["changes"])
    for one in plan["targets"]:
        if _matters(one["kind"]):
            found[f"target {one['name']}"] = _words(one["kind"], one["changes"])
    for one in plan["actions"]:
        if one["kind"] == "keep":
            continue
        aside = f" ({one['reason']})" if one["kind"] == "blocked" else ""
        found[f"{one['target']}/{one['name']}"] = _words(one["kind"], one["changes"]) + aside
    return found


def _matters(kind: str) -> bool:
    """Return whether a change of a target's declaration matters to the plan. Not one that is new on record: another
    stack may declare the same one first."""
    return kind not in ("keep", "create")


def _words(kind: str, changes: Iterable[Mapping[str, Any]]) -> str:
    fields = ", ".join(f"{one['field']} {one['before']} → {one['after']}" for one in changes)
    return f"{kind} ({fields})" if fields else kind


def _instance_text(one: InstanceChange) -> str:
    """A state changes by itself, and so does what depends on it."""
    return _text([str(one.kind), one.name, one.node, one.adopted, one.spec])


def _action_text(one: Action) -> str:
    if one.kind is ActionKind.BLOCKED:
        # Why a target cannot be reached varies from one attempt to the next, and nothing is done there in any case.
        recoverable = one.failure is not None and one.failure.recoverable
        return repr((one.kind, one.target, one.name, one.label, one.conflict, recoverable))
    observed = _served(one.observed) if one.observed is not None else None
    return repr((_action(one), _recorded(one.recorded), _recorded(one.replaced), observed))


def _recorded(one: Resource | None) -> object:
    return None if one is None else _resource(one)


def _declaration_texts(declared: Declaration) -> list[str]:
    """An adapter at which nothing is done is part of what will be on record, so all of them are covered."""
    head = {
        "targets": {name: spec.to_json() for name, spec in declared.targets.items()},
        "models": sorted(_text(one.to_json()) for one in declared.models),
        "policy": declared.policy.to_json(),
        "hooks": [one.to_json() for one in declared.hooks],
    }
    if declared.instances or declared.routes:
        head["instances"] = {name: one.to_json() for name, one in declared.instances.items()}
        head["routes"] = {name: one.to_json() for name, one in declared.routes.items()}
    return [_text(head), *sorted(repr(_adapter(one)) for one in declared.adapters)]


def _record_texts(recorded: Mapping[str, Any]) -> list[str]:
    lists = ("adapters", "models")
    head = {name: value for name, value in recorded.items() if name not in lists}
    return [_text(head), *(text for name in lists for text in sorted(map(repr, recorded.get(name, ()))))]


def _text(value: object) -> str:
    return json.dumps(value, sort_keys=True)
