import io
import json

import pytest

from garrison.models.files.progress import JsonLines, Lines, Progress, RichProgress, Silent, choose
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
    assert lines[0] == {"step": "search", "source": "local"}
    assert lines[2] == {"step": "downloading", "state": "started", "files": 2, "bytes": 200, "total_bytes": 1000}
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
    progress = RichProgress(out)
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
    ("json_lines", "tty", "kind"), [(True, True, JsonLines), (False, True, RichProgress), (False, False, Lines)]
)
def test_choose(json_lines: bool, tty: bool, kind: type) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return tty

    assert type(choose(json_lines=json_lines, out=Stream(), err=Stream())) is kind
