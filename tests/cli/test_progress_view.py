import io
import re

import pytest
from fleet_world import World, adapter
from plan_samples import NOW, action, full_plan
from rendered import ESCAPE
from rich.console import Console

from garrison.cli.fleet.wiring import Stop
from garrison.cli.views import progress
from garrison.cli.views.page import Page
from garrison.cli.views.progress import LineProgress, LiveProgress, QuietProgress, progress_view
from garrison.fleet.execute.steps import ExecuteOptions
from garrison.fleet.operations.apply import apply
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.fleet.values.observation import Cause, Sighting
from garrison.fleet.values.plan import ActionKind, Plan
from garrison.fleet.values.view import Outcome
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import ActionState

FAILED = Failure(code=FailureCode.INVALID_REQUEST, message="rank 128 is too high", hint="Train it lower.")


def page_of(*, terminal, height=12):
    out = io.StringIO()
    console = Console(file=out, width=80, height=height, force_terminal=terminal or None, highlight=False)
    return out, Page(console)


def work(targets):
    return [action(ActionKind.CREATE, "sql", f"edge-{number}") for number in range(targets)]


def play(view, actions, state=ActionState.DONE, **outcome):
    view.observing(["edge-1", "edge-2"])
    view.observed(Sighting(target="edge-0", at=NOW))
    view.observed(Sighting(target="edge-1", at=NOW, cause=Cause.REFUSED))
    view.planned(Plan(stack="s", mode="reconcile", actions=tuple(actions)))
    for one in actions:
        view.started(one)
        view.step(one, "load")
    for one in actions:
        view.ended(Outcome(action=one, state=state, **outcome))
    view.end()


def test_lines_in_a_pipe():
    out, page = page_of(terminal=False)
    view = LineProgress(page, Stop(), lambda plan: page.line(f"PLAN {plan.stack}"))
    play(view, work(2), seconds=1.25, gap_ms=4.6)
    assert out.getvalue().splitlines() == [
        "PLAN s",
        "",
        "✓ edge-0/sql  created  1.2 s; name unavailable for 5 ms",
        "✓ edge-1/sql  created  1.2 s; name unavailable for 5 ms",
    ]


@pytest.mark.parametrize(
    ("state", "line"),
    [
        (ActionState.FAILED, "✗ edge-0/sql  create failed  rank 128 is too high"),
        (ActionState.SKIPPED, "○ edge-0/sql  create owed  rank 128 is too high"),
        (ActionState.STARTED, "◐ edge-0/sql  create cut short  rank 128 is too high"),
    ],
    ids=str,
)
def test_failed_and_unfinished_actions(state, line):
    out, page = page_of(terminal=False)
    play(LineProgress(page, Stop(), lambda _: None), work(1), state, failure=FAILED)
    assert out.getvalue().splitlines()[-1] == line


def test_the_drawing_has_a_bounded_height():
    _, page = page_of(terminal=True, height=12)
    view = LiveProgress(page, Stop(), lambda _: None)
    actions = work(500)
    view.planned(Plan(stack="s", mode="reconcile", actions=tuple(actions)))
    for one in actions:
        view.started(one)
        view.step(one, "load")
    view.end()
    lines = page.console.render_lines(view._working())
    assert len(lines) <= 10
    text = "\n".join("".join(part.text for part in line) for line in lines)
    assert "edge-0  + create sql  load 0 s" in text
    assert "more targets at work" in text
    assert "0 of 500 done" in text


def test_the_stopping_note_fits_80_columns():
    _, page = page_of(terminal=True)
    stop = Stop()
    view = LiveProgress(page, stop, lambda _: None)
    view.planned(Plan(stack="s", mode="reconcile", actions=tuple(work(500))))
    stop.asked = True
    stop.tell()
    lines = ["".join(part.text for part in line) for line in page.console.render_lines(view._working())]
    assert any("press Ctrl-C again to stop now" in line for line in lines)
    view.end()


