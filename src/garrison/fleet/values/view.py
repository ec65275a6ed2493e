"""The observer interface of fleet operations: a terminal draws its calls."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from garrison.fleet.values.failure import Failure
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.store.records import ActionState, Key

__all__ = ["FleetView", "NoteLevel", "Outcome", "SilentView"]

NoteLevel = Literal["info", "warning", "error"]
"""`warning`: something did not work, and is tried again or left as it is. `error`: somebody has to look at it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an action ended.

    Attributes:
        gap_ms: for an update, the milliseconds during which the name was not served.
        notes: observations besides the result, such as the verdict of a probe.
    """

    action: Action
    state: ActionState
    failure: Failure | None = None
    seconds: float = 0.0
    gap_ms: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def unanswered(self) -> bool:
        """Whether nobody knows how it ended, although its target answers: a load took too long."""
        return self.state is ActionState.STARTED and self.failure is not None and self.failure.cause is None

    def to_json(self) -> dict[str, Any]:
        """Return the stable shape of `--json`."""
        return {
            "kind": str(self.action.kind),
            "type": self.action.key.type,
            "target": self.action.target,
            "name": self.action.name,
            "label": self.action.label,
            "state": str(self.state),
            "seconds": round(self.seconds, 3),
            "gap_ms": None if self.gap_ms is None else round(self.gap_ms, 1),
            "notes": list(self.notes),
            "failure": self.failure.to_json() if self.failure else None,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any], actions: Mapping[Key, Action]) -> "Outcome":
        """Read what `to_json` returned; durations are rounded there. `actions` are those of the plan, by key."""
        action = actions.get(Key(body["target"], body["type"], body["name"]))
        if action is None or action.kind != body["kind"]:
            action = Action(
                kind=ActionKind(body["kind"]),
                target=body["target"],
                name=body["name"],
                label=body["label"],
                reason="",
            )
        return cls(
            action=action,
            state=ActionState(body["state"]),
            failure=Failure.from_json(body["failure"]) if body["failure"] else None,
            seconds=body["seconds"],
            gap_ms=body["gap_ms"],
            notes=tuple(body["notes"]),
        )


class FleetView(Protocol):
    """Receives the progress of an operation. All calls come from one thread and must not block."""

    def observing(self, targets: Collection[str]) -> None: ...

    def observed(self, sighting: Sighting) -> None: ...

    def planned(self, plan: Plan) -> None: ...

    def started(self, action: Action) -> None: ...

    def step(self, action: Action, step: str) -> None:
        """A step began: `check`, `stage`, `load`, `list`, `probe`, `unload`, `put-back`, `wait` (with a reason)."""

    def ended(self, outcome: Outcome) -> None: ...

    def note(self, text: str, level: NoteLevel = "warning") -> None:
        """Report something that the user should know and that belongs to no action."""


class SilentView:
    """A view that ignores every call."""

    def observing(self, targets: Collection[str]) -> None: ...

    def observed(self, sighting: Sighting) -> None: ...

    def planned(self, plan: Plan) -> None: ...

    def started(self, action: Action) -> None: ...

    def step(self, action: Action, step: str) -> None: ...

    def ended(self, outcome: Outcome) -> None: ...

    def note(self, text: str, level: NoteLevel = "warning") -> None: ...
