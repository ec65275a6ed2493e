"""How an action is marked: a sign, a word and a colour, so that none of the three has to be understood alone."""

from dataclasses import dataclass

from garrison.fleet.plan_values import Action, ActionKind
from garrison.store.records import ActionState

__all__ = ["CONFLICT", "DONE_WORDS", "MARKS", "OWED", "STATE_MARKS", "Mark", "is_owed", "mark_of"]


@dataclass(frozen=True, slots=True)
class Mark:
    glyph: str
    word: str
    style: str

    @property
    def text(self) -> str:
        return f"{self.glyph} {self.word}"


MARKS = {
    ActionKind.CREATE: Mark("+", "create", "green"),
    ActionKind.UPDATE: Mark("✎", "update", "yellow"),
    ActionKind.REPLACE: Mark("↻", "replace", "magenta"),
    ActionKind.DELETE: Mark("✕", "delete", "red"),
    ActionKind.ADOPT: Mark("⊕", "adopt", "cyan"),
    ActionKind.RELEASE: Mark("⊖", "release", "cyan"),
    ActionKind.BLOCKED: Mark("⊘", "blocked", "yellow"),
    ActionKind.KEEP: Mark("=", "keep", "dim"),
}
"""In the order in which they are counted."""

OWED = Mark("⊘", "owed", "yellow")
"""Blocked only by what passes: its target is out of reach, as a rule."""

CONFLICT = Mark("⚠", "conflict", "bold red")

DONE_WORDS = {
    ActionKind.CREATE: "created",
    ActionKind.UPDATE: "updated",
    ActionKind.REPLACE: "replaced",
    ActionKind.DELETE: "deleted",
    ActionKind.ADOPT: "adopted",
    ActionKind.RELEASE: "released",
    ActionKind.BLOCKED: "blocked",
    ActionKind.KEEP: "kept",
}

STATE_MARKS = {
    ActionState.DONE: Mark("✓", "done", "green"),
    ActionState.FAILED: Mark("✗", "failed", "bold red"),
    ActionState.SKIPPED: Mark("⊘", "owed", "yellow"),
    ActionState.STARTED: Mark("◐", "cut short", "yellow"),
    ActionState.PLANNED: Mark("·", "not begun", "dim"),
}


def mark_of(action: Action) -> Mark:
    if action.conflict:
        return CONFLICT
    return OWED if is_owed(action) else MARKS[action.kind]


def is_owed(action: Action) -> bool:
    """Whether it is blocked, and will be done once what is in the way has passed."""
    if action.kind is not ActionKind.BLOCKED or action.conflict:
        return False
    return action.failure is not None and action.failure.recoverable
