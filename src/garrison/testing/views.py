"""The twins of the views: they record what would be shown."""

from dataclasses import dataclass, field

from garrison.engines.argv import Endpoint
from garrison.fleet.values.plan import Action
from garrison.fleet.values.view import NoteLevel, Outcome, SilentView
from garrison.launch.run.address import caller_url

__all__ = ["RecordingFleetView", "RecordingStartView"]


@dataclass(slots=True)
class RecordingFleetView(SilentView):
    """`FleetView` that records.

    Attributes:
        steps: (target, name, step) per step of an action, in order.
        outcomes: one per action that ended.
        notes: sentences that belong to no action.
        levels: the level of each note.
    """

    steps: list[tuple[str, str, str]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    levels: list[NoteLevel] = field(default_factory=list)

    def step(self, action: Action, step: str) -> None:
        self.steps.append((action.target, action.name, step))

    def ended(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def note(self, text: str, level: NoteLevel = "warning") -> None:
        self.notes.append(text)
        self.levels.append(level)


@dataclass
class RecordingStartView:
    """`StartView` that records.

    Attributes:
        events: (kind, text) in order; the kind is the method's name.
    """

    events: list[tuple[str, str]] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.events.append(("note", text))

    def starting(self, *, seconds: float, memory_bytes: int) -> None:
        self.events.append(("starting", ""))

    def phase(self, name: str, *, seconds: float, memory_bytes: int) -> None:
        self.events.append(("phase", name))

    def line(self, text: str) -> None:
        self.events.append(("line", text))

    def ready(self, *, seconds: float, memory_bytes: int) -> None:
        self.events.append(("ready", ""))

    def running(self, why: str, *, seconds: float, memory_bytes: int) -> None:
        self.events.append(("running", why))

    def reached(self, endpoint: Endpoint) -> None:
        self.events.append(("reached", caller_url(endpoint)))

    def stopping(self, reason: str) -> None:
        self.events.append(("stopping", reason))

    def stopped(self, *, seconds: float) -> None:
        self.events.append(("stopped", ""))

    def end(self) -> None:
        self.events.append(("end", ""))

    def of(self, kind: str) -> list[str]:
        """Return the texts of one kind, in order."""
        return [text for seen, text in self.events if seen == kind]
