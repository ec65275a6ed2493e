"""Marks for actions: a glyph, a word and a colour, so that no reader depends on one of them alone."""

from dataclasses import dataclass

from garrison.fleet.values.plan import Action, ActionKind
from garrison.store.records import ActionState

__all__ = ["CONFLICT", "DONE_WORDS", "MARKS", "OWED", "STATE_MARKS", "Mark", "mark_of"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A glyph with its word and Rich style."""

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
"""Marks by action kind, in the order in which counts are shown."""

OWED = Mark("○", "owed", "yellow")
"""Blocked by something temporary, usually a target out of reach. What is `blocked` needs somebody to act."""

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
    ActionState.SKIPPED: OWED,
    ActionState.STARTED: Mark("◐", "cut short", "yellow"),
    ActionState.PLANNED: Mark("·", "not started", "dim"),
}


def mark_of(action: Action) -> Mark:
    """Return the mark of an action; conflicts and owed actions have their own."""
    if action.conflict:
        return CONFLICT
    return OWED if action.waits else MARKS[action.kind]
