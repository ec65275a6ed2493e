"""What a person sees of a start: from its first moment on a clock, then memory and the engine's last line."""

import io
import re

import pytest

from garrison.cli.serve.views.start import LineView, RichView
from garrison.cli.views.spinning import Spinning

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True

    def shown(self) -> str:
        return ESCAPE.sub("", self.getvalue())


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    return Screen()


def test_the_clock_runs_between_two_reports() -> None:
    clock = [100.0]
    line = Spinning(lambda: clock[0])
    line.name = "weights"
    assert line.text().plain == "weights …"
    line.saw(3.0, 5 * 2**20)
    clock[0] += 2.4
    line.line = "Loading\x1b[31m shards"
    assert line.text().plain == "weights … 5 s  5.0 MiB  Loading\ufffd[31m shards"


def test_it_spins_before_the_engine_says_anything(screen: Screen) -> None:
    view = RichView(screen, logs=False)
    view.starting(seconds=0.0, memory_bytes=0)
    view.end()
    assert "starting … 0 s" in screen.shown()


def test_a_phase_shows_time_memory_and_the_last_line_on_one_line(screen: Screen) -> None:
    view = RichView(screen, logs=False)
    view.phase("weights", seconds=4.0, memory_bytes=2**30)
    view.line("x" * 200)
    view.starting(seconds=7.0, memory_bytes=2**31)
    view.ready(seconds=9.0, memory_bytes=2**31)
    shown = screen.shown()
    assert re.search(r"weights … [47] s  [12]\.0 GiB", shown)
    assert all(len(line) <= 61 for line in re.split(r"[\r\n]", shown))
    assert "ready after 9.0 s" in shown


def test_what_is_to_be_pasted_is_not_broken(screen: Screen) -> None:
    command = "try it: curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' -d '{}'"
    RichView(screen, logs=False).note(command)
    assert command in screen.shown()


def test_a_journal_has_no_line_a_second() -> None:
    out = io.StringIO()
    LineView(out, logs=False).starting(seconds=1.0, memory_bytes=1)
    assert out.getvalue() == ""
