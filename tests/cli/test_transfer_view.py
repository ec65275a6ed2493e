import io
import json

import pytest
from rich.console import Console

from garrison.cli.views.transfer import JsonLines, Lines, choose
from garrison.cli.views.transfer_live import LiveTransfer
from garrison.models.files.progress import Progress, Silent
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress


def transfer(progress: Progress, clock: FakeClock | None = None) -> None:
    progress.step("search", source="local")
    progress.step("tried", message="local: nothing")
    progress.started(2, 1000, 200)
    for _ in range(80):
        if clock:
            clock.advance(0.1)
        progress.advanced(10)
    progress.finished()
    progress.finished()


def test_json_lines_are_one_object_each() -> None:
    out, clock = io.StringIO(), FakeClock()
    transfer(JsonLines(out, clock), clock)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert all(line.pop("schema") == 1 for line in lines)
    assert lines[0] == {"step": "search", "source": "local"}
    assert lines[2] == {
        "step": "downloading",
        "state": "started",
        "files": 2,
        "bytes": 200,
        "total_bytes": 1000,
    }
    assert [line["bytes"] for line in lines if line.get("state") == "running"] == [
        300,
        400,
        500,
        600,
        700,
        800,
        900,
        1000,
    ]
    assert lines[-1] == {
        "step": "downloading", "state": "ended", "files": 2, "bytes": 1000, "total_bytes": 1000, "bytes_per_s": 100
    }  # fmt: skip


def test_lines_are_few() -> None:
    out, clock = io.StringIO(), FakeClock()
    transfer(Lines(out, clock), clock)
    lines = out.getvalue().splitlines()
    assert lines[0] == "local: nothing"
    assert lines[1] == "downloading 2 files, 1000 B, 200 B of it already here"
    assert lines[2] == " 30 %  100 B/s"
    assert len(lines) == 10


def test_nothing_to_transfer() -> None:
    out = io.StringIO()
    for progress in (Lines(out), JsonLines(out), Silent()):
        progress.started(1, 0)
        progress.advanced(0)
        progress.finished()
    assert out.getvalue().startswith("downloading 1 file, 0 B\n")


def test_rich_shows_bytes_and_time_left() -> None:
    out = io.StringIO()
    progress = LiveTransfer(out)
    progress.step("tried", message="[bold]not markup[/]")
    progress.started(2, 1000, 200)
    progress.step("note", message="[while] it runs")
    progress.advanced(800)
    progress.finished()
    assert out.getvalue().startswith("[bold]not markup[/]\n")
    assert "[while] it runs" in out.getvalue()
    assert "1,000/1,000 bytes" in out.getvalue()


def test_the_twin_remembers() -> None:
    progress = MemoryProgress()
    transfer(progress)
    assert progress.steps == [("search", {"source": "local"}), ("tried", {"message": "local: nothing"})]
    assert (progress.transfers, progress.bytes, progress.open) == ([(2, 1000, 200)], 800, False)


@pytest.mark.parametrize(
    ("json_lines", "tty", "kind"), [(True, True, JsonLines), (False, True, LiveTransfer), (False, False, Lines)]
)
def test_choose(json_lines: bool, tty: bool, kind: type) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return tty

    assert type(choose(json_lines=json_lines, out=Stream(), err=Stream())) is kind


def test_a_wait_is_counted_down_and_ends_with_the_bytes_that_come_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    clock = FakeClock()
    out = io.StringIO()
    view = LiveTransfer(out, clock.monotonic)

    def frame() -> str:
        console = Console(file=io.StringIO(), width=80)
        console.print(view._frame())
        return console.file.getvalue()  # type: ignore[attr-defined]  # it is the StringIO

    with view:
        view.started(2, 1000, 200)
        view.step("wait", seconds=8, cause="HTTP 503", attempt=3, tries=5, message="not shown")
        assert "waiting … 0 s  try 3 of 5 in 8 s: HTTP 503" in frame()
        clock.advance(3)
        view.advanced(100)  # of another file
        assert "waiting … 3 s  try 3 of 5 in 5 s: HTTP 503" in frame()
        view.step("wait", seconds=60, cause="hub limits requests", message="not shown")
        assert "waiting … 3 s  next try in 60 s: hub limits requests" in frame()
        clock.advance(61)
        assert "waiting … 64 s  next try now: hub limits requests" in frame()
        view.advanced(100)
        assert "waiting" not in frame()
        view.step("wait", seconds=8, cause="HTTP 503", attempt=2, tries=5, message="not shown")
        assert "waiting … 0 s" in frame()
        view.finished()
        assert "waiting" not in frame()
        view.step("check", message="checking the download")
        clock.advance(5)
        assert "checking the download … 5 s" in frame()
        view.step("verify", message="verifying /models/" + "x" * 200)
        clock.advance(7)
        assert "xxx … 7 s" in frame()
    assert "not shown" not in out.getvalue()


def test_what_a_hub_says_cannot_move_the_cursor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    for view in (Lines(out := io.StringIO()), LiveTransfer(out_live := io.StringIO())):
        view.step("tried", message="hf-hub: \x1b[2Jno\nsuch model")
    for written in (out, out_live):
        assert written.getvalue() == "hf-hub: \ufffd[2Jno such model\n"
