import os
import threading

import pytest
from aged_files import aged
from foreign_trees import hub_snapshot

from garrison.base.clock import SystemClock
from garrison.fleet.artifacts import digests as adapter_digests
from garrison.fleet.artifacts.digests import AdapterDigests, read_stamp
from garrison.models.adapters.adapter import adapter_digest
from garrison.testing.clock import FakeClock


class Record:
    """What a database would remember."""

    def __init__(self):
        self.rows = {}

    def content(self, path, stamp):
        found = self.rows.get(path)
        return found[1] if found and found[0] == stamp else None

    def put_content(self, path, stamp, digest):
        self.rows[path] = (stamp, digest)


@pytest.fixture
def reads(monkeypatch):
    """Paths whose files were read, in order."""
    seen = []

    def counting(path, tree=None):
        seen.append(str(path))
        return adapter_digest(path)

    monkeypatch.setattr(adapter_digests, "adapter_digest", counting)
    return seen


def test_files_are_read_once_while_nothing_changes(adapter, reads):
    path = aged(adapter("sql"))
    digests = AdapterDigests()
    assert digests.digest(path) == digests.digest(path) == adapter_digest(adapter("sql"))
    assert reads == [path]


def test_the_record_outlives_the_process(adapter, reads):
    path, record = aged(adapter("sql")), Record()
    first = AdapterDigests(record).digest(path)
    assert AdapterDigests(record).digest(path) == first
    assert reads == [path]


def rewritten(path):
    (path / "adapter_model.safetensors").write_bytes(b"other")


def replaced(path):
    (path / "new").write_bytes(b"other")
    (path / "new").rename(path / "adapter_model.safetensors")


def same_size_same_time(path):
    """As `cp -p` does it: another inode with the old size and time."""
    file = path / "adapter_model.safetensors"
    found = file.stat()
    (path / "new").write_bytes(bytes(found.st_size))
    os.utime(path / "new", ns=(found.st_atime_ns, found.st_mtime_ns))
    (path / "new").rename(file)


def embeddings(path):
    (path / "new_embeddings.safetensors").write_bytes(b"x")


@pytest.mark.parametrize("change", [rewritten, replaced, same_size_same_time, embeddings])
def test_a_change_shows(adapter, change):
    made, record = adapter("sql"), Record()
    path = aged(made)
    before = AdapterDigests(record)
    first = before.digest(path)
    change(made)
    assert before.digest(path) not in (None, first)
    assert AdapterDigests(record).digest(path) not in (None, first)


def test_a_readme_is_no_change(adapter, reads):
    made = adapter("sql")
    path, digests = aged(made), AdapterDigests()
    digests.digest(path)
    (made / "README.md").write_text("new")
    digests.digest(path)
    assert reads == [path]


def test_files_too_young_to_show_a_second_write_are_read_each_time(adapter, reads):
    made = adapter("sql")
    weights = made / "adapter_model.safetensors"
    now = weights.stat().st_mtime_ns
    digests = AdapterDigests(clock=SystemClock())
    first = digests.digest(str(made))
    weights.write_bytes(bytes(weights.stat().st_size))
    os.utime(weights, ns=(now, now))  # two writes within one tick of the file system's clock
    assert digests.digest(str(made)) != first
    assert len(reads) == 2


def test_a_file_that_changes_while_it_is_read_gives_the_later_digest(adapter, monkeypatch):
    made = adapter("sql")
    other = adapter_digest(adapter("other", seed=2))
    content = (adapter("other", seed=2) / "adapter_model.safetensors").read_bytes()

    def slow(path, tree, done=[]):  # noqa: B006 - once
        digest = adapter_digest(path)
        if not done:
            done.append((made / "adapter_model.safetensors").write_bytes(content))
        return digest

    monkeypatch.setattr(adapter_digests, "adapter_digest", slow)
    assert AdapterDigests().digest(aged(made)) == other


def test_a_file_that_never_rests_has_no_digest(adapter, monkeypatch):
    made = adapter("sql")
    path = aged(made)

    def busy(path, tree=None):
        with open(made / "adapter_model.safetensors", "ab") as file:
            file.write(b"x")
        return "half"

    monkeypatch.setattr(adapter_digests, "adapter_digest", busy)
    assert AdapterDigests().digest(path) is None


@pytest.mark.parametrize("path", ["/nowhere/sql", "adapters/sql", "acme/sql", "", "/a\0b", "~/sql"])
def test_what_is_not_here_has_no_digest(path):
    assert AdapterDigests().digest(path) is None


def test_a_relative_path_is_the_servers(adapter, monkeypatch):
    made = adapter("sql")
    monkeypatch.chdir(made.parent)
    assert AdapterDigests().digest("sql") is None


def test_a_hub_cache_of_links(adapter, tmp_path):
    made = adapter("sql")
    assert AdapterDigests().digest(str(hub_snapshot(made, tmp_path))) == adapter_digest(made)


def test_links_that_lead_elsewhere_are_not_followed(adapter, tmp_path):
    made = adapter("sql")
    (tmp_path / "links").mkdir()
    for file in made.iterdir():
        (tmp_path / "links" / file.name).symlink_to(file)
    assert AdapterDigests().digest(str(tmp_path / "links")) is None


def test_many_threads_read_once(adapter, reads):
    path, digests = aged(adapter("sql")), AdapterDigests()
    threads = [threading.Thread(target=digests.digest, args=(path,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [path]


def test_a_stamp_settles(adapter):
    stamp = read_stamp(str(adapter("sql")))
    clock = FakeClock()
    assert stamp.settled(clock.now().timestamp())  # a time far from now, ahead or behind, was no write of this moment
    assert not stamp.settled(stamp.newest + 1)
    assert stamp.settled(stamp.newest + 2)
