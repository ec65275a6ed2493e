import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.base.errors import DiskFullError, InvalidError
from garrison.base.redaction import know_secret
from garrison.engines.diagnose import LOG_LINES
from garrison.launch import engine_log
from garrison.launch.engine_log import EngineLog


def fed(directory: Path, *pieces: bytes) -> tuple[list[str], bytes]:
    """The lines that were seen, and the file."""
    lines: list[str] = []
    log = EngineLog(directory / "x.log", lines.append)
    for piece in pieces:
        log.feed(piece)
    log.close()
    return lines, log.path.read_bytes()


LINES = {
    "whole": ([b"one\ntwo\n"], ["one", "two"]),
    "cut": ([b"o", b"ne\nt", b"wo", b"\n"], ["one", "two"]),
    "cut in a character": (["grün\n".encode()[:3], "grün\n".encode()[3:]], ["grün"]),
    "cut between CR and LF": ([b"one\r", b"\ntwo\n"], ["one", "two"]),
    "no newline at the end": ([b"one\ntwo"], ["one", "two"]),
    "progress bar": ([b"0%\r50%\r100%\n"], ["0%", "50%", "100%"]),
    "blank lines": ([b"\n\n  \none\n\n"], ["one"]),
    "leading blanks stay": ([b"   one  \n"], ["   one"]),
    "colours": ([b"\x1b[1;31mred\x1b[0m and \x1b[32mgreen\x1b[m\n"], ["red and green"]),
    "cursor moves": ([b"\x1b[2K\x1b[1Aone\x1b[?25h\n"], ["one"]),
    "window title": ([b"\x1b]0;title\x07one\n"], ["one"]),
    "colour cut": ([b"\x1b[3", b"1mred\n"], ["red"]),
    "not UTF-8": ([b"a\xffb\n"], ["a�b"]),
    "nothing": ([b""], []),
}


@pytest.mark.parametrize(("pieces", "lines"), LINES.values(), ids=LINES)
def test_lines(tmp_path: Path, pieces: list[bytes], lines: list[str]) -> None:
    seen, content = fed(tmp_path, *pieces)
    assert seen == lines
    assert content == b"".join(pieces)


@settings(max_examples=50)
@given(data=st.data(), text=st.text(st.characters(codec="utf-8"), max_size=60))
def test_where_it_is_cut_makes_no_difference(tmp_path_factory: Any, data: st.DataObject, text: str) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=4)))
    pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    directory = tmp_path_factory.mktemp("log")
    assert fed(directory, *pieces) == fed(directory, raw)


def test_a_line_without_an_end_is_given_out_in_parts(tmp_path: Path) -> None:
    lines: list[str] = []
    log = EngineLog(tmp_path / "x.log", lines.append)
    for _ in range(40):
        log.feed(b"x" * 10_000)
    assert lines
    assert all(len(line) <= 80_000 for line in lines)
    log.close()
    assert sum(map(len, lines)) == 400_000


def test_the_tail_is_bounded(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "x.log")
    log.feed(b"".join(b"%d\n" % number for number in range(1000)))
    log.close()
    assert list(log.tail) == [str(number) for number in range(1000 - LOG_LINES, 1000)]


def test_mode_and_directory(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "logs" / "x.log")
    assert log.path.stat().st_mode & 0o777 == 0o600
    log.close()


def test_an_old_log_of_another_mode_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    path.write_text("old")
    path.chmod(0o644)
    _, content = fed(tmp_path, b"new\n")
    assert (content, path.stat().st_mode & 0o777) == (b"new\n", 0o600)


def test_the_log_of_the_engine_before_is_kept(tmp_path: Path) -> None:
    for words in (b"first\n", b"second\n", b""):
        fed(tmp_path, words)
    assert (tmp_path / "x.log.1").read_bytes() == b"second\n"
    fed(tmp_path, b"")
    assert (tmp_path / "x.log.1").read_bytes() == b"second\n"


def test_a_symlink_in_its_place_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    (tmp_path / "x.log").symlink_to(victim)
    fed(tmp_path, b"new\n")
    assert victim.read_text() == "untouched"


def test_rotation_bounds_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_log, "_MAX_FILE_BYTES", 1000)
    log = EngineLog(tmp_path / "x.log")
    for number in range(1000):
        log.feed(b"%09d\n" % number)
        assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1000
    log.close()
    assert {file.name for file in tmp_path.iterdir()} == {"x.log", "x.log.1"}
    kept = (tmp_path / "x.log.1").read_bytes() + log.path.read_bytes()
    assert kept.endswith(b"000000998\n000000999\n")
    assert len(kept) > 500
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


def test_a_full_disk_stops_the_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    log = EngineLog(tmp_path / "x.log", seen.append)
    log.feed(b"one\n")
    assert log._file is not None
    log._file.close()
    log._file = open("/dev/full", "ab", buffering=0)  # noqa: SIM115 - the log closes it
    log.feed(b"two\n")
    log.feed(b"three\n")
    log.close()
    assert seen == list(log.tail) == ["one", "two", "three"]


