"""Values of a plan: actions that make targets serve what was declared, each with its reason. `plan` computes them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration
from garrison.fleet.values.failure import Failure
from garrison.fleet.values.instance_change import Change, InstanceChange, InstanceKind
from garrison.fleet.values.observation import Served
from garrison.store.records import Key, Resource

__all__ = ["Action", "ActionKind", "Change", "Plan", "TargetChange", "Way", "still_served"]


OWED, CONFLICT = "owed", "conflict"
"""How `Plan.counts` calls actions that are blocked until a target answers, and those that would overwrite a change."""


class ActionKind(StrEnum):
    """What an action does with an adapter."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    ADOPT = "adopt"
    """Already served as declared: only the record changes."""
    RELEASE = "release"
    """No longer declared, and gone or changed from outside on the target: only the record changes."""
    KEEP = "keep"
    BLOCKED = "blocked"


class Way(StrEnum):
    """How an action is carried out."""

    LOAD = "load"
    UNLOAD = "unload"
    SWAP = "swap"
    """Unload the old adapter and load the new one under the same name, back to back."""
    LOAD_THEN_UNLOAD = "load-then-unload"
    """Load the new name, then unload the old one."""
    RECORD = "record"
    """Nothing is sent to the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step of a plan, on one resource of one target.

    Attributes:
        name: the adapter's name after the action; for a delete, the name that is unloaded.
        reason: why the action is needed, for display.
        way: how it is carried out; None if nothing is done.
        way_reason: why in that way, for display.
        stage: whether the files are copied into the target's adapter store first.
        load_path: the path that the target is asked to load; for staged files, the path in the adapter store.
        desired, recorded, observed: the values that the decision is based on.
        replaced: for a rename, a replace, or an update under another name, the resource that is replaced.
        gently: what it unloads stays as long as a request of the gateway uses it.
        failure: why the action is blocked or in conflict.
        conflict: applying would overwrite an outside change.
        owed: it was requested earlier, but its target was unreachable or its command was killed.
        drift: it repairs a change made from outside since the last apply.
        on_record: there is a version of the resource on record; follows from `recorded`, where that is known.
    """

    kind: ActionKind
    target: str
    name: str
    label: str
    reason: str
    way: Way | None = None
    way_reason: str = ""
    stage: bool = False
    load_path: str | None = None
    changes: tuple[Change, ...] = ()
    desired: AdapterDeclaration | None = None
    recorded: Resource | None = None
    observed: Served | None = None
    replaced: Resource | None = None
    gently: bool = False
    failure: Failure | None = None
    conflict: bool = False
    owed: bool = False
    drift: bool = False
    on_record: bool = False

    def __post_init__(self) -> None:
        if self.recorded is not None:
            object.__setattr__(self, "on_record", True)

    @property
    def key(self) -> Key:
        return Key(self.target, ADAPTER_TYPE, self.name)

    @property
    def acts(self) -> bool:
        """Whether anything is sent to the target."""
        return self.kind in (ActionKind.CREATE, ActionKind.UPDATE, ActionKind.REPLACE, ActionKind.DELETE)

    @property
    def waits(self) -> bool:
        """Whether it is blocked only by a recoverable failure, and will be carried out once that clears."""
        blocked = self.kind is ActionKind.BLOCKED and not self.conflict
        return blocked and self.failure is not None and self.failure.recoverable

    @property
    def records(self) -> bool:
        """Whether the record changes without anything being sent to the target."""
        return self.kind in (ActionKind.ADOPT, ActionKind.RELEASE)

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`.

        `from_json` reads it back, without what only matters to whoever carries it out: `stage`, `load_path`, and the
        values that the decision is based on.
        """
        body: dict[str, Any] = {
            "kind": str(self.kind),
            "type": ADAPTER_TYPE,
            "target": self.target,
            "name": self.name,
            "label": self.label,
            "reason": self.reason,
            "way": str(self.way) if self.way else None,
            "way_reason": self.way_reason or None,
            "changes": [change.to_json() for change in self.changes],
            "conflict": self.conflict,
            "owed": self.owed,
            "drift": self.drift,
            "on_record": self.on_record,
        }
        if self.failure:
            body["failure"] = self.failure.to_json()
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Action":
        return cls(
            kind=ActionKind(body["kind"]),
            target=body["target"],
            name=body["name"],
            label=body["label"],
            reason=body["reason"],
            way=Way(body["way"]) if body["way"] else None,
            way_reason=body["way_reason"] or "",
            changes=tuple(map(Change.from_json, body["changes"])),
            failure=Failure.from_json(body["failure"]) if body.get("failure") else None,
            conflict=body["conflict"],
            owed=body["owed"],
            drift=body["drift"],
            on_record=body.get("on_record", False),
        )


def still_served(action: Action, failure: Failure) -> Failure:
    """Return `failure` with the fact that the version before is served on, if the action was to replace one.

    The caller knows that the failed action has changed nothing.
    """
    before = action.replaced or action.recorded
    served = action.observed
    if action.desired is None or before is None or served is None or not before.operation.serves or action.conflict:
        return failure
    if served.root != before.served_path:
        return failure
    return replace(failure, message=f"{failure.message}; the version before it is still served, from {served.root}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetChange:
    """A change to a target's declaration. `kind` is create, update, delete or keep."""

    kind: str
    name: str
    changes: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "changes": [change.to_json() for change in self.changes]}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TargetChange":
        return cls(kind=body["kind"], name=body["name"], changes=tuple(map(Change.from_json, body["changes"])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The plan for one stack, ordered by target, and within a target in the order of execution.

    Attributes:
        mode: `reconcile`, `patch` or `destroy`.
        instances: what happens to the stack's instances, before anything is done at targets.
        unknown: targets that could not be observed, with the reason for display.
        warnings: suspicious values that do not prevent an apply.
        fingerprint: confirms this plan to an apply; see `operations.fingerprint`.
    """

    stack: str
    mode: str
    actions: tuple[Action, ...] = ()
    targets: tuple[TargetChange, ...] = ()
    instances: tuple[InstanceChange, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    fingerprint: str = ""

    @property
    def conflicts(self) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.conflict)

    @property
    def instance_conflicts(self) -> tuple[InstanceChange, ...]:
        return tuple(one for one in self.instances if one.kind is InstanceKind.CONFLICT)

    @property
    def instance_work(self) -> tuple[InstanceChange, ...]:
        """The changes to carry out."""
        return tuple(one for one in self.instances if one.acts)

    @property
    def blocked(self) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.kind is ActionKind.BLOCKED)

    @property
    def changes_required(self) -> bool:
        """Whether an instance would change, or anything would be sent to a target, now or later."""
        return bool(self.instance_work) or any(
            action.acts or action.kind is ActionKind.BLOCKED for action in self.actions
        )

    @property
    def empty(self) -> bool:
        """Whether neither an instance, a target nor the record would change."""
        return (
            not any(one.kind is not InstanceKind.UNCHANGED for one in self.instances)
            and not any(action.kind is not ActionKind.KEEP for action in self.actions)
            and all(target.kind == "keep" for target in self.targets)
        )

    def counts(self) -> dict[str, int]:
        """Return the number of actions of each kind that occurs, in the order of `ActionKind`; then those of the kind
        `blocked` that are `owed`, and those in `conflict`, which are not counted as `blocked`."""
        counted = Counter(self._counted_as(action) for action in self.actions)
        return {kind: counted[kind] for kind in (*map(str, ActionKind), OWED, CONFLICT) if counted[kind]}

    def _counted_as(self, action: Action) -> str:
        if action.kind is not ActionKind.BLOCKED:
            return str(action.kind)
        if action.conflict:
            return CONFLICT
        return OWED if action.target in self.unknown or action.waits else str(action.kind)

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`.

        `from_json` reads back a plan that is shown, confirmed and counted alike. It cannot be carried out: see
        `Action.to_json`.
        """
        return {
            "stack": self.stack,
            "mode": self.mode,
            "fingerprint": self.fingerprint,
            "changes_required": self.changes_required,
            "counts": self.counts(),
            "instances": [one.to_json() for one in self.instances],
            "targets": [target.to_json() for target in self.targets],
            "actions": [action.to_json() for action in self.actions],
            "unknown": dict(self.unknown),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Plan":
        return cls(
            stack=body["stack"],
            mode=body["mode"],
            actions=tuple(map(Action.from_json, body["actions"])),
            targets=tuple(map(TargetChange.from_json, body["targets"])),
            instances=tuple(map(InstanceChange.from_json, body["instances"])),
            unknown=dict(body["unknown"]),
            warnings=tuple(body["warnings"]),
            fingerprint=body["fingerprint"],
        )
