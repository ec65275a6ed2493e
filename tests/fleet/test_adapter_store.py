import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from collections import namedtuple
from pathlib import Path

import pytest
from aged_files import aged
from foreign_trees import SECRET, hub_snapshot, only_ours

from garrison.base.errors import DiskFullError, InvalidError, ModelInvalidError
from garrison.fleet.artifacts import entry as adapter_entry
from garrison.fleet.artifacts import store as adapter_store
from garrison.fleet.artifacts.digests import read_stamp
from garrison.fleet.artifacts.entry import fault_of, intact
from garrison.fleet.artifacts.protocol import EntryFault, Staged
from garrison.fleet.artifacts.store import AdapterStore
from garrison.models.adapters.adapter import adapter_digest
from garrison.models.files import copying
from garrison.testing.clock import FakeClock

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def store(tmp_path):
    return AdapterStore(tmp_path / "store", "db1")


@pytest.fixture
def no_reflink(monkeypatch):
    monkeypatch.setattr(copying, "_shares", lambda read, write: False)


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
    entry = store.root / digest
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


def test_an_entry_shares_nothing_with_its_source(store, sql, no_reflink):
    assert store.stage(sql.path, sql.digest).how == "copy"
    for name in ("adapter_config.json", WEIGHTS):
        copied = store.root / sql.digest / name
        assert not copied.samefile(sql.path / name)
        assert copied.stat().st_nlink == (sql.path / name).stat().st_nlink == 1


def test_blocks_are_shared_where_the_file_system_can(store, sql, monkeypatch):
    def share(read, write):
        os.sendfile(write, read, 0, os.fstat(read).st_size)
        return True

    monkeypatch.setattr(copying, "_shares", share)
    assert store.stage(sql.path, sql.digest).how == "reflink"
    assert intact(store.root / sql.digest) is True


def test_links_of_a_hub_cache_are_followed(store, sql, tmp_path):
    store.stage(hub_snapshot(sql.path, tmp_path), sql.digest)
    assert not (store.root / sql.digest / WEIGHTS).is_symlink()
    assert intact(store.root / sql.digest) is True


MODES = {
    "everybody": (0o755, 0o644, 0o755, 0o444),
    "its owner": (0o755, 0o600, 0o755, 0o400),
    "in a directory of its owner": (0o700, 0o644, 0o700, 0o400),
    "in a directory that cannot be listed": (0o711, 0o644, 0o711, 0o444),
    "its owner's group": (0o750, 0o640, 0o750, 0o440),
    "setuid and writable": (0o755, 0o6777, 0o755, 0o444),
}


@pytest.mark.parametrize(("directory", "file", "entry", "copy"), MODES.values(), ids=MODES)
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_an_entry_is_as_readable_as_its_source(public_path, sql, directory, file, entry, copy, umask):
    """Whatever the umask is: the server may be another user."""
    source = Path(shutil.copytree(sql.path, public_path / "sql"))
    (source / WEIGHTS).chmod(file)
    source.chmod(directory)
    store = AdapterStore(public_path / "store", "db1")
    before = os.umask(umask)
    try:
        store.stage(source, sql.digest)
    finally:
        os.umask(before)
    made = store.root / sql.digest
    assert [oct(path.stat().st_mode & 0o7777) for path in (store.root, made, made / WEIGHTS)] == [
        oct(0o755),
        oct(entry),
        oct(copy),
    ]


def test_what_nobody_can_reach_nobody_can_read(public_path, sql):
    """The directories above the source count too."""
    (public_path / "home").mkdir(mode=0o700)
    source = Path(shutil.copytree(sql.path, public_path / "home" / "sql"))
    store = AdapterStore(public_path / "store", "db1")
    store.stage(source, sql.digest)
    assert (store.root / sql.digest / WEIGHTS).stat().st_mode & 0o077 == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another group")
def test_another_group_reads_what_everybody_may(public_path, sql):
    source = Path(shutil.copytree(sql.path, public_path / "sql"))
    os.chown(source / WEIGHTS, -1, 65534)
    (source / WEIGHTS).chmod(0o640)
    store = AdapterStore(public_path / "store", "db1")
    store.stage(source, sql.digest)
    assert (store.root / sql.digest / WEIGHTS).stat().st_mode & 0o077 == 0


def test_a_store_that_everybody_can_write_is_not_used(store, sql):
    store.root.mkdir()
    store.root.chmod(0o777)
    with pytest.raises(InvalidError, match="world-writable"):
        store.stage(sql.path, sql.digest)


def test_no_room_is_said_before_a_byte_is_copied(tmp_path, sql, no_reflink):
    store = AdapterStore(tmp_path / "store", "db1", free=lambda _path: 1000)
    with pytest.raises(DiskFullError, match="needed") as caught:
        store.stage(sql.path, sql.digest)
    assert "garrison adapters gc" in caught.value.hint
    assert names(store) == []
    assert store.leftovers(float("inf")) == []


