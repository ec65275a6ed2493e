"""Progress of a fleet operation: live on a terminal, one line per event in a pipe, nothing under `--json`."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from garrison.cli.fleet.wiring import Stop
from garrison.cli.views.glyphs import DONE_WORDS, MARKS, STATE_MARKS
from garrison.cli.views.page import Page, counted, plain
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.fleet.values.view import FleetView, NoteLevel, Outcome, SilentView
from garrison.store.records import ActionState

__all__ = ["LineProgress", "LiveProgress", "QuietProgress", "progress_view"]

_MOST_ROWS = 8
_MOST_LINES = 60
_REFRESHES_PER_SECOND = 8
_STOPPING = "stopping after work in progress; press Ctrl-C again to stop now"

ShowPlan = Callable[[Plan], None]


def progress_view(page: Page, stop: Stop, show: ShowPlan, *, json: bool) -> "QuietProgress":
    """Choose the view for the output at hand; `show` prints the plan once it is made."""
    if json:
        return QuietProgress(stop)
    return LiveProgress(page, stop, show) if page.wraps else LineProgress(page, stop, show)


class QuietProgress(SilentView):
    """Shows nothing, but keeps the outcomes that a command reports when it is interrupted."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.outcomes: list[Outcome] = []
        self.under_way: dict[tuple[str, str], Action] = {}
        self.total = 0

    @property
    def untouched(self) -> int:
        """How many actions of the plan were not started."""
        return max(0, self.total - len(self.outcomes) - len(self.under_way))

    def planned(self, plan: Plan) -> None:
        self.total = sum(action.kind is not ActionKind.KEEP for action in plan.actions)

    def started(self, action: Action) -> None:
        self._stop.working = True
        self.under_way[action.target, action.name] = action

    def ended(self, outcome: Outcome) -> None:
        self._stop.working = True
        self.under_way.pop((outcome.action.target, outcome.action.name), None)
        self.outcomes.append(outcome)

    def waiting(self, owed: int, seconds: float) -> None:
        """Called before each wait for targets that are out of reach."""

    def end(self) -> None:
        """Restore the terminal. May be called more than once."""


class LineProgress(QuietProgress):
    """Prints one line per outcome."""

    def __init__(self, page: Page, stop: Stop, show: ShowPlan) -> None:
        super().__init__(stop)
        self._page = page
        self._show = show
        self._lines = 0
        self._owed: int | None = None
        self._noted: set[str] = set()
        stop.tell = self.stopping

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self._show(plan)
        self._page.flush()

    def ended(self, outcome: Outcome) -> None:
        super().ended(outcome)
        # Skipped actions are in the plan already, by target, and the summary counts them.
        told = outcome.action.kind is ActionKind.BLOCKED or self._stop.asked
        if told and outcome.state is ActionState.SKIPPED:
            return
        if self._lines == 0:
            self._page.blank()
        self._lines += 1
        self._tell(outcome)

    def note(self, text: str, level: NoteLevel = "warning") -> None:
        if text in self._noted:  # a plan that is confirmed is made twice, and a watch repeats itself
            return
        self._noted.add(text)
        self._page.line(("· ", "dim"), text)

    def waiting(self, owed: int, seconds: float) -> None:
        if owed != self._owed:
            self._owed = owed
            self._page.line(("· ", "dim"), f"waiting: {counted(owed, 'action')} owed")

    def stopping(self) -> None:
        """Report that a stop was requested and work in progress is being finished."""
        self._page.line(("· ", "dim"), (_STOPPING, "yellow"))
        self._page.flush()

    def _tell(self, outcome: Outcome) -> None:
        action, mark = outcome.action, STATE_MARKS[outcome.state]
        word = DONE_WORDS[action.kind] if outcome.state is ActionState.DONE else f"{action.kind} {mark.word}"
        head = Text.assemble(
            (f"{mark.glyph} ", mark.style), (f"{plain(action.target)}/{plain(action.name)}", "bold"), "  "
        )
        self._page.entry(head, Text.assemble((word, mark.style), (_aside(outcome), "dim")))
        self._page.flush()


