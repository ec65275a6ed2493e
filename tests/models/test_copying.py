import os

import pytest

from garrison.base.errors import DiskFullError, InvalidError, ModelInvalidError
from garrison.models.files import copying
from garrison.models.files.copying import copy_files
from garrison.models.files.space import free_bytes, require_space
from garrison.testing.progress import MemoryProgress

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def source(tmp_path):
    (tmp_path / "from" / "d").mkdir(parents=True)
    (tmp_path / "from" / "a").write_bytes(CONTENT)
    (tmp_path / "from" / "d" / "b").write_bytes(b"b")
    (tmp_path / "from" / "link").symlink_to("a")
    (tmp_path / "from" / "empty").touch()
    return tmp_path / "from"


FILES = {"a": len(CONTENT), "d/b": 1, "link": len(CONTENT), "empty": 0}


def check(target):
    assert (target / "a").read_bytes() == (target / "link").read_bytes() == CONTENT
    assert (target / "d" / "b").read_bytes() == b"b"
    assert (target / "empty").read_bytes() == b""
    assert not (target / "link").is_symlink()


def test_contents_arrive_and_links_become_files(source, tmp_path):
    progress = MemoryProgress()
    copy_files(source, tmp_path / "to", FILES, progress=progress)
    check(tmp_path / "to")
    assert progress.transfers == [(4, sum(FILES.values()), 0)]
    assert not progress.open


def test_an_edit_of_the_source_in_place_does_not_reach_the_copy(source, tmp_path):
    copy_files(source, tmp_path / "to", FILES)
    with open(source / "a", "r+b") as handle:
        handle.write(b"edited")
    check(tmp_path / "to")


@pytest.mark.parametrize("errno_name", ["EXDEV", "ENOSYS", "EOPNOTSUPP"])
def test_without_help_from_the_kernel_bytes_are_copied(source, tmp_path, monkeypatch, errno_name):
    def refuse(*_):
        raise OSError(getattr(__import__("errno"), errno_name), "no")

    monkeypatch.setattr(os, "copy_file_range", refuse)
    monkeypatch.setattr(copying.fcntl, "ioctl", refuse)
    progress = MemoryProgress()
    copy_files(source, tmp_path / "to", FILES, progress=progress)
    check(tmp_path / "to")
    assert progress.bytes == sum(FILES.values())


def test_a_kernel_that_copies_nothing_is_not_believed(source, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    monkeypatch.setattr(copying.fcntl, "ioctl", _refuse)
    copy_files(source, tmp_path / "to", FILES)
    check(tmp_path / "to")


def test_blocks_are_shared_where_the_file_system_can(source, tmp_path, monkeypatch):
    cloned = []

    def clone(target, request, origin):
        assert request == 0x40049409
        cloned.append(origin)
        os.write(target, os.pread(origin, 10_000_000, 0))

    monkeypatch.setattr(copying.fcntl, "ioctl", clone)
    progress = MemoryProgress()
    copy_files(source, tmp_path / "to", FILES, progress=progress, free=lambda _: 0)
    check(tmp_path / "to")
    assert len(cloned) == len(FILES)
    assert progress.bytes == sum(FILES.values())


def test_a_full_disk_is_said_before_the_copy(source, tmp_path, monkeypatch):
    monkeypatch.setattr(copying.fcntl, "ioctl", _refuse)
    with pytest.raises(DiskFullError) as caught:
        copy_files(source, tmp_path / "to", FILES, free=lambda _: 1000)
    assert caught.value.details == {
        "needed_bytes": sum(FILES.values()),
        "free_bytes": 1000,
        "reserve_bytes": 64 * 2**20,
        "path": str(tmp_path / "to"),
    }
    assert not any((tmp_path / "to").iterdir())


def test_a_disk_that_fills_up_meanwhile(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(__import__("errno").ENOSPC, "No space left on device")

    monkeypatch.setattr(copying.fcntl, "ioctl", _refuse)
    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(DiskFullError):
        copy_files(source, tmp_path / "to", FILES)


def test_a_source_that_goes_away_is_named(source, tmp_path):
    with pytest.raises(ModelInvalidError, match="gone is missing"):
        copy_files(source, tmp_path / "to", {"a": 1, "gone": 0})


def test_a_target_that_cannot_be_written(source, public_path, unprivileged):
    (public_path / "from").mkdir()
    (public_path / "from" / "a").write_bytes(b"a")
    (public_path / "to").mkdir(mode=0o555)
    with unprivileged(), pytest.raises(InvalidError, match="cannot be written: Permission denied"):
        copy_files(public_path / "from", public_path / "to" / "m", {"a": 1})


def test_free_bytes_of_a_directory_that_is_not_made_yet(tmp_path):
    assert free_bytes(tmp_path / "not" / "yet") > 0


def test_a_little_is_kept_in_reserve(tmp_path):
    with pytest.raises(DiskFullError):
        require_space(tmp_path, 1000, free=lambda _: 1000)
    require_space(tmp_path, 1000, free=lambda _: 1000 + 64 * 1024**2)


def _refuse(*_):
    raise OSError(95, "Operation not supported")