def test_room_is_for_all_files_together(tmp_path, sql, no_reflink):
    reserve = 64 * 1024 * 1024
    each_alone = (sql.path / WEIGHTS).stat().st_size + reserve + 10
    store = AdapterStore(tmp_path / "store", "db1", free=lambda _path: each_alone)
    with pytest.raises(DiskFullError):
        store.stage(sql.path, sql.digest)


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


def hard_linked(store, made):
    """An entry as earlier versions made it."""
    staged = Path(store.stage(made.path, made.digest).path)
    for name in ("adapter_config.json", WEIGHTS):
        (staged / name).unlink()
        os.link(made.path / name, staged / name)
    manifest = json.loads((staged / ".garrison.json").read_text())
    manifest |= {"how": "hardlink", "stamp": read_stamp(str(staged)).text, "settled": True}
    (staged / ".garrison.json").write_text(json.dumps(manifest))
    return staged


def removed(made, adapter):
    for file in made.path.iterdir():
        file.unlink()


def exchanged(made, adapter):
    (adapter("other", seed=2) / WEIGHTS).rename(made.path / WEIGHTS)


def edited(made, adapter):
    edit_in_place(made)


def truncated(made, adapter):
    os.truncate(made.path / WEIGHTS, 100)


@pytest.mark.parametrize("harm", [removed, exchanged, edited, truncated])
def test_nothing_that_happens_to_the_source_reaches_an_entry(store, sql, adapter, harm):
    store.stage(sql.path, sql.digest)
    harm(sql, adapter)
    assert adapter_digest(store.root / sql.digest) == sql.digest
    assert intact(store.root / sql.digest) is True


def test_a_hard_linked_entry_is_replaced_by_a_copy(store, sql):
    entry = hard_linked(store, sql)
    assert fault_of(entry) is EntryFault.SHARED
    again = store.stage(sql.path, sql.digest)
    assert (again.path, again.how == "there") == (f"{entry}-2", False)
    edit_in_place(sql)
    assert intact(Path(again.path)) is True
    assert fault_of(entry) is EntryFault.CHANGED


@pytest.mark.parametrize("harm", [removed, exchanged])
def test_a_hard_linked_entry_that_still_has_the_content_is_a_source(store, sql, adapter, harm):
    entry = hard_linked(store, sql)
    harm(sql, adapter)
    assert fault_of(entry) is EntryFault.SHARED
    assert store.holds(sql.digest)
    again = store.stage(sql.path, sql.digest)
    assert again.path == f"{entry}-2"
    assert adapter_digest(Path(again.path)) == sql.digest


def test_a_link_that_the_manifest_does_not_tell_of_counts_too(store, sql, tmp_path):
    entry = Path(store.stage(sql.path, sql.digest).path)
    os.link(entry / WEIGHTS, tmp_path / "another name")
    assert fault_of(entry) is EntryFault.SHARED


def test_an_edit_through_a_hard_link_spoils_the_entry_for_good(store, sql, adapter):
    """The content is never served from the spoiled path again, even if it comes back, and no name is used twice."""
    entry = hard_linked(store, sql)
    last = (sql.path / WEIGHTS).read_bytes()[-1:]
    edit_in_place(sql)
    assert fault_of(entry) is EntryFault.CHANGED
    assert not store.holds(sql.digest)
    with pytest.raises(ModelInvalidError, match="no longer"):
        store.stage(sql.path, sql.digest)
    edit_in_place(sql, last)
    assert adapter_digest(sql.path) == sql.digest
    assert fault_of(entry) is EntryFault.CHANGED
    again = store.stage(adapter("same"), sql.digest)
    assert again.path == f"{entry}-2"
    assert store.stage(sql.path, sql.digest).path == again.path


def test_a_path_that_a_server_has_loaded_is_not_given_back(store, sql):
    entry = Path(store.stage(sql.path, sql.digest).path)
    shutil.rmtree(entry)
    assert fault_of(entry) is EntryFault.MISSING
    assert store.stage(sql.path, sql.digest, instead_of=entry).path == f"{entry}-2"


def test_the_name_of_a_spoiled_entry_is_not_used_again_when_it_is_gone(store, sql, adapter):
    entry = hard_linked(store, sql)
    edit_in_place(sql)
    with store.locked():
        store.trash(entry)
    assert names(store) == []
    assert store.stage(adapter("same"), sql.digest).path.endswith("-2")


def test_the_name_of_a_whole_entry_is(store, sql):
    first = store.stage(sql.path, sql.digest)
    with store.locked():
        store.trash(store.root / sql.digest)
    assert store.stage(sql.path, sql.digest).path == first.path


def test_touching_an_entry_costs_one_read_and_no_more(store, sql, monkeypatch):
    store.stage(sql.path, sql.digest)
    aged(store.root / sql.digest)
    reads = []
    monkeypatch.setattr(adapter_entry, "adapter_digest", lambda path: reads.append(path) or adapter_digest(path))
    assert intact(store.root / sql.digest) is True
    assert intact(store.root / sql.digest) is True
    assert len(reads) == 1


# --- a source that a stranger made


