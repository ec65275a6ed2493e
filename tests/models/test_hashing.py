import hashlib

import pytest

from garrison.base.errors import ModelInvalidError
from garrison.models.files import hashing
from garrison.models.files.hashing import hash_files
from garrison.testing.progress import MemoryProgress


@pytest.mark.parametrize("threads", [None, 1, 4])
def test_digests_are_those_of_the_contents(tmp_path, threads):
    contents = {"empty": b"", "small": b"abc", "d/large": bytes(range(256)) * 20_000}
    (tmp_path / "d").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    progress = MemoryProgress()
    sizes = {name: len(content) for name, content in contents.items()}
    found = hash_files(tmp_path, sizes, threads=threads, progress=progress)
    assert found == {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    assert progress.bytes == sum(sizes.values())
    assert progress.transfers == [(3, sum(sizes.values()), 0)]
    assert not progress.open


def test_git_blobs(tmp_path):
    (tmp_path / "a").write_bytes(b"hello\n")
    assert hash_files(tmp_path, {"a": 6}, git_blobs={"a"}) == {"a": "ce013625030ba8dba906f756967f9e9ca394464a"}


def test_nothing(tmp_path):
    assert hash_files(tmp_path, {}) == {}


def test_a_file_that_goes_away_is_named(tmp_path):
    (tmp_path / "a").touch()
    with pytest.raises(ModelInvalidError, match="gone is missing"):
        hash_files(tmp_path, {"a": 0, "gone": 5})


def test_a_progress_that_is_interrupted_ends_the_work(tmp_path):
    class Interrupted(MemoryProgress):
        def started(self, files, total, done=0, *, doing="downloading"):
            raise KeyboardInterrupt

    (tmp_path / "a").touch()
    with pytest.raises(KeyboardInterrupt):
        hash_files(tmp_path, {"a": 0}, progress=Interrupted())


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("a bug")])
def test_a_progress_that_fails_changes_no_digest(tmp_path, error):
    class Failing(MemoryProgress):
        def advanced(self, count):
            raise error

    (tmp_path / "a").write_bytes(b"abc")
    assert hash_files(tmp_path, {"a": 3}, progress=Failing()) == {"a": hashlib.sha256(b"abc").hexdigest()}


def test_no_digests_are_returned_after_an_unexpected_error(tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError

    (tmp_path / "a").touch()
    monkeypatch.setattr(hashing, "open_file", fail)
    with pytest.raises(MemoryError):
        hash_files(tmp_path, {"a": 0})
