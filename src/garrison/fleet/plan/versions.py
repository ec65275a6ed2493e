"""Decides about versions of an adapter that are served side by side. No I/O.

A versioned adapter is served under a name that carries its digest, so a new version is loaded beside the one that
answers. It takes over once it is on record, which is after its probe; then the earlier one is unloaded. Killed anywhere
in between, the next plan continues from what is on record and on the target:

    declared version              earlier version        action
    not recorded, or unproved     as recorded            update: load, probe, then unload the earlier one
    recorded, and served          as recorded            the earlier one is deleted, once nothing uses it
    cannot be loaded, or missing  as recorded            the earlier one is kept: it answers
    any                           gone, or another path  the earlier one is released
"""

from collections.abc import Mapping
from dataclasses import replace

from garrison.fleet.plan.context import Scene, routes_off
from garrison.fleet.plan.declared import impossible
from garrison.fleet.plan.differences import differences
from garrison.fleet.values.causes import OWED
from garrison.fleet.values.cures import when_due
from garrison.fleet.values.declaration import AdapterDeclaration
from garrison.fleet.values.demand import Place
from garrison.fleet.values.plan import Action, ActionKind, Change, Way
from garrison.fleet.values.versions import answering, is_probed, public_name
from garrison.store.records import Resource

__all__ = ["Versions"]


class Versions:
    """The earlier versions of declared adapters.

    Args:
        wanted: declared adapters by target and served name.
        owned: what is on record, of this stack and others, by the same.

    Attributes:
        going: places of earlier versions that an update unloads; filled by `updates`.
    """

    def __init__(
        self, wanted: Mapping[Place, AdapterDeclaration], owned: Mapping[Place, Resource], scene: Scene
    ) -> None:
        self._owned = owned
        self._scene = scene
        self._declared = {(spec.target, spec.lora_name): spec for spec in wanted.values()}
        self._earlier: dict[Place, list[Resource]] = {}
        self.going: set[Place] = set()
        for place, one in owned.items():
            public = (one.key.target, public_name(one))
            if one.stack == scene.stack and place not in wanted and public in self._declared:
                self._earlier.setdefault(public, []).append(one)

    def updates(self) -> dict[Place, Action]:
        """Return the updates by target and name of the version to load."""
        found: dict[Place, Action] = {}
        for public, earlier in self._earlier.items():
            spec = self._declared[public]
            old = answering((one for one in earlier if self._as_recorded(one)), None)
            if old is not None and public not in self._scene.demand.unwanted and self._is_due(spec):
                found[spec.target, spec.served_name] = self._update(spec, old)
                self.going.add((old.key.target, old.key.name))
        return found

    def replaced(self, one: Resource) -> Action | None:
        """Return what happens to an adapter that is not declared itself; None if it is no earlier version of one."""
        scene, target = self._scene, one.key.target
        public = (target, public_name(one))
        spec = self._declared.get(public)
        if spec is None or target in scene.ending:
            return None
        base = Action(
            kind=ActionKind.KEEP, target=target, name=one.key.name, label=one.label, reason="", recorded=one,
            gently=True,
        )  # fmt: skip
        if unknown := scene.unknown(target):
            reason = f"replaced; will be unloaded {when_due(unknown.cause)}"
            return replace(base, kind=ActionKind.BLOCKED, reason=reason, failure=unknown, owed=True)
        if not self._as_recorded(one):
            reason = "replaced, and no longer served as applied"
            return replace(base, kind=ActionKind.RELEASE, way=Way.RECORD, reason=reason)
        base = replace(base, observed=scene.observed(target, one.key.name))
        makes_room = public in scene.demand.unwanted
        if not makes_room and not self._answers(spec):
            return replace(base, reason=f"answers for {spec.lora_name} until {spec.served_name} does")
        if scene.demand.elsewhere:
            return replace(base, reason=f"replaced by {spec.served_name}; the server unloads it when nothing uses it")
        if scene.demand.uses((target, one.key.name)):
            return replace(base, reason=f"replaced by {spec.served_name}; its last request has not ended")
        if scene.sightings[target].lora_routes is False:
            return replace(base, kind=ActionKind.BLOCKED, reason="replaced", failure=routes_off(target))
        reason = "makes room for another adapter" if makes_room else f"replaced by {spec.served_name}"
        return replace(base, kind=ActionKind.DELETE, way=Way.UNLOAD, reason=reason)

    def _is_due(self, spec: AdapterDeclaration) -> bool:
        """Whether the declared version has to be loaded, or to be probed."""
        scene = self._scene
        if scene.unknown(spec.target) or impossible(spec, scene):
            return False
        recorded, observed = self._new(spec), scene.observed(spec.target, spec.served_name)
        if recorded is not None and recorded.stack != scene.stack:
            return False
        if observed is not None and observed.root not in (self._path(spec), recorded and recorded.served_path):
            return False  # loaded by another party
        if recorded is None:
            return True
        return not is_probed(recorded) if recorded.operation.serves else recorded.cause in OWED

    def _update(self, spec: AdapterDeclaration, old: Resource) -> Action:
        scene, recorded = self._scene, self._new(spec)
        path, stage = scene.load_path(spec)
        there = scene.observed(spec.target, spec.served_name)
        if there is not None and there.root:  # a killed command had loaded it
            path = there.root
        beside = there is not None or not scene.full(spec.target)
        changes = tuple(differences(spec, old)) or (Change("served as", old.key.name, spec.served_name),)
        return Action(
            kind=ActionKind.UPDATE,
            target=spec.target,
            name=spec.served_name,
            label=spec.label,
            reason=f"replaces {old.key.name}",
            way=Way.LOAD_THEN_UNLOAD if beside else Way.SWAP,
            way_reason="loaded beside it; requests change over when it answers"
            if beside
            else "unloaded first: the target has no room for one more adapter, so requests wait for a moment",
            stage=stage,
            load_path=path,
            changes=changes,
            desired=spec,
            recorded=recorded,
            observed=scene.observed(spec.target, old.key.name),
            replaced=old,
            gently=True,
        )

    def _answers(self, spec: AdapterDeclaration) -> bool:
        new = self._new(spec)
        return new is not None and new.stack == self._scene.stack and is_probed(new) and self._as_recorded(new)

    def _as_recorded(self, one: Resource) -> bool:
        observed = self._scene.observed(one.key.target, one.key.name)
        return one.operation.serves and observed is not None and observed.root == one.served_path

    def _new(self, spec: AdapterDeclaration) -> Resource | None:
        return self._owned.get((spec.target, spec.served_name))

    def _path(self, spec: AdapterDeclaration) -> str:
        return self._scene.load_path(spec)[0]
