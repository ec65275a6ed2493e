"""Decides what happens to one declared adapter; see the table in `plan`. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from garrison.fleet.artifacts.protocol import EntryFault
from garrison.fleet.observe.entry_faults import words
from garrison.fleet.plan.context import Scene, routes_off
from garrison.fleet.plan.differences import differences
from garrison.fleet.values.causes import MOVED, OWED, RESTARTED, UNLOADED
from garrison.fleet.values.cures import when_due
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Served
from garrison.fleet.values.plan import Action, ActionKind, Change, Way
from garrison.fleet.values.versions import public_name
from garrison.store.records import Resource

__all__ = ["declared", "impossible", "renamed"]

_THREE_WAYS = (
    "To keep the served adapter, run `garrison extract` and add the result to the manifest. To overwrite it, use "
    "--force. Or leave it as it is."
)


_ON_DEMAND = "on demand: loaded when a request asks for it"


def declared(spec: AdapterDeclaration, recorded: Resource | None, scene: Scene) -> Action:
    """Return the action for a declared adapter, of which `recorded` is the last applied version."""
    if recorded is not None and recorded.stack != scene.stack:
        failure = Failure(
            code=FailureCode.RESOURCE_CONFLICT,
            message=f"{spec.lora_name} on {spec.target} belongs to stack {recorded.stack}",
            hint=f"Remove it from the manifest of {recorded.stack} first, or give this adapter another lora_name.",
        )
        return _blocked(spec, recorded, None, failure, "owned by another stack", conflict=True)
    # The order matters: everything below relies on a believed list, and unknown must never pass for absent.
    if unknown := scene.unknown(spec.target):
        return _unseen(spec, recorded, unknown)
    observed = scene.observed(spec.target, spec.served_name)
    if hopeless := impossible(spec, scene):
        return _blocked(spec, recorded, observed, hopeless, "cannot be served by this target")
    if spec.on_demand and (at_rest := _at_rest(spec, recorded, observed, scene)) is not None:
        return at_rest
    if observed is None:
        return _missing(spec, recorded, scene)
    if recorded is None or not recorded.operation.serves:
        return _others(spec, recorded, observed, scene)
    if observed.root != recorded.served_path:
        return _overwritten(spec, recorded, observed, scene)
    if recorded.parent is not None and observed.parent != recorded.parent:
        return _moved_base(spec, recorded, observed, scene)
    return _as_recorded(spec, recorded, observed, scene)


def _unseen(spec: AdapterDeclaration, recorded: Resource | None, unknown: Failure) -> Action:
    if recorded is not None and recorded.operation.serves and not differences(spec, recorded):
        return _keep(spec, recorded, None, f"as applied; not observed now ({unknown.cause})")
    if spec.on_demand and (recorded is None or not recorded.operation.serves):
        return _keep(spec, recorded, None, _ON_DEMAND)
    what = "updated" if recorded is not None and recorded.operation.serves else "loaded"
    reason = f"will be {what} {when_due(unknown.cause)}"
    return replace(_blocked(spec, recorded, None, unknown, reason), owed=True)


def _at_rest(
    spec: AdapterDeclaration, recorded: Resource | None, observed: Served | None, scene: Scene
) -> Action | None:
    """Return what happens to an adapter on demand that no request waits for; None if it is treated like any other."""
    place = (spec.target, spec.lora_name)
    if observed is None:
        if place in scene.demand.wanted:
            return None
        if recorded is None:
            return _keep(spec, None, None, _ON_DEMAND)
        return replace(_keep(spec, recorded, None, _ON_DEMAND), kind=ActionKind.RELEASE, way=Way.RECORD, desired=None)
    ours = recorded is not None and recorded.operation.serves and recorded.served_path == observed.root
    if not ours or place not in scene.demand.unwanted:
        return None
    leaves = replace(_keep(spec, recorded, observed, "makes room for another adapter"), desired=None, gently=True)
    if scene.demand.uses((spec.target, spec.served_name)):
        return replace(leaves, reason="is to make room, and its last request has not ended")
    return replace(leaves, kind=ActionKind.DELETE, way=Way.UNLOAD)


def impossible(spec: AdapterDeclaration, scene: Scene) -> Failure | None:
    """Return why the target cannot serve `spec` at all, whatever is loaded; None if it can."""
    served = scene.sightings[spec.target].served
    if _is_base(served, spec.lora_name):
        return Failure(
            code=FailureCode.INVALID_REQUEST,
            message=f"{spec.lora_name} is the name of the base model on {spec.target}",
            hint="Give the adapter another lora_name.",
        )
    if scene.sightings[spec.target].lora_routes is False and scene.observed(spec.target, spec.served_name) is None:
        return routes_off(spec.target)
    if spec.base_model_name is not None and not _is_base(served, spec.base_model_name):
        bases = ", ".join(name for name, one in served.items() if one.parent is None)
        return Failure(
            code=FailureCode.INVALID_REQUEST,
            message=f"declared for base model {spec.base_model_name}, but {spec.target} serves {bases}",
            hint="vLLM would attach it to the base model it serves. Correct base_model_name or the target.",
        )
    return None


def _is_base(served: Mapping[str, Served], name: str) -> bool:
    found = served.get(name)
    return found is not None and found.parent is None


def _missing(spec: AdapterDeclaration, recorded: Resource | None, scene: Scene) -> Action:
    path, stage = scene.load_path(spec)
    changes = tuple(differences(spec, recorded)) if recorded else ()
    if recorded is None:
        reason = "not served yet"
    elif recorded.operation.serves:
        reason = "unloaded from outside, or the server was restarted"
    else:
        moved, since = recorded.cause == MOVED, f"{recorded.at:%Y-%m-%d %H:%M:%S} UTC"
        reason = "the target has moved to another address" if moved else f"gone from the target since {since}"
    if _cached(recorded, path, changes) and (failure := _stale(spec, scene)):
        blocked = _blocked(spec, recorded, None, failure, "new content at an unchanged path")
        return replace(blocked, changes=changes)
    owed = spec.on_demand or _is_owed(recorded, changes) or _started_anew(recorded, scene)
    return Action(
        kind=ActionKind.REPLACE if any(change.immutable for change in changes) else ActionKind.CREATE,
        target=spec.target,
        name=spec.served_name,
        label=spec.label,
        reason=reason,
        way=Way.LOAD,
        way_reason=_way_reason(spec, stage),
        stage=stage,
        load_path=path,
        changes=changes,
        desired=spec,
        recorded=recorded,
        owed=owed,
        drift=not owed,
    )


def _cached(recorded: Resource | None, path: str, changes: Sequence[Change]) -> bool:
    """Return whether the server may cache blocks of other weights from `path`; they survive an unload."""
    if recorded is None or recorded.served_path != path or recorded.cause != UNLOADED:
        return False
    return any(change.field == "content" for change in changes)


def _started_anew(recorded: Resource | None, scene: Scene) -> bool:
    """Return whether it was lost when the engine of an instance was started anew, which is nobody's drift."""
    return recorded is not None and recorded.key.target in scene.instances and recorded.cause == RESTARTED


