"""What would make the targets serve what was declared: desired, recorded and observed in, actions out. No I/O.

One adapter is decided by three values: how it is declared (or not), how it was last applied (or never), and how it is
served now (or not, or unknown).

    declared  recorded  observed             action
    yes       no        absent               create
    yes       no        there, as declared   adopt: nothing is sent
    yes       no        there, other path    conflict; with `adopt`, update
    yes       yes       as recorded          keep, update, or replace where a create-only field changed
    yes       yes       absent               create: a tombstone is mended without a flag
    yes       yes       another path         conflict; adopt where it is what is declared; with `force`, update
    no        yes       as recorded          delete (`patch` keeps)
    no        yes       absent               release: it is gone already
    no        yes       another path         release: it is somebody else's now
    either    either    unknown              keep where nothing is to be done, else blocked: owed until it is seen
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from garrison.base.errors import InvalidError
from garrison.fleet.declaration import AdapterSpec, Declaration, ModelSpec
from garrison.fleet.failure import Failure, FailureCode
from garrison.fleet.observation import Cause, Served, Sighting
from garrison.fleet.plan_values import Action, ActionKind, Change, Plan, TargetChange, Way
from garrison.fleet.settle import INTERRUPTED
from garrison.store.records import Resource, TargetRecord

__all__ = ["Mode", "PlanOptions", "check_models", "plan"]

Mode = Literal["reconcile", "patch", "destroy"]

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
_RETURNS = "It is done by the next apply, or by the agent, once the target is seen."
_THREE_WAYS = (
    "Keep what is there: `garrison extract` it and fold it into the manifest. Overwrite it: --force. "
    "Or leave it as it is."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOptions:
    """What the user allowed.

    Attributes:
        force: overwrite what somebody else changed since it was applied.
        adopt: take over adapters that others loaded under a declared name.
        accept_stale_cache: load new content at an unchanged path even where the server may answer from old blocks.
    """

    force: bool = False
    adopt: bool = False
    accept_stale_cache: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What every decision may look at."""

    stack: str
    mode: Mode
    options: PlanOptions
    sightings: Mapping[str, Sighting]
    staged_path: Callable[[str, str], str | None]
    prefix_caching: Mapping[str, bool | None]

    def sighting(self, target: str) -> Sighting | None:
        return self.sightings.get(target)

    def unknown(self, target: str) -> Failure | None:
        """Why nothing can be said about `target`; None when it was seen."""
        seen = self.sightings.get(target)
        if seen is not None and seen.known:
            return None
        cause, detail = (seen.cause, seen.detail) if seen else (Cause.NEVER_ASKED, "it was not asked")
        return Failure(
            code=FailureCode.NETWORK_FAILURE,
            message=f"target {target} is out of reach ({cause}): {detail}",
            hint=_RETURNS,
            recoverable=True,
            cause=cause,
        )

    def observed(self, target: str, name: str) -> Served | None:
        seen = self.sightings.get(target)
        found = seen.served.get(name) if seen else None
        return found if found is not None and found.parent is not None else None

    def load_path(self, spec: AdapterSpec) -> tuple[str, bool]:
        """The path to load from, and whether files are put there first."""
        staged = self.staged_path(spec.target, spec.digest) if spec.digest else None
        return (staged, True) if staged else (spec.lora_path, False)


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
) -> Plan:
    """The actions for one stack.

    Args:
        declaration: its adapters carry the digest of their content where it can be read here.
        recorded: what is owned: by this stack anywhere, and by others on this stack's targets.
        sightings: the last look at each target; one that is not in it is unknown.
        known_targets: how targets are declared now, to tell new and changed ones.
        declared_before: targets of the stack's last applied manifest.
        staged_path: (target, digest) to the path in the target's adapter store; None where it has none.
        prefix_caching: whether a target caches prefixes; None or missing where that is not known.
    """
    scene = _Scene(
        stack=declaration.stack,
        mode=mode,
        options=options or PlanOptions(),
        sightings=sightings,
        staged_path=staged_path,
        prefix_caching=prefix_caching or {},
    )
    actions = [*_decide_all(declaration, recorded, scene)]
    actions.sort(key=lambda action: (action.target, _ORDER[action.kind], action.name))
    involved = {action.target for action in actions} | declaration.targets.keys()
    unknown = {name: failure.message for name in sorted(involved) if (failure := scene.unknown(name))}
    return Plan(
        stack=declaration.stack,
        mode=mode,
        actions=tuple(actions),
        targets=tuple(_target_changes(declaration, mode, known_targets or {}, declared_before)),
        unknown=unknown,
    )


