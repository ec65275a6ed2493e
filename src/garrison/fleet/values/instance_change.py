"""Changes of a plan to instances, and what became of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from garrison.fleet.values.failure import Failure

__all__ = ["Change", "InstanceChange", "InstanceKind", "InstanceOutcome"]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one field. `immutable`: the field cannot change in place."""

    field: str
    before: str | None
    after: str | None
    immutable: bool = False

    def to_json(self) -> dict[str, Any]:
        return {"field": self.field, "before": self.before, "after": self.after, "immutable": self.immutable}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "Change":
        return cls(body["field"], body["before"], body["after"], body["immutable"])


class InstanceKind(StrEnum):
    """What happens to an instance."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"
    """An instance of that name belongs to another stack, or to none: nothing is applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceChange:
    """One instance in a plan.

    Attributes:
        node: the node that runs it; None for the one that applies the manifest.
        summary: engine and model, for display.
        changes: of a create, nothing; of an update, each field that differs.
        needs_restart: its engine is there and has to be restarted to be as declared.
        state: its state when the plan was made; None if there is no such instance.
        adopted: it belonged to no stack.
        spec: the instance after the change, as JSON; the rooms above know what it means. None for a delete.
        failure: why it is a conflict.
    """

    kind: InstanceKind
    name: str
    node: str | None = None
    summary: str = ""
    changes: tuple[Change, ...] = ()
    needs_restart: bool = False
    state: str | None = None
    adopted: bool = False
    spec: Mapping[str, Any] | None = None
    failure: Failure | None = None

    @property
    def acts(self) -> bool:
        """Whether anything is done to the instance."""
        return self.kind in (InstanceKind.CREATE, InstanceKind.UPDATE, InstanceKind.DELETE)

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`. `from_json` reads it back, without `spec`."""
        body: dict[str, Any] = {
            "kind": str(self.kind),
            "name": self.name,
            "node": self.node,
            "summary": self.summary,
            "changes": [change.to_json() for change in self.changes],
            "needs_restart": self.needs_restart,
            "state": self.state,
            "adopted": self.adopted,
        }
        if self.failure:
            body["failure"] = self.failure.to_json()
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "InstanceChange":
        return cls(
            kind=InstanceKind(body["kind"]),
            name=body["name"],
            node=body["node"],
            summary=body["summary"],
            changes=tuple(map(Change.from_json, body["changes"])),
            needs_restart=body["needs_restart"],
            state=body["state"],
            adopted=body["adopted"],
            failure=Failure.from_json(body["failure"]) if body.get("failure") else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceOutcome:
    """What became of a change. `error`: why it failed, for display; None if it was done."""

    change: InstanceChange
    error: str | None = None
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": str(self.change.kind),
            "name": self.change.name,
            "node": self.change.node,
            "ok": self.error is None,
            "error": self.error,
            "hint": self.hint,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any], changes: Iterable[InstanceChange]) -> "InstanceOutcome":
        """Read what `to_json` returned. `changes` are those of the plan, which has them in full."""
        place = (body["kind"], body["name"], body["node"])
        change = next((one for one in changes if (one.kind, one.name, one.node) == place), None)
        if change is None:
            change = InstanceChange(kind=InstanceKind(body["kind"]), name=body["name"], node=body["node"])
        return cls(change=change, error=body["error"], hint=body["hint"])