def _is_owed(recorded: Resource | None, changes: Sequence[Change]) -> bool:
    """Return whether the load is owed: never applied as declared now, interrupted, or applied again after a loss."""
    return recorded is None or bool(changes) or recorded.cause in OWED


def _others(spec: AdapterDeclaration, recorded: Resource | None, observed: Served, scene: Scene) -> Action:
    """Decide on an adapter that another party loaded: never recorded, or proved gone and then loaded from outside."""
    path, _stage = scene.load_path(spec)
    if observed.root in (path, spec.lora_path):
        return _adopt(spec, recorded, observed, "already served as declared", drift=not _is_owed(recorded, ()))
    if scene.options.adopt or (recorded is not None and scene.options.force):
        return _swap(spec, recorded, observed, scene, "taken over; it was loaded from another path")
    failure = Failure(
        code=FailureCode.ALREADY_EXISTS,
        message=f"{spec.lora_name} on {spec.target} was loaded by another party, from {observed.root}",
        hint="Take it over with --adopt, declare the served path, or give this adapter another lora_name.",
    )
    return _blocked(spec, recorded, observed, failure, "loaded by another party", conflict=True)


def _overwritten(spec: AdapterDeclaration, recorded: Resource, observed: Served, scene: Scene) -> Action:
    path, _stage = scene.load_path(spec)
    if observed.root in (path, spec.lora_path):
        return _adopt(spec, recorded, observed, "changed from outside to what is declared", drift=True)
    if scene.options.force or scene.options.adopt:
        action = _swap(spec, recorded, observed, scene, "another path was loaded from outside under this name")
        return replace(action, drift=True)
    failure = Failure(
        code=FailureCode.RESOURCE_CONFLICT,
        message=f"{spec.lora_name} on {spec.target} was applied from {recorded.served_path} "
        f"and is now served from {observed.root}",
        hint=_THREE_WAYS,
    )
    action = _blocked(spec, recorded, observed, failure, "changed from outside since the last apply", conflict=True)
    return replace(action, drift=True, changes=(Change("lora_path", recorded.served_path, observed.root),))


