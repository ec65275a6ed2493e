import os
from pathlib import Path

import pytest

from garrison.base import files
from garrison.base.files import fsync_tree, write_atomic


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_text_is_written_as_utf8(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", "grün\n")
    assert (tmp_path / "a").read_bytes() == b"gr\xc3\xbcn\n"


@pytest.mark.parametrize("wanted", [0o600, 0o644, 0o640])
def test_mode_is_the_asked_one_whatever_the_umask(tmp_path: Path, wanted: int) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "a", b"x", mode=wanted)
    finally:
        os.umask(before)
    assert mode(tmp_path / "a") == wanted


def test_mode_of_the_old_file_does_not_survive(tmp_path: Path) -> None:
    target = tmp_path / "a"
    target.write_text("old")
    target.chmod(0o666)
    write_atomic(target, "new", mode=0o600)
    assert (mode(target), target.read_text()) == (0o600, "new")


def test_nothing_is_open_to_others_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = os.fsync
    monkeypatch.setattr(files.os, "fsync", lambda fd: (seen.append(os.fstat(fd).st_mode & 0o777), real(fd)))
    write_atomic(tmp_path / "a", b"secret", mode=0o600)
    assert seen[0] == 0o600


def test_a_failing_write_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a"
    target.write_text("old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, "new")
    assert os.listdir(tmp_path) == ["a"]
    assert target.read_text() == "old"


def test_a_target_that_is_a_directory_leaves_no_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "a", "x")
    assert os.listdir(tmp_path) == ["a"]


def test_a_symlink_is_replaced_and_what_it_points_to_is_not_written(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    link = tmp_path / "a"
    link.symlink_to(victim)
    write_atomic(link, "new")
    assert not link.is_symlink()
    assert (link.read_text(), victim.read_text()) == ("new", "untouched")


def test_a_missing_directory_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "a", "x")


def test_file_and_directory_are_flushed_to_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr(files.os, "fsync", lambda fd: flushed.append(os.path.isdir(f"/proc/self/fd/{fd}")))
    write_atomic(tmp_path / "a", "x")
    assert flushed == [False, True]


def test_a_tree_is_flushed_file_by_file_and_directory_by_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "a").touch()
    (tmp_path / "d" / "b").touch()
    (tmp_path / "gone").symlink_to("nowhere")
    flushed: list[str] = []
    monkeypatch.setattr(files.os, "fsync", lambda fd: flushed.append(os.readlink(f"/proc/self/fd/{fd}")))
    fsync_tree(tmp_path)
    assert sorted(flushed) == sorted(
        str(path) for path in (tmp_path, tmp_path / "a", tmp_path / "d", tmp_path / "d" / "b")
    )
