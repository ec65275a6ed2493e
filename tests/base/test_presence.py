from pathlib import Path

import pytest

from garrison.base.presence import absence, exists, is_dir, is_file, is_missing

UNSEEN = "x" * 300
"""Too long for the name of a file: what `Path.exists` raises for, as where this user may not look."""


def test_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    assert [exists(tmp_path), is_dir(tmp_path), is_file(tmp_path), is_missing(tmp_path)] == [True, True, False, False]
    assert [exists(tmp_path / "file"), is_file(tmp_path / "file")] == [True, True]
    assert absence(tmp_path / "file") is absence(tmp_path / "link") is None
    assert [exists(tmp_path / "link"), is_missing(tmp_path / "link")] == [False, True]


@pytest.mark.parametrize("name", ["gone", "file/below"])
def test_what_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / name
    assert [exists(path), is_dir(path), is_file(path), is_missing(path)] == [False, False, False, True]
    assert absence(path) == "does not exist"


def test_what_cannot_be_seen_is_not_missing_for_certain(tmp_path: Path) -> None:
    path = tmp_path / UNSEEN
    with pytest.raises(OSError, match="too long"):
        path.lstat()
    assert [exists(path), is_dir(path), is_file(path), is_missing(path)] == [False, False, False, False]
    assert absence(path) == "cannot be looked at: File name too long"