def test_live_leaves_a_line_for_each_of_few_and_only_failures_of_many():
    for number, lines in ((5, 5), (500, 1)):
        out, page = page_of(terminal=True)
        view = LiveProgress(page, Stop(), lambda _: None)
        actions = work(number)
        view.planned(Plan(stack="s", mode="reconcile", actions=tuple(actions)))
        for one in actions[1:]:
            view.ended(Outcome(action=one, state=ActionState.DONE))
        view.ended(Outcome(action=actions[0], state=ActionState.FAILED, failure=FAILED))
        text = ESCAPE.sub("", out.getvalue())
        assert sum("/sql" in line for line in text.splitlines()) == lines
        assert "✗ edge-0/sql  create failed" in text


def test_live_puts_the_cursor_back():
    out, page = page_of(terminal=True)
    play(LiveProgress(page, Stop(), lambda _: None), work(3))
    text = out.getvalue()
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") > 0


def test_actions_not_started_are_counted():
    stop = Stop()
    view = QuietProgress(stop)
    view.planned(full_plan())
    assert (stop.working, view.untouched) == (False, 12)
    first = full_plan().actions[0]
    view.started(first)
    assert (stop.working, len(view.under_way), view.untouched) == (True, 1, 11)
    view.ended(Outcome(action=first, state=ActionState.DONE))
    assert (len(view.under_way), view.untouched) == (0, 11)


def test_when_stopping_skipped_actions_get_no_lines():
    out, page = page_of(terminal=False)
    stop = Stop()
    view = LineProgress(page, stop, lambda _: None)
    stop.asked = True
    play(view, work(3), ActionState.SKIPPED)
    assert out.getvalue() == ""


def test_actions_the_plan_shows_as_owed_get_no_lines():
    out, page = page_of(terminal=False)
    view = LineProgress(page, Stop(), lambda _: None)
    for one in (action(ActionKind.BLOCKED, "sql"), action(ActionKind.CREATE, "chat")):
        view.ended(Outcome(action=one, state=ActionState.SKIPPED, failure=FAILED))
    assert out.getvalue().splitlines() == ["", "○ edge-2/chat  create owed  rank 128 is too high"]


def test_the_view_fits_the_output():
    _, terminal = page_of(terminal=True)
    _, pipe = page_of(terminal=False)
    kinds = [type(progress_view(page, Stop(), lambda _: None, json=json)) for page, json in
             ((terminal, False), (pipe, False), (terminal, True))]  # fmt: skip
    assert kinds == [LiveProgress, LineProgress, QuietProgress]


class Watched(LiveProgress):
    """Keeps what the screen shows after calls, one in 20 of those that are frequent."""

    def __init__(self, *args, clock, **values):
        super().__init__(*args, **values)
        self.screens = []
        self.calls = 0
        self._clock = clock

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name not in ("begin", "observing", "observed", "planned", "started", "step", "ended"):
            return found

        def call(*args):
            self._clock.now += 0.01
            found(*args)
            self.calls += 1
            if self.calls % 20 and name not in ("begin", "observing", "planned") and len(self.outcomes) < self.total:
                return
            if self._live is not None:
                lines = self._page.console.render_lines(self._live.get_renderable())
                self.screens.append("\n".join("".join(part.text for part in line).rstrip() for line in lines))
            else:
                self.screens.append("")

        return call


class Seconds:
    now = 100.0


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(progress.time, "monotonic", lambda: Seconds.now)
    Seconds.now = 100.0
    return Seconds


