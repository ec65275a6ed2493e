import os
from pathlib import Path

import pytest

from garrison.base.identity import ProcessId
from garrison.preflight.stop_notes import StopNote, leave_note, read_note

ONE, TWO = ProcessId(100, 5), ProcessId(101, 6)
NOTE = StopNote((ONE, TWO), 7, "anna", "garrison serve --replace")


def test_a_note_is_found_by_any_process_it_is_about(tmp_path: Path) -> None:
    leave_note(tmp_path / "run", 8000, NOTE)
    assert read_note(tmp_path / "run", 8000, [TWO, ProcessId(1, 1)]) == NOTE
    assert str(NOTE) == "pid 7 (user anna): garrison serve --replace"


@pytest.mark.parametrize(
    ("port", "asked"),
    [(8001, [ONE]), (8000, [ProcessId(100, 4)]), (8000, [])],
    ids=["another port", "the same pid, another process", "no process"],
)
def test_it_is_about_no_other(tmp_path: Path, port: int, asked: list[ProcessId]) -> None:
    leave_note(tmp_path, 8000, NOTE)
    assert read_note(tmp_path, port, asked) is None


def test_the_newest_is_kept(tmp_path: Path) -> None:
    leave_note(tmp_path, 8000, NOTE)
    leave_note(tmp_path, 8000, StopNote((TWO,), 8, "bert", "x"))
    assert [path.name for path in tmp_path.iterdir()] == ["stopped-8000.json"]
    assert read_note(tmp_path, 8000, [ONE]) is None


def test_mode_and_directory(tmp_path: Path) -> None:
    leave_note(tmp_path / "data" / "run", 8000, NOTE)
    assert (tmp_path / "data" / "run").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "data" / "run" / "stopped-8000.json").stat().st_mode & 0o777 == 0o600


def test_where_it_cannot_be_written_nothing_is_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    leave_note(tmp_path / "file", 8000, NOTE)
    assert read_note(tmp_path / "file", 8000, [ONE]) is None


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[]", b"{}", b'{"stopped": 1}', b'{"stopped": [[1]], "pid": 1}',
     b'{"stopped": [[1e999, 1]], "pid": 1}', b"[" * 100_000],
    ids=["empty", "not text", "a list", "no keys", "a number", "a short pair", "infinite", "deep"],
)  # fmt: skip
def test_what_is_no_note_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "stopped-8000.json").write_bytes(content)
    assert read_note(tmp_path, 8000, [ONE]) is None


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory"])
def test_only_a_regular_file_is_read(tmp_path: Path, kind: str) -> None:
    leave_note(tmp_path, 8000, NOTE)
    path = tmp_path / "stopped-8000.json"
    path.rename(tmp_path / "elsewhere")
    if kind == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert read_note(tmp_path, 8000, [ONE]) is None


@pytest.mark.skipif(os.geteuid() != 0 and "CI" not in os.environ, reason="giving a file away needs root")
def test_a_strangers_note_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_note(tmp_path, 8000, NOTE)
    os.chown(tmp_path / "stopped-8000.json", 65534, 65534)
    assert read_note(tmp_path, 8000, [ONE]) is None
