"""Progress of a fleet operation: live on a terminal, one line per event in a pipe, nothing under `--json`."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from garrison.cli.fleet.wiring import Stop
from garrison.cli.views.alike import reach_words
from garrison.cli.views.glyphs import DONE_WORDS, MARKS, STATE_MARKS
from garrison.cli.views.opening import Opening
from garrison.cli.views.page import Page, counted, plain
from garrison.cli.views.slow_look import SlowLook
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.fleet.values.view import FleetView, NoteLevel, Outcome, SilentView
from garrison.store.records import ActionState

__all__ = ["LineProgress", "LiveProgress", "QuietProgress", "clock_line", "progress_view"]

_MOST_ROWS = 8
_MOST_LINES = 60
_MOST_ALIKE = 3
"""Failures of one kind that get a line each. The others are counted, and the summary has them all."""
_PARTS = 10
"""How many lines tell in a pipe how far a long command is."""
_REFRESHES_PER_SECOND = 8
_STOPPING = "stopping after work in progress; press Ctrl-C again to stop now"

ShowPlan = Callable[[Plan], None]


def progress_view(
    page: Page, stop: Stop, show: ShowPlan, *, json: bool, opening: Opening | None = None
) -> "QuietProgress":
    """Choose the view for the output at hand; `show` prints the plan once it is made.

    `opening` ends here, and the clock of the view goes on from there.
    """
    if opening is not None:
        opening.end()
    if json:
        return QuietProgress(stop)
    if not page.wraps:
        return LineProgress(page, stop, show)
    view = LiveProgress(page, stop, show, since=None if opening is None else opening.since)
    if opening is not None:
        view.begin("reading what is on record")
    return view


class QuietProgress(SilentView):
    """Shows nothing, but keeps the outcomes that a command reports when it is interrupted.

    Attributes:
        acts: the plan that comes is carried out, and not only shown.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self.outcomes: list[Outcome] = []
        self.under_way: dict[tuple[str, str], Action] = {}
        self.total = 0
        self.acts = False

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

    def begin(self, text: str) -> None:
        """Called when something begins that reports nothing for a while."""

    def waiting(self, owed: int, seconds: float) -> None:
        """Called before each wait for targets on which something is owed."""

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
        self._alike: Counter[tuple[str, str]] = Counter()
        self._slow = SlowLook()
        stop.tell = self.stopping

    def observing(self, targets: Collection[str]) -> None:
        self._slow.begin(targets)

    def observed(self, sighting: Sighting) -> None:
        self._slow.seen(sighting.target)

    def end(self) -> None:
        self._slow.end()

    def planned(self, plan: Plan) -> None:
        super().planned(plan)
        self._slow.end()
        self._show(plan)
        self._page.flush()

    def ended(self, outcome: Outcome) -> None:
        super().ended(outcome)
        # Skipped actions are in the plan already, by target, and the summary counts them.
        told = outcome.action.kind is ActionKind.BLOCKED or self._stop.asked
        if told and outcome.state is ActionState.SKIPPED:
            return
        if self._says(outcome):
            if self._lines == 0:
                self._page.blank()
            self._lines += 1
            self._tell(outcome)
        self._progressed()

    def _says(self, outcome: Outcome) -> bool:
        """Return whether an outcome gets a line: of a long command only failures, the first few that are alike."""
        if self.total <= _MOST_LINES:
            return True
        if outcome.state is not ActionState.FAILED:
            return False
        message = outcome.failure.message if outcome.failure else ""
        self._alike[outcome.action.name, message] += 1
        return self._alike[outcome.action.name, message] <= _MOST_ALIKE

    def _progressed(self) -> None:
        """Print how far a long command is, now and then."""
        ended, part = len(self.outcomes), max(1, self.total // _PARTS)
        if self.total > _MOST_LINES and (ended % part == 0 or ended == self.total):
            self._page.entry(Text("· ", "dim"), self._sum())
            self._page.flush()

    def _sum(self) -> Text:
        """Return the counts: `1,200 of 4,000 done, 10 failed, 2,790 left`."""
        states = Counter(one.state for one in self.outcomes)
        text = Text(f"{states[ActionState.DONE]:,} of {self.total:,} done", "bold")
        if failed := states[ActionState.FAILED]:
            text.append(f", {failed:,} failed", "bold red")
        if owed := states[ActionState.SKIPPED]:
            text.append(f", {owed:,} owed", "yellow")
        if late := states[ActionState.STARTED]:
            text.append(f", {late:,} cut short", "yellow")
        if left := self.total - len(self.outcomes):
            text.append(f", {left:,} left")
        return text

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
    """Shows what is going on, with a clock: while targets are changed a row for each of them, as many as fit, and a
    total.

    Rich redraws from a thread of its own, so the clock runs while the command computes: `_lock` guards the rows.

    Args:
        since: monotonic seconds when the command began; now if None.
    """

    def __init__(self, page: Page, stop: Stop, show: ShowPlan, *, since: float | None = None) -> None:
        super().__init__(page, stop, show)
        self._since = time.monotonic() if since is None else since
        self._live: Live | None = None
        self._make: Callable[[], Table] = Table.grid
        self._lock = threading.Lock()
        self._looked = _Looked()
        self._rows: dict[str, _Row] = {}

    def begin(self, text: str) -> None:
        self._draw(lambda: clock_line(text, self._seconds))

    def observing(self, targets: Collection[str]) -> None:
        self._looked = _Looked(len(targets))
        self._draw(self._looking)

    def observed(self, sighting: Sighting) -> None:
        self._looked.seen += 1
        if not sighting.known:
            self._looked.unknown[reach_words(sighting.cause)] += 1
        if self._looked.seen >= self._looked.total:
            self.begin(f"comparing {counted(self._looked.total, 'target')}")

    def planned(self, plan: Plan) -> None:
        self.end()
        super().planned(plan)
        if self.acts:
            self.begin("recording the plan")

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
            self._draw(self._ending)

    def waiting(self, owed: int, seconds: float) -> None:
        text = f"waiting for targets: {counted(owed, 'action')} owed, next look in {seconds:.0f} s"
        self.begin(text)

    def stopping(self) -> None:
        """Do nothing: the next frame shows it."""

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _progressed(self) -> None:
        """Do nothing: the total shows it."""

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._since

    def _draw(self, make: Callable[[], Table]) -> None:
        self._make = make
        if self._live is None:
            self._live = Live(
                console=self._page.console,
                get_renderable=lambda: self._make(),
                refresh_per_second=_REFRESHES_PER_SECOND,
                transient=True,
                redirect_stderr=sys.stderr.isatty(),
            )
            self._live.start()

    def _looking(self) -> Table:
        looked = self._looked
        text = Text(f"looking at {counted(looked.total, 'target')}: {looked.seen:,} seen")
        for word, number in sorted(looked.unknown.items()):
            text.append(f", {number:,} {word}", "yellow")
        return clock_line(text, self._seconds)

    def _ending(self) -> Table:
        return clock_line(self._sum().append("; looking at what was changed"), self._seconds)

    def _working(self) -> Table:
        with self._lock:
            rows = sorted(self._rows.items())
        room = max(1, min(_MOST_ROWS, self._page.console.height - 6))
        lines: list[tuple[Spinner | Text, Text]] = [(_spinner(), row.text(target)) for target, row in rows[:room]]
        if len(rows) > room:
            lines.append((Text("·"), Text(f"… and {counted(len(rows) - room, 'more target')} at work", "dim")))
        lines.append((Text("="), self._sum().append(f"  {self._seconds:.0f} s", "bold")))
        if self._stop.asked:  # on a line of its own: after the total it would be cut off
            lines.append((Text("·"), Text(_STOPPING, "yellow")))
        return _rows(lines)


@dataclass(slots=True)
class _Looked:
    total: int = 0
    seen: int = 0
    unknown: Counter[str] = field(default_factory=Counter)


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


def clock_line(text: Text | str, seconds: float) -> Table:
    """Return a line about work in progress, with its clock."""
    words = Text(text) if isinstance(text, str) else text
    return _rows([(_spinner(), Text.assemble(words, (f"  {seconds:.0f} s", "bold")))])


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