async def test_an_apply_to_2000_targets_shows_clock_and_counts_all_the_time(clock):
    world = World(targets=2000)
    _, page = page_of(terminal=True, height=30)
    view = Watched(page, Stop(), lambda _: None, since=98.0, clock=clock)
    view.acts = True
    for name in list(world.targets.targets)[:40]:
        world.targets[name].down = TransportError(TransportCause.REFUSED, "connection refused")
    adapters = [adapter(target=name) for name in world.targets.targets]
    view.begin("reading what is on record")
    options = ExecuteOptions(probe=False, sleep=world.sleep)
    done = await apply(world.fleet, world.declaration(*adapters), view, options=PlanOptions(), execution=options)
    assert sum(one.state is ActionState.DONE for one in done.outcomes) == 1960
    assert "" not in view.screens, "something is shown at any time"
    assert all(re.search(r"  \d+ s$", one, re.MULTILINE) for one in view.screens), "and so is the clock"
    assert view.screens[0][2:] == "reading what is on record  2 s"
    phases = [one.partition("  ")[0][2:] for one in view.screens if one.count("\n") == 0]
    seen = [one for one in phases if one.startswith("looking at 2,000 targets: ")]
    assert "looking at 2,000 targets: 0 seen" in seen
    assert any(one.endswith(" out of reach") for one in seen)
    assert "comparing 2,000 targets" in phases
    assert "recording the plan" in phases
    totals = [line for one in view.screens for line in one.splitlines() if " of 2,000 done" in line]
    assert len(totals) > 300
    for line in totals:
        counts = [int(number.replace(",", "")) for number in re.findall(r"([\d,]+) (?:of|owed|failed|left)", line)]
        assert sum(counts) == 2000, line
    assert view.screens[-1].partition("  ")[0][2:] == "1,960 of 2,000 done, 40 owed; looking at what was changed"
    assert all(len(line) <= 80 for one in view.screens for line in one.splitlines())
    view.end()
    assert view._live is None
    world.fleet.close()


def test_the_drawing_runs_while_the_command_computes(clock):
    """The clock is read when a frame is drawn, by a thread of its own, and not when something is reported."""
    _, page = page_of(terminal=True)
    view = LiveProgress(page, Stop(), lambda _: None, since=100.0)
    view.observing(["edge-1"])
    view.observed(Sighting(target="edge-0", at=NOW))
    assert view._live.auto_refresh

    def shown():
        return "".join(part.text for part in page.console.render_lines(view._live.get_renderable())[0]).strip()

    assert shown().endswith("comparing 1 target  0 s")
    clock.now = 175.0
    assert shown().endswith("comparing 1 target  75 s")
    clock.now = 400.0
    assert shown().endswith("comparing 1 target  300 s")
    view.end()


def test_a_plan_that_is_only_shown_leaves_nothing_on_the_screen():
    _, page = page_of(terminal=True)
    view = LiveProgress(page, Stop(), lambda _: None)
    view.begin("reading what is on record")
    view.planned(Plan(stack="s", mode="reconcile"))
    assert view._live is None


def test_a_long_command_tells_now_and_then_in_a_pipe_how_far_it_is():
    out, page = page_of(terminal=False)
    play(LineProgress(page, Stop(), lambda _: None), work(2000))
    lines = out.getvalue().splitlines()
    assert lines[0] == "· 200 of 2,000 done, 1,800 left"
    assert lines[-1] == "· 2,000 of 2,000 done"
    assert len(lines) == 10


@pytest.mark.parametrize("terminal", [False, True])
def test_failures_alike_get_a_few_lines(terminal):
    out, page = page_of(terminal=terminal)
    view = (LiveProgress if terminal else LineProgress)(page, Stop(), lambda _: None)
    play(view, work(2000), ActionState.FAILED, failure=FAILED)
    text = ESCAPE.sub("", out.getvalue())
    assert text.count("✗ edge-") == 3
    assert "2,000 failed" in text


def test_a_note_is_printed_once():
    out, page = page_of(terminal=False)
    view = LineProgress(page, Stop(), lambda _: None)
    for text in ("cut short on edge-1", "settled", "cut short on edge-1"):
        view.note(text)
    assert out.getvalue() == "· cut short on edge-1\n· settled\n"
