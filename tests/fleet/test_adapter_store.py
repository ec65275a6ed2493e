import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
from aged_files import aged

from garrison.base.clock import FakeClock
from garrison.base.errors import DiskFullError, InvalidError, ModelInvalidError
from garrison.fleet import adapter_entry, adapter_store
from garrison.fleet.adapter_entry import intact
from garrison.fleet.adapter_store import AdapterStore
from garrison.fleet.artifacts import Staged
from garrison.models.adapter import adapter_digest

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "store", "db1")


@pytest.fixture
def no_reflink(monkeypatch):
    monkeypatch.setattr(adapter_store, "clone_file", lambda source, target: False)


@pytest.fixture
def no_link(monkeypatch, no_reflink):
    def refuse(*_args, **_options):
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(adapter_store.os, "link", refuse)


Made = namedtuple("Made", "path digest")


@pytest.fixture
def sql(adapter):
    path = adapter("sql")
    aged(path)
    return Made(path, adapter_digest(path))


def names(store):
    """What can be seen as an entry."""
    return [entry.path.name for entry in store.entries()]


def test_an_entry_holds_what_a_server_reads(store, sql):
    (sql.path / "README.md").write_text("not for servers")
    (sql.path / "new_embeddings.safetensors").write_bytes(b"x")
    digest = adapter_digest(sql.path)
    staged = store.stage(sql.path, digest)
    entry = store.path_of(digest)
    assert staged.path == str(entry)
    visible = {file.name for file in entry.iterdir() if not file.name.startswith(".")}
    assert visible == {"adapter_config.json", WEIGHTS, "new_embeddings.safetensors"}
    assert adapter_digest(entry) == digest
    assert intact(entry) is True


def test_staging_again_finds_it(store, sql):
    first = store.stage(sql.path, sql.digest)
    assert store.stage(sql.path, sql.digest) == Staged(first.path, "there")


def test_the_source_may_be_gone_once_it_is_there(store, sql, tmp_path):
    store.stage(sql.path, sql.digest)
    assert store.stage(tmp_path / "gone", sql.digest).how == "there"


def test_no_second_copy_where_links_can_be(store, sql, no_reflink):
    assert store.stage(sql.path, sql.digest).how == "hardlink"
    assert (store.path_of(sql.digest) / WEIGHTS).samefile(sql.path / WEIGHTS)


def test_links_of_a_hub_cache_are_followed(store, sql, tmp_path, no_reflink):
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in sql.path.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert store.stage(snapshot, sql.digest).how == "hardlink"
    assert not (store.path_of(sql.digest) / WEIGHTS).is_symlink()


def test_a_copy_where_nothing_can_be_shared(store, sql, no_link):
    (sql.path / WEIGHTS).chmod(0o600)
    assert store.stage(sql.path, sql.digest).how == "copy"
    copied = store.path_of(sql.digest) / WEIGHTS
    assert not copied.samefile(sql.path / WEIGHTS)
    assert oct(copied.stat().st_mode & 0o777) == "0o444"


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_another_user_may_read_it(store, sql, no_link, umask):
    before = os.umask(umask)
    try:
        store.stage(sql.path, sql.digest)
    finally:
        os.umask(before)
    for directory in (store.root, store.path_of(sql.digest)):
        assert oct(directory.stat().st_mode & 0o777) == "0o755"


def test_no_room_is_said_before_a_byte_is_copied(tmp_path, sql, no_link):
    store = AdapterStore(tmp_path / "store", "db1", free=lambda _path: 1000)
    with pytest.raises(DiskFullError, match="needed") as caught:
        store.stage(sql.path, sql.digest)
    assert "garrison adapters gc" in caught.value.hint
    assert names(store) == []
    assert store.leftovers(float("inf")) == []


def test_room_is_for_all_files_together(tmp_path, sql, no_link):
    reserve = 64 * 1024 * 1024
    each_alone = (sql.path / WEIGHTS).stat().st_size + reserve + 10
    store = AdapterStore(tmp_path / "store", "db1", free=lambda _path: each_alone)
    with pytest.raises(DiskFullError):
        store.stage(sql.path, sql.digest)


def test_room_is_not_asked_for_a_link(tmp_path, sql, no_reflink):
    store = AdapterStore(tmp_path / "store", "db1", free=lambda _path: 0)
    assert store.stage(sql.path, sql.digest).how == "hardlink"


def test_a_disk_that_fills_up_meanwhile(store, sql, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(adapter_store, "fsync_tree", full)
    with pytest.raises(DiskFullError):
        store.stage(sql.path, sql.digest)
    assert store.leftovers(float("inf")) == []


def test_a_store_that_cannot_be_written(tmp_path, sql):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidError, match="cannot be written") as caught:
        AdapterStore(tmp_path / "file" / "store", "db1").stage(sql.path, sql.digest)
    assert "adapter_store" in caught.value.hint


def test_content_that_changed_since_it_was_read(store, sql):
    (sql.path / WEIGHTS).write_bytes(b"other")
    with pytest.raises(ModelInvalidError, match="no longer"):
        store.stage(sql.path, sql.digest)
    assert names(store) == []


