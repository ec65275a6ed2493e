"""Computes the plan: the actions that make the targets serve what was declared. No I/O.

Three values decide about each adapter: how it is declared (or not), how it was last applied (or never), and how it is
served now (or not, or unknown).

    declared  recorded  observed             action
    yes       no        absent               create
    yes       no        as declared          adopt: nothing is sent
    yes       no        another path         conflict; with `adopt`, update
    yes       yes       as recorded          keep, update, or replace if a create-only field changed
    yes       yes       from a faulty entry  update: the same content, from a fresh entry of the adapter store
    yes       yes       absent               create: repairing a tombstone needs no flag
    yes       yes       another path         conflict; adopt if it is the declared path; with `force`, update
    no        yes       as recorded          delete (`patch` keeps)
    no        yes       absent               release: already gone
    no        yes       another path         release: no longer Garrison's
    no        yes       instance is deleted  release: it ends with the instance
    replaced  yes       as recorded          keep until its successor answers and nothing uses it, then delete
    on demand any       absent               create if a request asks for it, else release what is on record
    on demand yes       as recorded          keep, or delete if it makes room for another one
    either    either    unknown              keep if nothing is to be done, else blocked: owed until it is seen

An adapter that is replaced is an earlier version of a declared one, under a name of its own: see `plan.versions`.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from garrison.base.errors import InvalidError
from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.plan.context import Mode, PlanOptions, Scene, routes_off
from garrison.fleet.plan.declared import declared, impossible, renamed
from garrison.fleet.plan.versions import Versions
from garrison.fleet.values.cures import when_due
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, ModelSpec
from garrison.fleet.values.demand import NOTHING_ASKED, Demand
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.plan import Action, ActionKind, Change, Plan, TargetChange, Way
from garrison.store.records import Resource, TargetRecord

__all__ = ["check_models", "plan"]

_ORDER = {
    ActionKind.RELEASE: 0,
    ActionKind.ADOPT: 1,
    ActionKind.DELETE: 2,
    ActionKind.UPDATE: 3,
    ActionKind.REPLACE: 4,
    ActionKind.CREATE: 5,
    ActionKind.KEEP: 6,
    ActionKind.BLOCKED: 7,
}
_GENTLE = 5.5
"""What may still have requests is unloaded after the others are served: that can take its time."""


def plan(
    declaration: Declaration,
    recorded: Sequence[Resource],
    sightings: Mapping[str, Sighting],
    *,
    mode: Mode = "reconcile",
    options: PlanOptions | None = None,
    known_targets: Mapping[str, TargetRecord] | None = None,
    declared_before: Iterable[str] = (),
    staged_path: Callable[[str, str], str | None] = lambda _target, _digest: None,
    prefix_caching: Mapping[str, bool | None] | None = None,
    faults: Mapping[str, EntryFault] | None = None,
    ending: frozenset[str] = frozenset(),
    demand: Demand = NOTHING_ASKED,
) -> Plan:
    """Compute the actions for one stack.

    Args:
        declaration: the desired state; adapters carry the digest of their content if it can be read locally.
        recorded: resources of this stack on any target, and of other stacks on this stack's targets.
        sightings: the last observation of each target; a target without one is unknown.
        mode: `patch` keeps adapters that are not declared; `destroy` unloads all of the stack's.
        options: conflicts and risks that the user accepted.
        known_targets: targets on record, to find new and changed ones.
        declared_before: targets of the stack's last applied manifest.
        staged_path: maps (target, digest) to the path in the target's adapter store, or None if it has none.
        prefix_caching: whether each target caches prefixes; None or missing if not known.
        ending: targets that are instances to be deleted; what was loaded there ends with them.
        faults: faults of adapter store entries in use, by path; see `entry_faults`.
        demand: what clients of the gateway ask for.
    """
    scene = Scene(
        stack=declaration.stack,
        mode=mode,
        options=options or PlanOptions(),
        sightings=sightings,
        staged_path=staged_path,
        faults=faults or {},
        ending=ending,
        prefix_caching=prefix_caching or {},
        demand=demand,
        slots={name: spec.adapter_slots for name, spec in declaration.targets.items()},
        instances=frozenset(name for name, spec in declaration.targets.items() if spec.instance is not None),
    )
    actions = [*_decide_all(declaration, recorded, scene)]
    actions.sort(key=_order)
    involved = {action.target for action in actions} | declaration.targets.keys() | sightings.keys()
    unknown = {name: failure.message for name in sorted(involved - ending) if (failure := scene.unknown(name))}
    return Plan(
        stack=declaration.stack,
        mode=mode,
        actions=tuple(actions),
        targets=tuple(_target_changes(declaration, mode, known_targets or {}, declared_before)),
        unknown=unknown,
    )


def check_models(models: Iterable[ModelSpec], sightings: Mapping[str, Sighting]) -> None:
    """Check declared base models against the served ones. They are set when vLLM starts and cannot be changed.

    Raises:
        InvalidError: a target serves another base model than the declared one.
    """
    for model in models:
        seen = sightings.get(model.target)
        if seen is None or not seen.known:
            continue
        bases = {name: one for name, one in seen.served.items() if one.parent is None}
        wanted = model.id or model.label
        found = bases.get(wanted)
        if found is not None and model.root in (None, found.root):
            continue
        what = f"{wanted} from {model.root}" if found is not None else wanted
        there = f"{wanted} from {found.root}" if found is not None else ", ".join(bases)
        raise InvalidError(
            f"target {model.target} serves base model {there}, but the manifest declares {what}",
            hint="A base model is set when vLLM starts and cannot be changed through its API. Restart vLLM with the "
            "declared model, or declare the served one.",
            details={"target": model.target, "declared": wanted, "served": sorted(bases)},
        )


def _order(action: Action) -> tuple[str, float, str]:
    last = action.gently and action.kind is ActionKind.DELETE
    return action.target, _GENTLE if last else _ORDER[action.kind], action.name


def _decide_all(declaration: Declaration, recorded: Sequence[Resource], scene: Scene) -> Iterable[Action]:
    owned = {(one.key.target, one.key.name): one for one in recorded}
    wanted = {(spec.target, spec.served_name): spec for spec in declaration.adapters}
    versions = Versions(wanted, owned, scene)
    updates = versions.updates()
    renames = {place: old for place, old in _renames(wanted, owned, scene).items() if place not in updates}
    for place, spec in wanted.items():
        if place in updates:
            yield updates[place]
        elif place in renames:
            yield renamed(spec, renames[place], scene)
        else:
            yield declared(spec, owned.get(place), scene)
    # The old name of a rename is unloaded by the action for the new one.
    going = {(old.key.target, old.key.name) for old in renames.values()} | versions.going
    for place, one in owned.items():
        if one.stack == scene.stack and place not in wanted and place not in going:
            yield versions.replaced(one) or _undeclared(one, scene)


def _renames(
    wanted: Mapping[tuple[str, str], AdapterDeclaration], owned: Mapping[tuple[str, str], Resource], scene: Scene
) -> dict[tuple[str, str], Resource]:
    """Find renames: labels that had another name on the same target.

    A rename loads the new name before it unloads the old one, so it requires that the old one is served as recorded
    and the new name is free; otherwise the two names are planned separately.
    """
    by_label = {
        (one.key.target, one.label): one
        for place, one in owned.items()
        if one.stack == scene.stack and place not in wanted
    }
    found = {}
    for place, spec in wanted.items():
        old = by_label.get((spec.target, spec.label))
        if old is None or place in owned or scene.mode == "patch" or scene.unknown(spec.target):
            continue
        now = scene.observed(spec.target, old.key.name)
        as_recorded = now is not None and now.root == old.served_path
        if as_recorded and scene.observed(spec.target, spec.served_name) is None and not impossible(spec, scene):
            found[place] = old
    return found


# --- not declared


def _undeclared(recorded: Resource, scene: Scene) -> Action:
    target, name = recorded.key.target, recorded.key.name
    base = Action(kind=ActionKind.KEEP, target=target, name=name, label=recorded.label, reason="", recorded=recorded)
    if scene.mode == "patch":
        return replace(base, reason="not in this manifest; patch leaves it")
    if target in scene.ending:
        reason = f"instance {target} is deleted"
        return replace(base, kind=ActionKind.RELEASE, way=Way.RECORD, reason=reason)
    if unknown := scene.unknown(target):
        reason = f"will be unloaded {when_due(unknown.cause)}"
        return replace(base, kind=ActionKind.BLOCKED, reason=reason, failure=unknown, owed=True)
    observed = scene.observed(target, name)
    if observed is None:
        return replace(base, kind=ActionKind.RELEASE, way=Way.RECORD, reason="no longer declared, and already gone")
    if observed.root != recorded.served_path or not recorded.operation.serves:
        reason = f"no longer declared; now loaded from {observed.root} by another party, and left alone"
        return replace(base, kind=ActionKind.RELEASE, way=Way.RECORD, reason=reason, observed=observed)
    # Only now: a release sends nothing, so it needs no routes.
    if scene.sightings[target].lora_routes is False:
        return replace(base, kind=ActionKind.BLOCKED, reason="no longer declared", failure=routes_off(target))
    reason = "the stack is destroyed" if scene.mode == "destroy" else "no longer declared"
    return replace(base, kind=ActionKind.DELETE, way=Way.UNLOAD, reason=reason, observed=observed)


def _target_changes(
    declaration: Declaration, mode: Mode, known: Mapping[str, TargetRecord], before: Iterable[str]
) -> Iterable[TargetChange]:
    for name, spec in sorted(declaration.targets.items()):
        record = known.get(name)
        if record is None:
            yield TargetChange(kind="create", name=name, changes=(Change("base_url", None, spec.base_url),))
            continue
        old, new = record.spec, spec.to_json()
        changes = tuple(
            Change(key, _text(old.get(key)), _text(new.get(key)))
            for key in sorted(old.keys() | new.keys())
            if old.get(key) != new.get(key)
        )
        yield TargetChange(kind="update" if changes else "keep", name=name, changes=changes)
    if mode != "patch":
        for name in sorted(set(before) - declaration.targets.keys()):
            yield TargetChange(kind="delete", name=name)


def _text(value: Any) -> str | None:
    """Return `value` as it may be written in a manifest: `{"site": "lab"}` is YAML and JSON, Python's repr is not."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
