import errno
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import DiskFullError, FetchError
from garrison.models.sources.staging import Pending, RemoteFile, Staging, plan, write_failed

A = RemoteFile("a.bin", 100, "v1")
B = RemoteFile("sub/b.bin", 50, "v1")
PLENTY = 1 << 40


@pytest.mark.parametrize(
    ("recorded", "present", "pending", "drop"),
    [
        pytest.param({}, {}, [(A, 0)], [], id="nothing there"),
        pytest.param({"a.bin": (100, "v1")}, {"a.bin": 100}, [], [], id="whole"),
        pytest.param({"a.bin": (100, "v1")}, {"a.bin.part": 40}, [(A, 40)], [], id="part of the same version"),
        pytest.param({"a.bin": (100, "v1")}, {"a.bin.part": 100}, [(A, 100)], [], id="whole part"),
        pytest.param({"a.bin": (100, "v1")}, {"a.bin.part": 101}, [(A, 0)], ["a.bin.part"], id="part too long"),
        pytest.param({"a.bin": (100, "v0")}, {"a.bin": 100}, [(A, 0)], ["a.bin"], id="another tag"),
        pytest.param({"a.bin": (99, "v1")}, {"a.bin.part": 9}, [(A, 0)], ["a.bin.part"], id="another size"),
        pytest.param({}, {"a.bin": 100}, [(A, 0)], ["a.bin"], id="version not known"),
        pytest.param({"a.bin": (100, "v1")}, {"a.bin": 90}, [(A, 0)], ["a.bin"], id="wrong size"),
        pytest.param({"a.bin": (100, "v1")}, {"a.bin": 100, "old": 1}, [], ["old"], id="a file that left"),
    ],
)
def test_plan(
    recorded: dict[str, tuple[int, str]],
    present: dict[str, int],
    pending: list[tuple[RemoteFile, int]],
    drop: list[str],
) -> None:
    decided = plan([A], recorded, present)
    assert decided.pending == tuple(Pending(file, offset) for file, offset in pending)
    assert decided.drop == tuple(drop)


def test_without_a_tag_a_part_may_be_of_anything() -> None:
    file = RemoteFile("a.bin", 100, "")
    assert plan([file], {"a.bin": (100, "")}, {"a.bin.part": 40}).pending == (Pending(file, 0),)


@given(st.dictionaries(st.sampled_from(["a.bin", "a.bin.part", "sub/b.bin", "x"]), st.integers(0, 120)))
def test_needed_bytes_never_exceed_the_whole(present: dict[str, int]) -> None:
    decided = plan([A, B], {"a.bin": (100, "v1"), "sub/b.bin": (50, "v1")}, present)
    assert 0 <= decided.needed_bytes <= 150
    assert {item.file for item in decided.pending} <= {A, B}


def test_a_download_from_start_to_end(tmp_path: Path) -> None:
    staging = Staging(tmp_path / ".staging" / "key" / "r2")
    assert staging.prepare([A, B], lambda _: PLENTY) == (Pending(A, 0), Pending(B, 0))
    assert (tmp_path / ".staging").stat().st_mode & 0o777 == 0o700
    staging.part(A).write_bytes(bytes(30))
    staging.part(B).write_bytes(bytes(50))
    staging.finish(B)
    assert Staging(staging.directory).prepare([A, B], lambda _: PLENTY) == (Pending(A, 30),)
    newer = RemoteFile("a.bin", 100, "v2")
    assert staging.prepare([newer, B], lambda _: PLENTY) == (Pending(newer, 0),)
    assert not staging.part(A).exists()


def test_a_damaged_note_of_versions_starts_over(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "s" / "k" / "r2")
    staging.prepare([A], lambda _: PLENTY)
    staging.part(A).write_bytes(bytes(30))
    for damage in ("{", "[]", json.dumps({"a.bin": 1}), json.dumps({"a.bin": ["x", "y"]})):
        (tmp_path / "s" / "k" / "r2.json").write_text(damage)
        assert staging.prepare([A], lambda _: PLENTY) == (Pending(A, 0),)


def test_what_is_there_already_needs_no_room(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "s" / "k" / "r2")
    with pytest.raises(DiskFullError) as caught:
        staging.prepare([A], lambda _: 10)
    assert caught.value.details["needed_bytes"] == 100
    staging.part(A).parent.mkdir(exist_ok=True)
    staging.part(A).write_bytes(bytes(100))
    staging.finish(A)
    assert staging.prepare([A], lambda _: 0) == ()


@pytest.mark.parametrize(
    "name", ["../a", "a/../../b", "/a", "a//b", "a\\b", "a\nb", "./a", "x.part", ".garrison-model.json"]
)
def test_names_that_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(FetchError, match="cannot be stored"):
        Staging(tmp_path / "s" / "k" / "r2").prepare([RemoteFile(name, 1, "")], lambda _: PLENTY)


def test_a_disk_that_fills_up_on_the_way() -> None:
    full = write_failed(Path("/m"), OSError(errno.ENOSPC, "No space left on device"), 100, lambda _: 0)
    assert isinstance(full, DiskFullError)
    other = write_failed(Path("/m"), OSError(errno.EACCES, "Permission denied"), 100, lambda _: 0)
    assert isinstance(other, FetchError)