def test_a_source_that_is_gone(store, tmp_path, sql):
    with pytest.raises(ModelInvalidError, match="no longer"):
        store.stage(tmp_path / "gone", sql.digest)


# --- edits of the source


def edit_in_place(made, byte=b"\xff"):
    """As `save_file` over an existing file does it: the inode stays."""
    with open(made.path / WEIGHTS, "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(byte)


def test_removing_the_source_does_no_harm(store, sql, no_reflink):
    store.stage(sql.path, sql.digest)
    for file in sql.path.iterdir():
        file.unlink()
    assert intact(store.path_of(sql.digest)) is True
    assert adapter_digest(store.path_of(sql.digest)) == sql.digest


def test_replacing_the_source_does_no_harm(store, sql, adapter, no_reflink):
    store.stage(sql.path, sql.digest)
    (adapter("other", seed=2) / WEIGHTS).rename(sql.path / WEIGHTS)
    assert intact(store.path_of(sql.digest)) is True


def test_an_edit_in_place_spoils_a_link_and_is_never_loaded_from(store, sql, adapter, no_reflink):
    """The content of the name is never served from the spoiled path, and no name is used twice."""
    store.stage(sql.path, sql.digest)
    edit_in_place(sql)
    assert intact(store.path_of(sql.digest)) is False

    again = store.stage(adapter("same"), sql.digest)  # the old content, from elsewhere
    assert (again.path, again.how) == (f"{store.path_of(sql.digest)}-2", "hardlink")
    assert adapter_digest(Path(again.path)) == sql.digest
    assert intact(Path(again.path)) is True
    assert store.stage(sql.path, sql.digest).path == again.path


def test_new_content_of_a_source_that_is_edited_in_place_is_copied(store, sql, no_reflink):
    store.stage(sql.path, sql.digest)
    edit_in_place(sql)
    second = adapter_digest(sql.path)
    assert store.stage(sql.path, second).how == "copy"
    edit_in_place(sql, b"\xfe")
    assert intact(store.path_of(second)) is True
    third = adapter_digest(sql.path)
    assert store.stage(sql.path, third).how == "copy"


def test_a_spoiled_entry_stays_spoiled_when_the_old_content_comes_back(store, sql, no_reflink):
    store.stage(sql.path, sql.digest)
    last = (sql.path / WEIGHTS).read_bytes()[-1:]
    edit_in_place(sql)
    assert intact(store.path_of(sql.digest)) is False
    edit_in_place(sql, last)
    assert adapter_digest(sql.path) == sql.digest
    assert intact(store.path_of(sql.digest)) is False
    assert store.stage(sql.path, sql.digest).path.endswith("-2")


def test_the_name_of_a_spoiled_entry_is_not_used_again_when_it_is_gone(store, sql, adapter, no_reflink):
    store.stage(sql.path, sql.digest)
    edit_in_place(sql)
    with store.locked():
        store.trash(store.path_of(sql.digest))
    assert names(store) == []
    assert store.stage(adapter("same"), sql.digest).path.endswith("-2")


def test_the_name_of_a_whole_entry_is(store, sql):
    first = store.stage(sql.path, sql.digest)
    with store.locked():
        store.trash(store.path_of(sql.digest))
    assert store.stage(sql.path, sql.digest).path == first.path


def test_touching_the_source_costs_one_read_and_no_more(store, sql, monkeypatch, no_reflink):
    store.stage(sql.path, sql.digest)
    aged(sql.path)
    reads = []
    monkeypatch.setattr(adapter_entry, "adapter_digest", lambda path: reads.append(path) or adapter_digest(path))
    assert intact(store.path_of(sql.digest)) is True
    assert intact(store.path_of(sql.digest)) is True
    assert len(reads) == 1


def test_a_link_to_a_file_too_young_for_its_stamp_is_read_again(store, adapter, no_reflink):
    path = adapter("young")
    digest = adapter_digest(path)
    store.stage(path, digest)
    then = (path / WEIGHTS).stat().st_mtime_ns
    (path / WEIGHTS).write_bytes(bytes((path / WEIGHTS).stat().st_size))
    os.utime(path / WEIGHTS, ns=(then, then))
    assert intact(store.path_of(digest)) is False


@pytest.mark.parametrize(
    "harm",
    [
        lambda entry: (entry / WEIGHTS).unlink(),
        lambda entry: (entry / "adapter_config.json").unlink(),
        lambda entry: (entry / "new_embeddings.bin").write_bytes(b"x"),
    ],
    ids=["weights-gone", "config-gone", "file-added"],
)
def test_an_entry_that_somebody_harmed(store, sql, harm, no_link):
    store.stage(sql.path, sql.digest)
    harm(store.path_of(sql.digest))
    assert intact(store.path_of(sql.digest)) is False


def test_without_its_manifest_an_entry_is_read(store, sql):
    store.stage(sql.path, sql.digest)
    (store.path_of(sql.digest) / ".garrison.json").unlink()
    assert intact(store.path_of(sql.digest)) is True


def test_what_is_no_place_in_a_store(store, sql, tmp_path):
    store.stage(sql.path, sql.digest)
    assert intact(sql.path) is None
    assert intact(tmp_path / "elsewhere" / sql.digest) is None
    assert intact(store.path_of("0" * 64)) is False  # a place in the store, and nothing is there


# --- several at once


def test_threads_that_stage_the_same_share_one_entry(store, sql, no_reflink):
    results, faults = [], []

    def work():
        try:
            results.append(store.stage(sql.path, sql.digest))
        except Exception as error:  # noqa: BLE001 - reported below
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    assert {staged.path for staged in results} == {str(store.path_of(sql.digest))}
    assert sorted(staged.how for staged in results).count("there") == 7


def test_who_comes_second_while_building_takes_what_is_there(store, sql, tmp_path, monkeypatch):
    real = AdapterStore._build

    def overtaken(self, source, digest, temporary):
        if self is store:
            AdapterStore(store.root, "db2").stage(source, digest)
        return real(self, source, digest, temporary)

    monkeypatch.setattr(AdapterStore, "_build", overtaken)
    assert store.stage(sql.path, sql.digest).how == "there"
    assert names(store) == [sql.digest]
    assert store.leftovers(float("inf")) == []
    assert store.owners() == {"db1", "db2"}


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from garrison.fleet import adapter_store
    from garrison.fleet.adapter_entry import intact
    from garrison.fleet.adapter_store import AdapterStore
    source, root, digest, share = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "share"
    if not share:
        adapter_store.clone_file = adapter_store._link = lambda *_: False

    def stage_until(call):
        seen = 0
        def count(frame, event, argument):
            nonlocal seen
            if event == "c_call":
                seen += 1
                if seen == call:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.setprofile(count)
        AdapterStore(store, "db1").stage(source, digest)
        os._exit(0)

    call, killed = 1, 0
    while True:
        store = root / str(call)
        child = os.fork()
        if not child:
            stage_until(call)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            break
        killed += 1
        found = [entry.path for entry in AdapterStore(store, "db1").entries()]
        assert all(intact(path) for path in found), (call, found)
        if call % 7 == 0:
            staged = AdapterStore(store, "db1").stage(source, digest)
            assert intact(Path(staged.path)), call
        call += 2
    assert os.WEXITSTATUS(status) == 0
    print(killed)
"""


@pytest.mark.system
@pytest.mark.parametrize("share", ["share", "copy"])
def test_a_kill_at_any_point_leaves_nothing_or_a_whole_entry(tmp_path, sql, share):
    script = textwrap.dedent(KILLED)
    done = subprocess.run(
        [sys.executable, "-c", script, sql.path, tmp_path / "stores", sql.digest, share],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50


@pytest.mark.system
def test_processes_that_stage_the_same_both_succeed(tmp_path, sql):
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from garrison.fleet.adapter_store import AdapterStore
        print(AdapterStore(Path(sys.argv[2]), sys.argv[4]).stage(Path(sys.argv[1]), sys.argv[3]).path)
    """)
    root = tmp_path / "store"
    arguments = [sys.executable, "-c", script, str(sql.path), str(root), sql.digest]
    running = [subprocess.Popen([*arguments, f"db{n}"], stdout=subprocess.PIPE, text=True) for n in range(3)]
    outputs = [process.communicate(timeout=60)[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert set(outputs) == {str(root / sql.digest)}
    assert AdapterStore(root, "x").owners() == {"db0", "db1", "db2"}


# --- what upkeep asks


def test_entries_know_what_they_would_free_and_when_they_were_used(tmp_path, sql, no_reflink, monkeypatch):
    clock = FakeClock()
    store = AdapterStore(tmp_path / "store", "db1", clock=clock)
    store.stage(sql.path, sql.digest)
    (linked,) = store.entries()
    assert linked.bytes < 2000  # the weights are the source's too
    assert linked.used_at == clock.now().timestamp()
    (sql.path / WEIGHTS).unlink()
    (alone,) = store.entries()
    assert alone.bytes > (store.path_of(sql.digest) / WEIGHTS).stat().st_size
    clock.advance(7200)
    store.stage(sql.path, sql.digest)
    assert store.entries()[0].used_at == clock.now().timestamp()


def test_what_a_kill_left_counts_by_its_age(store, sql):
    store.stage(sql.path, sql.digest)
    half = store.root / ".staging.x"
    half.mkdir()
    (store.root / ".trash.x").mkdir()
    (store.root / "somebody's").mkdir()
    now = time.time()
    assert [path.name for path in store.leftovers(now - 60)] == [".trash.x"]
    assert [path.name for path in store.leftovers(now + 60)] == [".staging.x", ".trash.x"]


def test_a_manifest_says_where_it_came_from(store, sql):
    store.stage(sql.path, sql.digest)
    body = json.loads((store.path_of(sql.digest) / ".garrison.json").read_text())
    assert (body["digest"], body["source"]) == (sql.digest, str(sql.path))
