import io

import pytest
from plan_samples import NOW, fleet_status, target_status
from rich.console import Console

from garrison.cli.fleet.wiring import Stop
from garrison.cli.views.page import Page
from garrison.cli.views.progress import LineProgress
from garrison.cli.views.slow_look import SlowLook
from garrison.cli.views.status import slow_hint
from garrison.fleet.report.status import FleetStatus
from garrison.fleet.values.observation import Cause, Sighting


class Timer:
    """A timer that fires when the test says so."""

    def __init__(self, seconds, call):
        self.seconds, self._call = seconds, call
        self.daemon = self.started = self.cancelled = False

    def start(self):
        self.started = True

    def cancel(self):
        self.cancelled = True

    def fire(self):
        if self.started and not self.cancelled:
            self._call()


@pytest.fixture
def slow():
    made = SlowLook(lambda seconds, call: made_timers.append(Timer(seconds, call)) or made_timers[-1])
    made_timers = made.timers = []
    return made


def test_names_those_that_have_not_answered(slow, capsys):
    slow.begin([f"t{number}" for number in range(31)])
    for number in range(30):
        slow.seen(f"t{number}")
    (timer,) = slow.timers
    assert (timer.seconds, timer.daemon) == (1.0, True)
    timer.fire()
    assert capsys.readouterr() == ("", "waiting for 1 of 31 targets: t30\n")


def test_many_are_counted(slow, capsys):
    slow.begin([f"t{number}" for number in range(9)])
    slow.timers[0].fire()
    assert capsys.readouterr().err == "waiting for 9 of 9 targets: t0, t1, t2, t3, t4 and 4 more\n"


@pytest.mark.parametrize("over", ["seen", "end"])
def test_says_nothing_once_it_is_over(slow, capsys, over):
    slow.begin(["a", "b"])
    if over == "seen":
        slow.seen("b")
        slow.seen("a")
    else:
        slow.end()
    slow.timers[0].fire()
    assert capsys.readouterr().err == ""


def test_nothing_to_wait_for(slow):
    slow.begin([])
    assert slow.timers == []


def test_the_view_of_a_pipe_waits_and_ends(slow, capsys):
    view = LineProgress(Page(Console(file=io.StringIO())), Stop(), lambda _: None)
    view._slow = slow
    view.observing(["a", "hung"])
    view.observed(Sighting(target="a", at=NOW, cause=Cause.REFUSED))
    slow.timers[0].fire()
    assert capsys.readouterr().err == "waiting for 1 of 2 targets: hung\n"
    view.end()
    assert slow.timers[0].cancelled


def test_a_slow_status_points_to_the_cached_one():
    slow_one = fleet_status(3)
    assert "`garrison status --cached`" in slow_hint(slow_one, 5.2)
    assert slow_hint(slow_one, 1.0) is None
    well = FleetStatus(at=NOW, cached=False, stacks=(), targets=(target_status("a", adapters={}),))
    assert slow_hint(well, 5.2) is None
    assert slow_hint(FleetStatus(at=NOW, cached=True, stacks=(), targets=slow_one.targets), 5.2) is None