class LiveProgress(LineProgress):
    """Shows a row per target at work, as many as fit, and a total.

    Rich redraws from a thread of its own: `_lock` guards the rows.
    """

    def __init__(self, page: Page, stop: Stop, show: ShowPlan) -> None:
        super().__init__(page, stop, show)
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._looked = _Looked()
        self._rows: dict[str, _Row] = {}

    def observing(self, targets: int) -> None:
        self.end()
        self._looked = _Looked(targets)
        self._draw(self._looking)

    def observed(self, sighting: Sighting) -> None:
        self._looked.seen += 1
        self._looked.away += not sighting.known
        if self._looked.seen >= self._looked.total:
            self.end()

    def planned(self, plan: Plan) -> None:
        self.end()
        super().planned(plan)

    def started(self, action: Action) -> None:
        super().started(action)
        with self._lock:
            # One row per target is enough: the actions of a target run one after the other.
            self._rows[action.target] = _Row(action)
        self._draw(self._working)

    def step(self, action: Action, step: str) -> None:
        with self._lock:
            row = self._rows.setdefault(action.target, _Row(action))
            row.step, row.since = step, time.monotonic()

    def ended(self, outcome: Outcome) -> None:
        with self._lock:
            # Before the line is printed, so that no frame shows the action as both running and ended.
            self._rows.pop(outcome.action.target, None)
        super().ended(outcome)
        if len(self.outcomes) >= self.total:
            self.end()

    def waiting(self, owed: int, seconds: float) -> None:
        self.end()
        text = f"waiting for targets out of reach: {counted(owed, 'action')} owed, next look in {seconds:.0f} s"
        self._draw(lambda: _rows([(_spinner(), Text(text))]))

    def stopping(self) -> None:
        """Do nothing: the next frame shows it."""

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _tell(self, outcome: Outcome) -> None:
        """Print an outcome; of a long command only failures, since the total counts the rest."""
        if self.total <= _MOST_LINES or outcome.state is ActionState.FAILED:
            super()._tell(outcome)

    def _draw(self, make: Callable[[], Table]) -> None:
        if self._live is None:
            self._live = Live(
                console=self._page.console,
                get_renderable=make,
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
            )
            self._live.start()

    def _looking(self) -> Table:
        looked = self._looked
        text = Text(f"looking at {counted(looked.total, 'target')}: {looked.seen:,} seen")
        if looked.away:
            text.append(f", {looked.away:,} out of reach", "yellow")
        return _rows([(Spinner("dots", style="cyan"), text)])

    def _working(self) -> Table:
        with self._lock:
            rows = sorted(self._rows.items())
        room = max(1, min(_MOST_ROWS, self._page.console.height - 6))
        lines: list[tuple[Spinner | Text, Text]] = [(_spinner(), row.text(target)) for target, row in rows[:room]]
        if len(rows) > room:
            lines.append((Text("·"), Text(f"… and {counted(len(rows) - room, 'more target')} at work", "dim")))
        lines.append((Text("="), self._sum()))
        if self._stop.asked:  # on a line of its own: after the total it would be cut off
            lines.append((Text("·"), Text(_STOPPING, "yellow")))
        return _rows(lines)

    def _sum(self) -> Text:
        states = [one.state for one in self.outcomes]
        text = Text(f"{states.count(ActionState.DONE):,} of {self.total:,} done", "bold")
        if failed := states.count(ActionState.FAILED):
            text.append(f", {failed:,} failed", "bold red")
        if owed := states.count(ActionState.SKIPPED) + states.count(ActionState.STARTED):
            text.append(f", {owed:,} owed", "yellow")
        return text


@dataclass(slots=True)
class _Looked:
    total: int = 0
    seen: int = 0
    away: int = 0


@dataclass(slots=True)
class _Row:
    action: Action
    step: str = ""
    since: float = field(default_factory=time.monotonic)

    def text(self, target: str) -> Text:
        mark = MARKS[self.action.kind]
        seconds = time.monotonic() - self.since
        return Text.assemble(
            (plain(target), "bold"),
            "  ",
            (f"{mark.text} ", mark.style),
            f"{plain(self.action.name)}  ",
            (f"{plain(self.step)} {seconds:.0f} s" if self.step else "", "dim"),
        )


def _rows(lines: list[tuple[Spinner | Text, Text]]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column()
    table.add_column(no_wrap=True, overflow="ellipsis")
    for sign, text in lines:
        table.add_row(sign, text)
    return table


def _spinner() -> Spinner:
    spinner = Spinner("dots", style="cyan")
    spinner.start_time = 0.0  # created for each frame: a fixed start keeps all spinners in step
    return spinner


def _aside(outcome: Outcome) -> str:
    """Format the details of an outcome: duration, gap, failure, notes."""
    said = []
    if outcome.seconds >= 0.05:
        said.append(f"{outcome.seconds:.1f} s")
    if outcome.gap_ms is not None:
        said.append(f"name unavailable for {outcome.gap_ms:.0f} ms")
    if outcome.failure:
        said.append(outcome.failure.message)
    said += outcome.notes
    return f"  {plain('; '.join(said))}" if said else ""


_: type[FleetView] = QuietProgress  # mypy checks that these classes implement the protocol
