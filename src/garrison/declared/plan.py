"""Decides what an apply does with instances. No I/O.

declared  exists, belonging to   change
yes       no                     create
yes       this stack             unchanged, or update with the fields that differ
yes       no stack               conflict; with `adopt`, update
yes       another stack          conflict
no        this stack             delete (`patch` leaves it)
no        anything else          nothing: it is not even named
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from garrison.base.redaction import HIDDEN, is_secret_name, redacted
from garrison.base.values import duration_text, size_text
from garrison.engines.llama_preset import preset_sections
from garrison.fleet.plan.context import Mode
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.instance_change import Change, InstanceChange, InstanceKind
from garrison.instances.stored import spec_to_json
from garrison.instances.values.spec import CustomServer, InstanceSpec
from garrison.instances.values.state import State
from garrison.net.endpoint import Secret

__all__ = ["Existing", "plan_instances"]

_WORDS = {"idle_seconds": "idle", "memory_bytes": "memory"}
_OF_MAPPINGS = ("options", "env", "secrets")


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """An instance that exists. `node`: where; None for this machine."""

    spec: InstanceSpec
    state: State
    node: str | None = None


def plan_instances(
    declared: Iterable[tuple[str | None, InstanceSpec]],
    existing: Iterable[Existing],
    stack: str,
    *,
    mode: Mode = "reconcile",
    adopt: bool = False,
) -> tuple[InstanceChange, ...]:
    """Return the changes to the instances of `stack`, by name and node.

    Args:
        declared: what should be, each with its node.
        existing: what is, on every node that is involved; instances of others too, since names are taken.
        adopt: take over instances of a declared name that belong to no stack.
    """
    known = {(one.node, one.spec.name): one for one in existing}
    wanted = {(node, spec.name): spec for node, spec in declared}
    changes = [_declared(node, spec, known.get((node, spec.name)), stack, adopt) for (node, _), spec in wanted.items()]
    if mode != "patch":
        gone = [one for place, one in known.items() if one.spec.stack == stack and place not in wanted]
        changes += [_deleted(one) for one in gone]
    return tuple(sorted(changes, key=lambda one: (one.name, one.node or "", str(one.kind))))


def _declared(node: str | None, spec: InstanceSpec, found: Existing | None, stack: str, adopt: bool) -> InstanceChange:
    base = InstanceChange(
        kind=InstanceKind.CREATE, name=spec.name, node=node, summary=_summary(spec), spec=spec_to_json(spec)
    )
    if found is None:
        return base
    base = replace(base, state=str(found.state))
    if found.spec.stack != stack and (found.spec.stack is not None or not adopt):
        return replace(base, kind=InstanceKind.CONFLICT, failure=_taken(spec.name, found.spec.stack))
    changes = tuple(_changes(found.spec, spec))
    adopted = found.spec.stack is None
    if not changes and not adopted:
        return replace(base, kind=InstanceKind.UNCHANGED)
    restart = found.state.holds_engine and found.spec.restarts_for(spec)
    return replace(base, kind=InstanceKind.UPDATE, changes=changes, needs_restart=restart, adopted=adopted)


def _deleted(one: Existing) -> InstanceChange:
    return InstanceChange(
        kind=InstanceKind.DELETE,
        name=one.spec.name,
        node=one.node,
        summary=_summary(one.spec),
        state=str(one.state),
    )


def _taken(name: str, stack: str | None) -> Failure:
    if stack is None:
        message = f"instance {name} exists, and no stack declared it"
        hint = "Take it over with --adopt, or give this instance another name."
    else:
        message = f"instance {name} belongs to stack {stack}"
        hint = f"Give this instance another name, or remove it from the manifest of {stack} and apply that first."
    return Failure(code=FailureCode.RESOURCE_CONFLICT, message=message, hint=hint)


def _summary(spec: InstanceSpec) -> str:
    what = spec.model or (spec.custom.argv[0] if spec.custom is not None else "")
    if spec.router:
        what = "router"
    return f"{spec.engine}  {what}".rstrip()


def _changes(before: InstanceSpec, after: InstanceSpec) -> Iterable[Change]:
    for one in fields(InstanceSpec):
        old, new = getattr(before, one.name), getattr(after, one.name)
        if one.name in ("name", "stack") or old == new:
            continue
        if one.name in _OF_MAPPINGS:
            yield from _key_changes(one.name, old, new)
        elif one.name == "preset_ini":
            yield from _preset_changes(old or "", new or "")
        else:
            shown = _SHOWN.get(one.name, _text)
            yield Change(_WORDS.get(one.name, one.name), shown(old), shown(new))


def _key_changes(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterable[Change]:
    word = "env" if name == "secrets" else name
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        if old == new and (key in before) == (key in after):
            continue
        if word == "env" and is_secret_name(key) and not isinstance(old or new, Secret):
            old, new = (None if value is None else HIDDEN for value in (old, new))
        yield Change(f"{word}.{key}", _text(old), _text(new))


def _preset_changes(before: str, after: str) -> Iterable[Change]:
    old, new = preset_sections(before), preset_sections(after)
    differ = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
    for name in differ:
        yield Change(f"preset_ini[{name}]", _section(old.get(name)), _section(new.get(name)))
    if not differ:
        yield Change("preset_ini", "the same keys", "the same keys, written otherwise")


def _section(keys: Mapping[str, str] | None) -> str | None:
    if keys is None:
        return None
    return ", ".join(redacted(f"{key} = {value}") for key, value in keys.items()) or "no keys"


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return "never" if seconds <= 0 else duration_text(seconds)


def _size(count: int | None) -> str | None:
    return None if count is None else size_text(count)


def _text(value: Any) -> str | None:
    if value is None or value == () or value == {}:
        return None
    if isinstance(value, CustomServer):
        value = {"argv": value.argv, "ready_path": value.ready_path, "apis": sorted(value.apis)}
    if isinstance(value, Secret):
        value = value.to_json()
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return redacted(text)


_SHOWN: Mapping[str, Callable[[Any], str | None]] = {"idle_seconds": _time, "memory_bytes": _size}