OUTWARD = {
    "absolute": lambda secret, home: secret,
    "relative": lambda secret, home: Path("..") / secret.name,
    "through a directory": lambda secret, home: Path("beside") / secret.name,
    "to a process": lambda secret, home: Path("/proc/self/environ"),
    "to nothing": lambda secret, home: Path("/nowhere/at/all"),
}


@pytest.mark.parametrize("target", OUTWARD.values(), ids=OUTWARD)
@pytest.mark.parametrize("kernel", [True, False], ids=["openat2", "by hand"])
def test_a_link_that_leads_out_is_not_followed(public_path, sql, unprivileged, monkeypatch, target, kernel):
    if not kernel:
        monkeypatch.setattr("garrison.base.openat2.supported", lambda: False)
    secret = only_ours(public_path / "secret")
    (public_path / "theirs").mkdir(mode=0o777)
    os.chmod(public_path / "theirs", 0o777)
    with unprivileged():
        source = public_path / "theirs" / "sql"
        source.mkdir()
        (source / "adapter_config.json").write_bytes(b"{}")
        (source / "beside").symlink_to("..")
        (source / WEIGHTS).symlink_to(target(secret, public_path))
    store = AdapterStore(public_path / "store", "db1")
    with pytest.raises(ModelInvalidError, match="leads out"):
        store.stage(source, sql.digest)
    assert names(store) == []
    assert store.leftovers(float("inf")) == []


def test_a_pipe_blocks_nobody(store, sql):
    (sql.path / WEIGHTS).unlink()
    os.mkfifo(sql.path / WEIGHTS)
    with pytest.raises(ModelInvalidError, match="no longer"):
        store.stage(sql.path, sql.digest)


def test_a_file_that_becomes_a_link_between_the_check_and_the_copy(store, sql, public_path, monkeypatch):
    secret = only_ours(public_path / "secret")
    real = adapter_store.file_size

    def size_then_swap(path, tree):
        size = real(path, tree)
        if path.name == WEIGHTS:
            path.unlink()
            path.symlink_to(secret)
        return size

    monkeypatch.setattr(adapter_store, "file_size", size_then_swap)
    with pytest.raises(ModelInvalidError, match="leads out"):
        store.stage(sql.path, sql.digest)
    assert not any(SECRET in file.read_bytes() for file in store.root.rglob("*") if file.is_file())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a file of another user")
def test_a_foreign_file_is_never_linked(store, sql):
    os.chown(sql.path / WEIGHTS, 65534, 65534)
    store.stage(sql.path, sql.digest)
    copied = (store.root / sql.digest / WEIGHTS).stat()
    assert (copied.st_uid, copied.st_nlink) == (os.geteuid(), 1)


# --- entries that were harmed


@pytest.mark.parametrize(
    "harm",
    [
        lambda entry: (entry / WEIGHTS).unlink(),
        lambda entry: (entry / "adapter_config.json").unlink(),
        lambda entry: (entry / "new_embeddings.bin").write_bytes(b"x"),
    ],
    ids=["weights-gone", "config-gone", "file-added"],
)
def test_an_entry_that_somebody_harmed(store, sql, harm, no_reflink):
    store.stage(sql.path, sql.digest)
    harm(store.root / sql.digest)
    assert intact(store.root / sql.digest) is False


def test_without_its_manifest_an_entry_is_read(store, sql):
    store.stage(sql.path, sql.digest)
    (store.root / sql.digest / ".garrison.json").unlink()
    assert intact(store.root / sql.digest) is True


def test_what_is_no_place_in_a_store(store, sql, tmp_path):
    store.stage(sql.path, sql.digest)
    assert intact(sql.path) is None
    assert intact(tmp_path / "elsewhere" / sql.digest) is None
    assert intact(store.root / ("0" * 64)) is False  # a place in the store, and nothing is there


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
    assert {staged.path for staged in results} == {str(store.root / sql.digest)}
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
    from garrison.fleet.artifacts.entry import intact
    from garrison.fleet.artifacts.store import AdapterStore
    from garrison.models.files import copying
    source, root, digest, share = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] == "share"
    def shares(read, write):
        if share:
            os.sendfile(write, read, 0, os.fstat(read).st_size)
        return share
    copying._shares = shares

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
        if call % 3 == 0:
            staged = AdapterStore(store, "db1").stage(source, digest)
            assert intact(Path(staged.path)), call
        call += 5
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
        from garrison.fleet.artifacts.store import AdapterStore
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


def test_entries_know_what_they_would_free_and_when_they_were_used(tmp_path, sql):
    clock = FakeClock()
    store = AdapterStore(tmp_path / "store", "db1", clock=clock)
    store.stage(sql.path, sql.digest)
    (alone,) = store.entries()
    assert alone.bytes > (store.root / sql.digest / WEIGHTS).stat().st_size
    assert alone.used_at == clock.now().timestamp()
    os.link(store.root / sql.digest / WEIGHTS, tmp_path / "another name")
    (linked,) = store.entries()
    assert linked.bytes < 2000  # the weights stay on the disk
    (tmp_path / "another name").unlink()
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
    body = json.loads((store.root / sql.digest / ".garrison.json").read_text())
    assert (body["digest"], body["source"]) == (sql.digest, str(sql.path))