def check_models(models: Iterable[ModelSpec], sightings: Mapping[str, Sighting]) -> None:
    """Base models are set when vLLM starts. Declaring one as it is does no harm; declaring another is an error.

    Raises:
        InvalidError: a target serves another base model than the one declared.
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
            f"target {model.target} serves the base model {there}; the manifest declares {what}",
            hint="A base model is set when vLLM starts and cannot be changed through its API: restart vLLM with the "
            "other model, or declare what is there.",
            details={"target": model.target, "declared": wanted, "served": sorted(bases)},
        )


def _decide_all(declaration: Declaration, recorded: Sequence[Resource], scene: _Scene) -> Iterable[Action]:
    owned = {(one.key.target, one.key.name): one for one in recorded}
    declared = {(spec.target, spec.lora_name): spec for spec in declaration.adapters}
    renamed = _renamed(declared, owned, scene)
    for place, spec in declared.items():
        old = renamed.get(place)
        yield _replaced_name(spec, old, scene) if old else _declared(spec, owned.get(place), scene)
    going = {(old.key.target, old.key.name) for old in renamed.values()}
    for place, one in owned.items():
        if one.stack == scene.stack and place not in declared and place not in going:
            yield _undeclared(one, scene)


def _renamed(
    declared: Mapping[tuple[str, str], AdapterSpec], owned: Mapping[tuple[str, str], Resource], scene: _Scene
) -> dict[tuple[str, str], Resource]:
    """Declared places whose label belonged to another name on the same target, where both are as they should be."""
    by_label = {
        (one.key.target, one.label): one
        for place, one in owned.items()
        if one.stack == scene.stack and place not in declared
    }
    found = {}
    for place, spec in declared.items():
        old = by_label.get((spec.target, spec.label))
        if old is None or place in owned or scene.mode == "patch" or scene.unknown(spec.target):
            continue
        now = scene.observed(spec.target, old.key.name)
        as_recorded = now is not None and now.root == old.served_path
        if as_recorded and scene.observed(spec.target, spec.lora_name) is None and not _impossible(spec, scene):
            found[place] = old
    return found


# --- declared


def _declared(spec: AdapterSpec, recorded: Resource | None, scene: _Scene) -> Action:
    if recorded is not None and recorded.stack != scene.stack:
        failure = Failure(
            code=FailureCode.RESOURCE_CONFLICT,
            message=f"{spec.lora_name} on {spec.target} belongs to the stack {recorded.stack}",
            hint=f"Take it out of the manifest of {recorded.stack} first, or give this one another lora_name.",
        )
        return _blocked(spec, recorded, None, failure, "owned by another stack", conflict=True)
    if unknown := scene.unknown(spec.target):
        return _unseen(spec, recorded, unknown)
    observed = scene.observed(spec.target, spec.lora_name)
    if impossible := _impossible(spec, scene):
        return _blocked(spec, recorded, observed, impossible, "no load can bring this about")
    if observed is None:
        return _missing(spec, recorded, scene)
    if recorded is None or not recorded.operation.serves:
        return _others(spec, recorded, observed, scene)
    if observed.root != recorded.served_path:
        return _overwritten(spec, recorded, observed, scene)
    if recorded.parent is not None and observed.parent != recorded.parent:
        return _moved_base(spec, recorded, observed, scene)
    return _as_recorded(spec, recorded, observed, scene)


def _unseen(spec: AdapterSpec, recorded: Resource | None, unknown: Failure) -> Action:
    if recorded is not None and recorded.operation.serves and not _differences(spec, recorded):
        return _keep(spec, recorded, None, f"as applied; not seen now ({unknown.cause})")
    what = "to be updated" if recorded is not None and recorded.operation.serves else "to be loaded"
    return replace(_blocked(spec, recorded, None, unknown, f"{what} when the target is seen again"), owed=True)


def _impossible(spec: AdapterSpec, scene: _Scene) -> Failure | None:
    """What no load can bring about."""
    seen = scene.sightings[spec.target]
    bases = {name: one.root for name, one in seen.served.items() if one.parent is None}
    if spec.lora_name in bases:
        return Failure(
            code=FailureCode.INVALID_REQUEST,
            message=f"{spec.lora_name} is the name of the base model that {spec.target} serves",
            hint="Give the adapter another lora_name.",
        )
    if seen.lora_routes is False and scene.observed(spec.target, spec.lora_name) is None:
        return _routes_off(spec.target)
    if spec.base_model_name is not None and spec.base_model_name not in bases:
        return Failure(
            code=FailureCode.INVALID_REQUEST,
            message=f"declared for the base model {spec.base_model_name}; {spec.target} serves {', '.join(bases)}",
            hint="vLLM would hang it on the base it serves. Correct base_model_name or the target.",
        )
    return None


def _missing(spec: AdapterSpec, recorded: Resource | None, scene: _Scene) -> Action:
    path, stage = scene.load_path(spec)
    changes = tuple(_differences(spec, recorded)) if recorded else ()
    if recorded is None:
        reason = "not there"
    elif recorded.operation.serves:
        reason = "somebody unloaded it, or the server was restarted"
    else:
        reason = f"gone from the target since {recorded.at:%Y-%m-%d %H:%M:%S} UTC"
    return Action(
        kind=ActionKind.REPLACE if any(change.immutable for change in changes) else ActionKind.CREATE,
        target=spec.target,
        name=spec.lora_name,
        label=spec.label,
        reason=reason,
        way=Way.LOAD,
        way_reason=_way_reason(stage),
        stage=stage,
        load_path=path,
        changes=changes,
        desired=spec,
        recorded=recorded,
        owed=_is_owed(recorded, changes),
        drift=recorded is not None and not _is_owed(recorded, changes),
    )


def _is_owed(recorded: Resource | None, changes: Sequence[Change]) -> bool:
    """Declared and never applied as it is declared now, or cut short by a kill: nobody else undid it."""
    return recorded is None or bool(changes) or recorded.cause == INTERRUPTED


def _others(spec: AdapterSpec, recorded: Resource | None, observed: Served, scene: _Scene) -> Action:
    """There, and not by us: never recorded, or proved gone and then loaded by somebody."""
    path, _stage = scene.load_path(spec)
    if observed.root in (path, spec.lora_path):
        return _adopt(spec, recorded, observed, "already served as declared", drift=recorded is not None)
    if scene.options.adopt or (recorded is not None and scene.options.force):
        return _swap(spec, recorded, observed, scene, "taken over from somebody who loaded another path")
    failure = Failure(
        code=FailureCode.ALREADY_EXISTS,
        message=f"{spec.lora_name} on {spec.target} was loaded by somebody else, from {observed.root}",
        hint="Take it over with --adopt, declare the path that is there, or give this one another lora_name.",
    )
    return _blocked(spec, recorded, observed, failure, "loaded by somebody else", conflict=True)


def _overwritten(spec: AdapterSpec, recorded: Resource, observed: Served, scene: _Scene) -> Action:
    path, _stage = scene.load_path(spec)
    if observed.root in (path, spec.lora_path):
        return _adopt(spec, recorded, observed, "somebody already made it what is declared", drift=True)
    if scene.options.force or scene.options.adopt:
        action = _swap(spec, recorded, observed, scene, "somebody loaded another path under this name")
        return replace(action, drift=True)
    failure = Failure(
        code=FailureCode.RESOURCE_CONFLICT,
        message=f"{spec.lora_name} on {spec.target} was applied from {recorded.served_path} "
        f"and is now served from {observed.root}",
        hint=_THREE_WAYS,
    )
    action = _blocked(spec, recorded, observed, failure, "changed by somebody since it was applied", conflict=True)
    return replace(action, drift=True, changes=(Change("lora_path", recorded.served_path, observed.root),))


def _moved_base(spec: AdapterSpec, recorded: Resource, observed: Served, scene: _Scene) -> Action:
    change = Change("base_model_name", recorded.parent, observed.parent, immutable=True)
    if spec.base_model_name == observed.parent or scene.options.force:
        if observed.root in (scene.load_path(spec)[0], spec.lora_path):
            action = _adopt(spec, recorded, observed, "already served as declared, on another base", drift=True)
            return replace(action, changes=(change,))
        action = _swap(spec, recorded, observed, scene, "create-only field changed", kind=ActionKind.REPLACE)
        others = tuple(one for one in action.changes if one.field != "base_model_name")
        return replace(action, changes=(change, *others), drift=True)
    failure = Failure(
        code=FailureCode.RESOURCE_CONFLICT,
        message=f"{spec.lora_name} on {spec.target} was applied on the base {recorded.parent} "
        f"and now hangs on {observed.parent}",
        hint=_THREE_WAYS,
    )
    action = _blocked(spec, recorded, observed, failure, "the target changed its base model", conflict=True)
    return replace(action, drift=True, changes=(change,))


def _as_recorded(spec: AdapterSpec, recorded: Resource, observed: Served, scene: _Scene) -> Action:
    differences = _differences(spec, recorded)
    if not differences:
        return _keep(spec, recorded, observed, "as declared")
    if any(change.field == "is_3d_lora_weight" for change in differences):
        return _swap(spec, recorded, observed, scene, "create-only field changed", kind=ActionKind.REPLACE)
    path, _stage = scene.load_path(spec)
    same_content = spec.digest is not None and spec.digest == recorded.spec.get("digest")
    touches_weights = any(change.field in ("lora_path", "content") for change in differences)
    if not touches_weights or same_content or (path == recorded.served_path and spec.digest is None):
        return _adopt(spec, recorded, observed, "the same weights, declared in other words")
    return _swap(spec, recorded, observed, scene, _update_reason(differences))


def _swap(
    spec: AdapterSpec,
    recorded: Resource | None,
    observed: Served,
    scene: _Scene,
    reason: str,
    *,
    kind: ActionKind = ActionKind.UPDATE,
) -> Action:
    """Unload, and load again from a path that the server has not cached under this name."""
    path, stage = scene.load_path(spec)
    changes = tuple(_differences(spec, recorded)) if recorded else ()
    if not changes:
        changes = (Change("lora_path", observed.root, path),)
    way_reason = _way_reason(stage)
    if path == observed.root:
        if failure := _stale(spec, scene):
            blocked = _blocked(spec, recorded, observed, failure, "new content at an unchanged path")
            return replace(blocked, changes=changes)
        way_reason = "the path is unchanged, and old prefix blocks do no harm here"
    return Action(
        kind=kind,
        target=spec.target,
        name=spec.lora_name,
        label=spec.label,
        reason=reason,
        way=Way.SWAP,
        way_reason=way_reason,
        stage=stage,
        load_path=path,
        changes=changes,
        desired=spec,
        recorded=recorded,
        observed=observed,
        replaced=recorded if kind is ActionKind.REPLACE else None,
    )


def _routes_off(target: str) -> Failure:
    return Failure(
        code=FailureCode.INVALID_REQUEST,
        message=f"{target} has no routes to load or unload adapters",
        hint="Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment.",
        cause=Cause.NO_LORA_ROUTES,
    )


def _stale(spec: AdapterSpec, scene: _Scene) -> Failure | None:
    """vLLM answers prompts it has cached from the old weights' blocks when new ones come from the same path."""
    if scene.prefix_caching.get(spec.target) is False or scene.options.accept_stale_cache:
        return None
    return Failure(
        code=FailureCode.NOT_UPDATABLE,
        message=f"the content at {spec.lora_path} changed, and {spec.target} would answer prompts it has cached "
        "from the old weights' blocks",
        hint="Put the new weights at another path; or give the target an adapter_store that both sides see; or, "
        "knowing that, --accept-stale-cache.",
    )