def _moved_base(spec: AdapterDeclaration, recorded: Resource, observed: Served, scene: Scene) -> Action:
    change = Change("base_model_name", recorded.parent, observed.parent, immutable=True)
    if spec.base_model_name == observed.parent or scene.options.force:
        if observed.root in (scene.load_path(spec)[0], spec.lora_path):
            action = _adopt(spec, recorded, observed, "already served as declared, on another base model", drift=True)
            return replace(action, changes=(change,))
        action = _swap(spec, recorded, observed, scene, "create-only field changed", kind=ActionKind.REPLACE)
        others = tuple(one for one in action.changes if one.field != "base_model_name")
        return replace(action, changes=(change, *others), drift=True)
    failure = Failure(
        code=FailureCode.RESOURCE_CONFLICT,
        message=f"{spec.lora_name} on {spec.target} was applied on base model {recorded.parent} "
        f"and is now attached to {observed.parent}",
        hint=_THREE_WAYS,
    )
    action = _blocked(spec, recorded, observed, failure, "the target changed its base model", conflict=True)
    return replace(action, drift=True, changes=(change,))


def _as_recorded(spec: AdapterDeclaration, recorded: Resource, observed: Served, scene: Scene) -> Action:
    changes = differences(spec, recorded)
    fault = scene.faults.get(recorded.served_path)
    if fault is not None and not any(change.field in ("content", "is_3d_lora_weight") for change in changes):
        return _anew(spec, recorded, observed, scene, fault)
    if not changes:
        if spec.digest and not recorded.spec.get("digest"):
            return _adopt(spec, recorded, observed, "its content is readable now; the digest is recorded")
        return _keep(spec, recorded, observed, "as declared")
    if any(change.field == "is_3d_lora_weight" for change in changes):
        return _swap(spec, recorded, observed, scene, "create-only field changed", kind=ActionKind.REPLACE)
    path, _stage = scene.load_path(spec)
    same_content = spec.digest is not None and spec.digest == recorded.spec.get("digest")
    touches_weights = any(change.field in ("lora_path", "content") for change in changes)
    # The served weights are the declared ones, so only the record changes. A swap would interrupt requests for nothing.
    if not touches_weights or same_content or (path == recorded.served_path and spec.digest is None):
        return _adopt(spec, recorded, observed, "same weights, declared differently")
    return _swap(spec, recorded, observed, scene, _update_reason(changes))


def _anew(spec: AdapterDeclaration, recorded: Resource, observed: Served, scene: Scene, fault: EntryFault) -> Action:
    """Load the same content from a new entry, because the one it is served from must not be loaded from again.

    This is maintenance of Garrison's own store, so it does not depend on the policy for drift.
    """
    what = words(recorded.served_path, fault)
    if scene.load_path(spec)[1]:
        return _swap(spec, recorded, observed, scene, f"{what}: the same content from a new entry")
    failure = Failure(
        code=FailureCode.NOT_UPDATABLE,
        message=f"{what}, and the content is no longer readable at {spec.lora_path}",
        hint="Put the adapter's files back there, or declare another lora_path, and apply again.",
    )
    return _blocked(spec, recorded, observed, failure, "the files it is served from cannot be replaced")