def test_a_directory_that_goes_away_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_log, "_MAX_FILE_BYTES", 20)
    log = EngineLog(tmp_path / "logs" / "x.log")
    log.path.unlink()
    log.path.parent.rmdir()
    for _ in range(10):
        log.feed(b"line\n")
    log.close()
    assert len(log.tail) == 10


@pytest.mark.parametrize("name", ["file/x.log", "directory"], ids=["no directory", "a directory in its place"])
def test_a_log_that_cannot_be_made_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    with pytest.raises(InvalidError, match="cannot be written"):
        EngineLog(tmp_path / name)


def test_close_twice(tmp_path: Path) -> None:
    log = EngineLog(tmp_path / "x.log")
    log.close()
    log.close()


@pytest.mark.timeout(10)
def test_titles_that_never_end(tmp_path: Path) -> None:
    lines, _ = fed(tmp_path, *[b"\x1b]" * 32_000 + b"\n"] * 20)
    assert len(lines) == 20


def test_a_secret_in_two_pieces_is_neither_in_the_file_nor_in_the_lines(tmp_path: Path) -> None:
    know_secret("s3cr3t-of-the-engine")
    pieces = [
        b"INFO key s3cr3t-of",
        b"-the-engine\nargs: {'api_key': ['oth",
        b"er-key']}\n",
        b"last s3cr3t-of-",
        b"the-engine",
    ]
    lines, content = fed(tmp_path, *pieces)
    assert lines == ["INFO key ***", "args: {'api_key': ['***']}", "last ***"]
    assert content == b"INFO key ***\nargs: {'api_key': ['***']}\nlast ***"


def test_a_secret_with_colours_in_it_is_neither_in_the_file_nor_in_the_lines(tmp_path: Path) -> None:
    know_secret("s3cr3t-of-the-engine")
    lines, content = fed(tmp_path, b"key s3cr3t-\x1b[1;36mof\x1b[0m-the-eng", b"\x1b[2mine\x1b[0m\n")
    assert lines == ["key ***"]
    assert content == b"key ***\n"


def test_a_log_in_use_is_left_alone(tmp_path: Path) -> None:
    """Neither is it set aside nor written to; the name is free again when its engine has ended."""
    first = EngineLog(tmp_path / "x.log")
    first.feed(b"first\n")
    second = EngineLog(tmp_path / "x.log")
    assert second.path == tmp_path / "x.2.log"
    second.begin()
    second.feed(b"second\n")
    first.feed(b"more\n")
    assert (tmp_path / "x.log").read_bytes() == b"first\nmore\n"
    assert (tmp_path / "x.2.log").read_bytes() == b"second\n"
    third = EngineLog(tmp_path / "x.log")
    assert third.path == tmp_path / "x.3.log"
    first.close()
    fourth = EngineLog(tmp_path / "x.log")
    assert fourth.path == tmp_path / "x.log"
    for log in (second, third, fourth):
        log.close()


def test_a_log_that_is_only_opened_changes_nothing(tmp_path: Path) -> None:
    """A start that comes to nothing does not rotate away what the engine before had to say."""
    fed(tmp_path, b"first\n")
    EngineLog(tmp_path / "x.log").close()
    assert {path.name for path in tmp_path.iterdir()} == {"x.log"}
    assert (tmp_path / "x.log").read_bytes() == b"first\n"


def test_a_note_of_our_own_is_in_the_file_alone(tmp_path: Path) -> None:
    seen: list[str] = []
    log = EngineLog(tmp_path / "x.log", seen.append)
    log.feed(b"one\n")
    log.note("stopped by pid 7")
    log.close()
    assert log.path.read_bytes() == b"one\ngarrison: stopped by pid 7\n"
    assert seen == list(log.tail) == ["one"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_is_said_before_an_engine_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    fed(tmp_path, b"first\n")
    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DiskFullError):
        EngineLog(tmp_path / "x.log")
    assert (tmp_path / "x.log").read_bytes() == b"first\n"


def test_a_file_system_that_cannot_reserve_room_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refused)
    assert fed(tmp_path, b"one\n")[1] == b"one\n"


@pytest.mark.parametrize("taken", [False, True])
def test_a_log_that_was_removed_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    """By somebody who frees some space; another engine may have its name by then."""
    monkeypatch.setattr(engine_log, "_MAX_FILE_BYTES", 2000)
    log = EngineLog(tmp_path / "x.log")
    log.feed(b"before\n" * 100)
    log.path.unlink()
    other = EngineLog(tmp_path / "x.log") if taken else None
    if other is not None:
        other.feed(b"other\n")
    for _ in range(60):
        log.feed(b"after\n")
    log.close()
    assert log.path == tmp_path / ("x.2.log" if taken else "x.log")
    assert log.path.read_bytes().endswith(b"after\n")
    assert not (tmp_path / "x.log.1").exists()
    if other is not None:
        other.close()
        assert (tmp_path / "x.log").read_bytes() == b"other\n"