def _replaced_name(spec: AdapterSpec, old: Resource, scene: _Scene) -> Action:
    path, stage = scene.load_path(spec)
    renamed = Change("lora_name", old.key.name, spec.lora_name, immutable=True)
    return Action(
        kind=ActionKind.REPLACE,
        target=spec.target,
        name=spec.lora_name,
        label=spec.label,
        reason="create-only field changed",
        way=Way.LOAD_THEN_UNLOAD,
        way_reason="the names differ: the new one answers before the old one goes",
        stage=stage,
        load_path=path,
        changes=(renamed, *_differences(spec, old)),
        desired=spec,
        observed=scene.observed(spec.target, old.key.name),
        replaced=old,
    )


# --- not declared


def _undeclared(recorded: Resource, scene: _Scene) -> Action:
    target, name = recorded.key.target, recorded.key.name
    base = Action(kind=ActionKind.KEEP, target=target, name=name, label=recorded.label, reason="", recorded=recorded)
    if scene.mode == "patch":
        return replace(base, reason="not in this manifest; patch leaves it")
    if unknown := scene.unknown(target):
        reason = "to be unloaded when the target is seen again"
        return replace(base, kind=ActionKind.BLOCKED, reason=reason, failure=unknown, owed=True)
    observed = scene.observed(target, name)
    if observed is None:
        return replace(base, kind=ActionKind.RELEASE, way=Way.RECORD, reason="no longer declared, and already gone")
    if observed.root != recorded.served_path or not recorded.operation.serves:
        reason = f"no longer declared; somebody loaded it from {observed.root}, which is left alone"
        return replace(base, kind=ActionKind.RELEASE, way=Way.RECORD, reason=reason, observed=observed)
    if scene.sightings[target].lora_routes is False:
        return replace(base, kind=ActionKind.BLOCKED, reason="no longer declared", failure=_routes_off(target))
    reason = "the stack is destroyed" if scene.mode == "destroy" else "no longer declared"
    return replace(base, kind=ActionKind.DELETE, way=Way.UNLOAD, reason=reason, observed=observed)


