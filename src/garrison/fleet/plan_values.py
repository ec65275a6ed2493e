"""A plan: what would make targets serve what was declared, and why. Values only; `plan` makes them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from garrison.fleet.declaration import ADAPTER_TYPE, AdapterSpec
from garrison.fleet.failure import Failure
from garrison.fleet.observation import Served
from garrison.store.records import Key, Resource

__all__ = ["Action", "ActionKind", "Change", "Plan", "TargetChange", "Way"]


class ActionKind(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"
    ADOPT = "adopt"
    """Already served as declared: only our record changes."""
    RELEASE = "release"
    """No longer declared and no longer ours on the target: only our record changes."""
    KEEP = "keep"
    BLOCKED = "blocked"


class Way(StrEnum):
    """How an action is done."""

    LOAD = "load"
    UNLOAD = "unload"
    SWAP = "swap"
    """Unload the old, load the new from another path, back to back."""
    LOAD_THEN_UNLOAD = "load-then-unload"
    """The new name first, then the old one."""
    RECORD = "record"
    """Nothing is sent to the target."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field. `immutable`: it cannot change in place."""

    field: str
    before: str | None
    after: str | None
    immutable: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"field": self.field, "before": self.before, "after": self.after, "immutable": self.immutable}


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step of a plan, on one resource of one target.

    Attributes:
        name: the adapter's name afterwards; of the one that goes, for a delete.
        reason: why, in words.
        way: how; None where nothing is done.
        way_reason: why that way.
        stage: whether the files are put into the target's adapter store first.
        load_path: what the target is asked to load; where files are staged it is set by the adapter store's rule.
        desired, recorded, observed: what it was decided from.
        replaced: the record that goes, for a replace.
        failure: why it is blocked or in conflict.
        conflict: applying would overwrite what somebody else did.
        owed: it was decided earlier, and its target was out of reach or its command was killed.
        drift: it mends what somebody changed since it was applied.
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
    desired: AdapterSpec | None = None
    recorded: Resource | None = None
    observed: Served | None = None
    replaced: Resource | None = None
    failure: Failure | None = None
    conflict: bool = False
    owed: bool = False
    drift: bool = False

    @property
    def key(self) -> Key:
        return Key(self.target, ADAPTER_TYPE, self.name)

    @property
    def acts(self) -> bool:
        """Whether anything is sent to the target."""
        return self.kind in (ActionKind.CREATE, ActionKind.UPDATE, ActionKind.REPLACE, ActionKind.DELETE)

    @property
    def records(self) -> bool:
        """Whether our record changes without anything being sent."""
        return self.kind in (ActionKind.ADOPT, ActionKind.RELEASE)

    def to_json(self) -> dict[str, Any]:
        """The pinned shape of `--json`."""
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
        }
        if self.failure:
            body["failure"] = self.failure.to_json()
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetChange:
    """A target that is new, declared in another way, or no longer declared. `kind`: create, update, delete, keep."""

    kind: str
    name: str
    changes: tuple[Change, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "changes": [change.to_json() for change in self.changes]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered by target, and within one target in the order of execution.

    Attributes:
        mode: `reconcile`, `patch` or `destroy`.
        unknown: targets that could not be observed, with the reason in words.
        warnings: what is odd and stops nothing.
    """

    stack: str
    mode: str
    actions: tuple[Action, ...] = ()
    targets: tuple[TargetChange, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def conflicts(self) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.conflict)

    @property
    def blocked(self) -> tuple[Action, ...]:
        return tuple(action for action in self.actions if action.kind is ActionKind.BLOCKED)

    @property
    def changes_required(self) -> bool:
        """Whether a target would be sent anything, now or when it is back."""
        return any(action.acts or action.kind is ActionKind.BLOCKED for action in self.actions)

    @property
    def empty(self) -> bool:
        """Neither a target nor our record would change."""
        return not any(action.kind is not ActionKind.KEEP for action in self.actions) and all(
            target.kind == "keep" for target in self.targets
        )

    def counts(self) -> dict[str, int]:
        """How many actions of each kind, in the order of `ActionKind`; kinds that do not occur are left out."""
        counted = Counter(action.kind for action in self.actions)
        return {str(kind): counted[kind] for kind in ActionKind if counted[kind]}

    def to_json(self) -> dict[str, Any]:
        """The pinned shape of `--json`."""
        return {
            "stack": self.stack,
            "mode": self.mode,
            "changes_required": self.changes_required,
            "counts": self.counts(),
            "targets": [target.to_json() for target in self.targets],
            "actions": [action.to_json() for action in self.actions],
            "unknown": dict(self.unknown),
            "warnings": list(self.warnings),
        }