def _swap(
    spec: AdapterDeclaration,
    recorded: Resource | None,
    observed: Served,
    scene: Scene,
    reason: str,
    *,
    kind: ActionKind = ActionKind.UPDATE,
) -> Action:
    """Unload and load again, from a path for which the server has no cached blocks under this name."""
    path, stage = scene.load_path(spec)
    changes = tuple(differences(spec, recorded)) if recorded else ()
    if not changes:
        changes = (Change("lora_path", observed.root, path),)
    way_reason = _way_reason(spec, stage)
    if path == observed.root:
        if failure := _stale(spec, scene):
            blocked = _blocked(spec, recorded, observed, failure, "other weights at an unchanged path")
            return replace(blocked, changes=changes)
        cached = scene.prefix_caching.get(spec.target) is not False
        way_reason = (
            "from the same path, as accepted: cached prompts may be answered from the blocks of the old weights"
            if cached
            else "from the same path: the server does not cache prefixes"
        )
    return Action(
        kind=kind,
        target=spec.target,
        name=spec.served_name,
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


def _stale(spec: AdapterDeclaration, scene: Scene) -> Failure | None:
    """Return the failure for new weights from an unchanged path; None if that is safe or accepted.

    vLLM keys its prefix cache by name and path, so it would answer cached prompts from the blocks of the old weights.
    """
    if scene.prefix_caching.get(spec.target) is False or scene.options.accept_stale_cache:
        return None
    return Failure(
        code=FailureCode.NOT_UPDATABLE,
        message=f"{spec.lora_name} would be loaded again from the same path, and {spec.target} would answer cached "
        "prompts from the blocks of the old weights",
        hint="Put the weights at another path. If only the content changed, give the target an adapter_store that both "
        "sides see. Or accept the stale cache with --accept-stale-cache.",
    )


def renamed(spec: AdapterDeclaration, old: Resource, scene: Scene) -> Action:
    """Return the action that replaces `old` by the same label under another name."""
    path, stage = scene.load_path(spec)
    renamed = Change("lora_name", public_name(old), spec.lora_name, immutable=True)
    return Action(
        kind=ActionKind.REPLACE,
        target=spec.target,
        name=spec.served_name,
        label=spec.label,
        reason="create-only field changed",
        way=Way.LOAD_THEN_UNLOAD,
        way_reason="the names differ: load the new one, then unload the old one",
        stage=stage,
        load_path=path,
        changes=(renamed, *differences(spec, old)),
        desired=spec,
        observed=scene.observed(spec.target, old.key.name),
        replaced=old,
    )


def _update_reason(changes: Sequence[Change]) -> str:
    names = {change.field for change in changes}
    if {"lora_path", "content"} <= names:
        return "another path with new content"
    return "another path" if "lora_path" in names else "new content at the same path"


def _way_reason(spec: AdapterDeclaration, stage: bool) -> str:
    if stage:
        return "from a copy in the adapter store, named after its digest"
    if spec.digest is None:
        return "from the declared path: this machine cannot read an adapter there"
    return "from the declared path: the target has no adapter store"


def _keep(spec: AdapterDeclaration, recorded: Resource | None, observed: Served | None, reason: str) -> Action:
    return Action(
        kind=ActionKind.KEEP,
        target=spec.target,
        name=spec.served_name,
        label=spec.label,
        reason=reason,
        desired=spec,
        recorded=recorded,
        observed=observed,
    )


def _adopt(
    spec: AdapterDeclaration, recorded: Resource | None, observed: Served, reason: str, *, drift: bool = False
) -> Action:
    action = _keep(spec, recorded, observed, reason)
    return replace(action, kind=ActionKind.ADOPT, way=Way.RECORD, load_path=observed.root, drift=drift)


def _blocked(
    spec: AdapterDeclaration,
    recorded: Resource | None,
    observed: Served | None,
    failure: Failure,
    reason: str,
    *,
    conflict: bool = False,
) -> Action:
    action = _keep(spec, recorded, observed, reason)
    return replace(action, kind=ActionKind.BLOCKED, failure=failure, conflict=conflict)