# --- small parts


def _differences(spec: AdapterSpec, recorded: Resource) -> list[Change]:
    """Declared against last applied. What is left out, or cannot be read here, causes no difference."""
    before: Mapping[str, Any] = recorded.spec
    found: list[Change] = []
    if recorded.key.name == spec.lora_name and before.get("is_3d_lora_weight", False) != spec.is_3d_lora_weight:
        was, now = str(before.get("is_3d_lora_weight", False)).lower(), str(spec.is_3d_lora_weight).lower()
        found.append(Change("is_3d_lora_weight", was, now, immutable=True))
    was_base, base = before.get("base_model_name"), spec.base_model_name
    if was_base and base and was_base != base:
        found.append(Change("base_model_name", was_base, base, immutable=True))
    if before.get("lora_path") != spec.lora_path:
        found.append(Change("lora_path", before.get("lora_path"), spec.lora_path))
    old, new = before.get("digest"), spec.digest
    if old and new and old != new:
        found.append(Change("content", _short(old), _short(new)))
    if recorded.label != spec.label:
        found.append(Change("label", recorded.label, spec.label))
    return found


def _update_reason(changes: Sequence[Change]) -> str:
    names = {change.field for change in changes}
    if {"lora_path", "content"} <= names:
        return "another path with other content"
    return "another path" if "lora_path" in names else "new content at the same path"


def _way_reason(stage: bool) -> str:
    if stage:
        return "from the adapter store, at a path that carries the content's digest"
    return "from the declared path: the files cannot be read here, or the target has no adapter store"


def _short(digest: str) -> str:
    return f"sha256:{digest[:12]}"


def _keep(spec: AdapterSpec, recorded: Resource | None, observed: Served | None, reason: str) -> Action:
    return Action(
        kind=ActionKind.KEEP,
        target=spec.target,
        name=spec.lora_name,
        label=spec.label,
        reason=reason,
        desired=spec,
        recorded=recorded,
        observed=observed,
    )


def _adopt(
    spec: AdapterSpec, recorded: Resource | None, observed: Served, reason: str, *, drift: bool = False
) -> Action:
    action = _keep(spec, recorded, observed, reason)
    return replace(action, kind=ActionKind.ADOPT, way=Way.RECORD, load_path=observed.root, drift=drift)


def _blocked(
    spec: AdapterSpec,
    recorded: Resource | None,
    observed: Served | None,
    failure: Failure,
    reason: str,
    *,
    conflict: bool = False,
) -> Action:
    action = _keep(spec, recorded, observed, reason)
    return replace(action, kind=ActionKind.BLOCKED, failure=failure, conflict=conflict)


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
    return None if value is None else str(value)
