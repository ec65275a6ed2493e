import os
import signal
import tarfile

import pytest

from garrison.base.errors import DiskFullError, InvalidError, LockedError, ModelInvalidError, ModelNotFoundError
from garrison.base.locks import file_lock
from garrison.models.layout import Layout, require_inside
from garrison.models.library import (
    find_model,
    import_model,
    list_models,
    remove_model,
    show_model,
    verify_model,
)
from garrison.models.names import parse_model
from garrison.models.record import ModelRecord, read_record, write_record
from garrison.models.request import ResolveRequest
from garrison.models.resolve import resolve
from garrison.models.validate import list_files, validate_model
from garrison.testing.clock import FakeClock
from garrison.testing.progress import MemoryProgress


@pytest.fixture
def layout(tmp_path):
    return Layout(root=tmp_path / "models", data_dir=tmp_path / "data")


def content(path):
    return {name: (path / name).read_bytes() for name in list_files(path)}


def visible(layout):
    """What a listing of the root shows, ours and everybody's."""
    return sorted(name for name in os.listdir(layout.root) if not name.startswith("."))


def leftovers(layout):
    staging = layout.staging_root
    return [path for path in staging.rglob("*") if path.is_file()] if staging.exists() else []


# list


def test_no_root_is_no_models(layout):
    assert list_models(layout) == []


def test_list_shows_what_there_is(layout, make):
    make.model(layout.root / "copied")
    make.model(layout.root / "acme" / "below-an-organisation")
    make.hub_snapshot(layout.hub, "acme/cached", "b" * 40)
    make.gguf(layout.root / "single.gguf")
    make.gguf(layout.root / "in-a-directory" / "q4.gguf")
    (layout.root / ".locks").mkdir()
    make.model(layout.root / ".staging" / "half")
    make.model(layout.root / "copied.bak.20260101T000000.000000Z")
    (layout.root / "an-empty-directory").mkdir()
    (layout.root / "README.md").touch()
    found = {entry.name: entry for entry in list_models(layout)}
    assert sorted(found) == ["acme/below-an-organisation", "acme/cached", "copied", "in-a-directory", "single.gguf"]
    assert all(entry.valid for entry in found.values()), [entry.reason for entry in found.values()]
    assert {name: entry.source for name, entry in found.items() if entry.source != "local"} == {
        "acme/cached": "hf-cache"
    }
    assert found["acme/cached"].revision == "b" * 40
    assert found["copied"].format == "safetensors"
    assert found["single.gguf"].format == "gguf"
    assert found["copied"].bytes == sum(len(data) for data in content(layout.root / "copied").values())


def test_list_says_why_a_model_cannot_be_served(layout, make, cut):
    cut(make.model(layout.root / "cut") / "model.safetensors", 1)
    (make.model(layout.root / "bare") / "config.json").unlink()
    bare, broken = list_models(layout)
    assert not bare.valid
    assert "config.json is missing" in bare.reason
    assert "model.safetensors is truncated" in broken.reason
    assert broken.format == "safetensors"


def test_list_does_not_stumble_over_what_it_may_not_read(public_path, make, unprivileged):
    layout = Layout(root=public_path / "models", data_dir=public_path)
    make.model(layout.root / "open")
    make.model(layout.root / "shut").chmod(0)
    with unprivileged():
        assert [entry.name for entry in list_models(layout)] == ["open"]
    (layout.root / "shut").chmod(0o755)


def test_a_root_that_cannot_be_listed(public_path, unprivileged):
    layout = Layout(root=public_path / "models", data_dir=public_path)
    layout.root.mkdir(mode=0)
    with unprivileged(), pytest.raises(InvalidError, match="cannot be listed"):
        list_models(layout)


# find and show


def test_find_by_name_id_path_and_revision(layout, make):
    path = import_model(layout, make.model(layout.data_dir / "tiny"), model_id="acme/tiny").path
    snapshot = make.hub_snapshot(layout.hub, "acme/cached", "b" * 40)
    assert find_model(layout, "tiny").path == path
    assert find_model(layout, "acme/tiny").path == path
    assert find_model(layout, str(path)).path == path
    assert find_model(layout, "acme/cached@bbbb").path == snapshot


@pytest.mark.parametrize("name", ["acme/mine", "acme/mine@main", "mine", "other/mine"])
def test_find_knows_what_resolve_takes_for_the_model(layout, make, name):
    """A directory that was copied by hand has no organisation on record, so it is the one of every organisation."""
    path = make.model(layout.root / "mine")
    wanted = ResolveRequest(model=parse_model(name), layout=layout, sources=("local",))
    assert resolve(wanted).path == path
    assert find_model(layout, name).path == path
    assert show_model(layout, name).info is not None


def test_another_organisations_model_is_not_found_by_its_name_alone(layout, make):
    import_model(layout, make.model(layout.data_dir / "tiny"), model_id="acme/tiny")
    with pytest.raises(ModelNotFoundError):
        find_model(layout, "other/tiny")


def test_find_by_the_quantization_that_resolve_would_take(layout, make):
    path = make.model(layout.root / "mine--Q4_K_M")
    assert find_model(layout, "acme/mine:q4_k_m").path == path


def test_show_of_a_path_outside(layout, tmp_path, make, cut):
    path = make.model(tmp_path / "elsewhere")
    shown = show_model(layout, str(path))
    assert (shown.entry.path, shown.info.architecture) == (path, "LlamaForCausalLM")
    (path / "config.json").unlink()
    with pytest.raises(ModelInvalidError, match=r"config\.json is missing"):
        show_model(layout, str(path))
    with pytest.raises(ModelNotFoundError):
        remove_model(layout, str(path))


@pytest.mark.parametrize(
    ("first", "second", "recorded"),
    [("tiny", "acme/tiny", "acme/tiny"), ("acme/tiny", "tiny", "acme/tiny"), ("tiny", "tiny", "tiny")],
)
def test_import_under_a_second_name_keeps_the_records_in_agreement(layout, tmp_path, make, first, second, recorded):
    made = make.model(tmp_path / "made")
    import_model(layout, made, model_id=first)
    again = import_model(layout, made, model_id=second)
    assert not again.changed
    assert again.model_id == recorded
    assert [entry.model_id for entry in list_models(layout)] == [recorded]
    for name in (first, second, recorded):
        assert find_model(layout, name).path == again.path
    assert verify_model(layout, second).ok


def test_find_suggests(layout, make):
    make.model(layout.root / "qwen-small")
    with pytest.raises(ModelNotFoundError) as caught:
        find_model(layout, "qwen-smal")
    assert caught.value.hint == "Did you mean qwen-small?"


def test_find_does_not_choose_between_two(layout, make):
    make.hub_snapshot(layout.hub, "acme/cached", "b" * 40)
    again = layout.hub / "models--acme--cached" / "snapshots" / ("c" * 40)
    make.model(again)
    with pytest.raises(InvalidError, match="names 2 models"):
        find_model(layout, "acme/cached")
    assert find_model(layout, "acme/cached@cc").path == again


def test_show(layout, make, cut):
    imported = import_model(layout, make.model(layout.data_dir / "tiny"), model_id="acme/tiny", clock=FakeClock())
    shown = show_model(layout, "tiny")
    assert shown.info.architecture == "LlamaForCausalLM"
    assert shown.record.source == "import"
    assert shown.record.created_at == "2026-01-01T00:00:00+00:00"
    assert shown.digests_recorded
    cut(imported.path / "model.safetensors", 1)
    assert show_model(layout, "tiny").info is None


# import


@pytest.mark.parametrize("shards", [1, 3])
def test_import_of_a_directory(layout, tmp_path, make, shards):
    origin = make.model(tmp_path / "tiny", shards=shards)
    progress = MemoryProgress()
    done = import_model(layout, origin, model_id="acme/tiny", progress=progress)
    assert done.path == layout.root / "tiny"
    assert (done.model_id, done.changed, done.kept) == ("acme/tiny", True, None)
    assert content(done.path) == content(origin)
    assert validate_model(done.path)
    assert read_record(done.path).model_id == "acme/tiny"
    assert progress.bytes == 2 * done.bytes  # copied, then hashed
    assert verify_model(layout, "tiny").ok
    assert leftovers(layout) == []


def test_import_takes_the_directorys_name(layout, tmp_path, make):
    assert import_model(layout, make.model(tmp_path / "tiny")).path == layout.root / "tiny"


def test_import_from_another_library_keeps_the_id(layout, tmp_path, make):
    elsewhere = Layout(root=tmp_path / "elsewhere", data_dir=tmp_path)
    origin = import_model(elsewhere, make.model(tmp_path / "tiny"), model_id="acme/tiny").path
    assert import_model(layout, origin).model_id == "acme/tiny"


def test_import_of_a_hub_snapshot_makes_files_of_its_links(layout, tmp_path, make):
    done = import_model(layout, make.hub_snapshot(tmp_path / "hub", shards=2), model_id="acme/tiny")
    assert not any(path.is_symlink() for path in done.path.rglob("*"))
    assert validate_model(done.path)


def test_import_of_a_gguf(layout, tmp_path, make):
    done = import_model(layout, make.gguf(tmp_path / "tiny-q4.gguf"))
    assert os.listdir(done.path).count("tiny-q4.gguf") == 1
    assert done.path == layout.root / "tiny-q4"


def split_gguf(make, directory, parts=3):
    return [make.gguf(directory / f"q4-{n:05d}-of-{parts:05d}.gguf") for n in range(1, parts + 1)]


@pytest.mark.parametrize("move", [False, True], ids=["copied", "moved"])
def test_import_of_a_split_gguf_brings_all_parts(layout, tmp_path, make, move):
    parts = split_gguf(make, tmp_path / "from")
    make.gguf(tmp_path / "from" / "q8.gguf")
    done = import_model(layout, parts[0], move=move)
    assert done.path == layout.root / "q4"
    assert sorted(path.name for path in done.path.iterdir() if path.name[0] != ".") == [path.name for path in parts]
    left = {path.name for path in (tmp_path / "from").iterdir()}
    assert left == ({"q8.gguf"} if move else {"q8.gguf", *(path.name for path in parts)})


def test_import_of_a_split_gguf_with_a_part_missing(layout, tmp_path, make):
    first, second, _ = split_gguf(make, tmp_path / "from")
    second.unlink()
    with pytest.raises(ModelInvalidError, match=r"q4-00002-of-00003.gguf is missing"):
        import_model(layout, first)
    assert list_models(layout) == []


def test_a_split_gguf_below_the_root_is_one_model(layout, make):
    parts = split_gguf(make, layout.root)
    (entry,) = list_models(layout)
    assert (entry.name, entry.reason) == (parts[0].name, None)
    assert entry.bytes == sum(path.stat().st_size for path in parts)
    remove_model(layout, entry.name)
    assert not any(path.exists() for path in parts)


def test_a_later_part_alone_is_listed_with_the_reason(layout, make):
    make.gguf(layout.root / "q4-00002-of-00003.gguf")
    (entry,) = list_models(layout)
    assert "is part 2 of a model of 3 files" in entry.reason


def test_what_was_noticed_is_told(layout, tmp_path, make):
    path = make.model(tmp_path / "m")
    (path / "pytorch_model.bin").write_bytes(b"x")
    remarks = ("pytorch_model.bin is not loaded: the safetensors files are",)
    assert import_model(layout, path).remarks == remarks
    assert show_model(layout, "m").remarks == remarks


def pack(path, origin):
    with tarfile.open(path, "w:gz") as archive:
        archive.add(origin, origin.name)
    return path


def test_import_of_a_tar(layout, tmp_path, make):
    origin = make.model(tmp_path / "tiny", shards=2)
    done = import_model(layout, pack(tmp_path / "packed.tar.gz", origin))
    assert done.path == layout.root / "packed"
    assert content(done.path) == content(origin)


@pytest.mark.parametrize("packed", [False, True], ids=["directory", "tar"])
def test_import_of_a_broken_model_leaves_nothing(layout, tmp_path, make, cut, packed):
    origin = make.model(tmp_path / "tiny")
    cut(origin / "model.safetensors", 1)
    if packed:
        origin = pack(tmp_path / "tiny.tar.gz", origin)
    with pytest.raises(ModelInvalidError, match=r"model\.safetensors is truncated"):
        import_model(layout, origin)
    assert visible(layout) == []
    assert leftovers(layout) == []


def test_import_of_nothing(layout, tmp_path):
    with pytest.raises(InvalidError, match="does not exist"):
        import_model(layout, tmp_path / "none")


def test_import_of_the_same_again_changes_nothing(layout, tmp_path, make):
    origin = make.model(tmp_path / "tiny")
    first = import_model(layout, origin)
    again = import_model(layout, origin)
    assert (again.changed, again.path) == (False, first.path)
    assert not import_model(layout, pack(tmp_path / "tiny.tar.gz", origin), model_id="tiny").changed


def test_import_over_other_content_must_be_asked_for(layout, tmp_path, make):
    import_model(layout, make.model(tmp_path / "tiny"))
    other = make.model(tmp_path / "other", config=make.config | {"vocab_size": 65})
    with pytest.raises(InvalidError) as caught:
        import_model(layout, other, model_id="tiny")
    assert "--replace" in caught.value.hint
    assert content(layout.root / "tiny") == content(tmp_path / "tiny")
    done = import_model(layout, other, model_id="tiny", replacing=True)
    assert (done.changed, done.kept) == (True, None)
    assert content(done.path) == content(other)
    assert visible(layout) == ["tiny"]
    assert leftovers(layout) == []


def test_other_content_of_the_same_size_is_other_content(layout, tmp_path, make):
    import_model(layout, make.model(tmp_path / "tiny"))
    weights = make.model(tmp_path / "other") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    with pytest.raises(InvalidError, match="with other content"):
        import_model(layout, tmp_path / "other", model_id="tiny")


def test_a_hand_copied_predecessor_is_kept(layout, tmp_path, make):
    (make.model(layout.root / "tiny") / "notes.txt").write_text("mine")
    done = import_model(layout, make.model(tmp_path / "tiny"), replacing=True)
    assert (done.kept / "notes.txt").read_text() == "mine"


def test_a_name_that_another_organisations_model_has(layout, tmp_path, make):
    first = import_model(layout, make.model(tmp_path / "one"), model_id="acme/tiny")
    second = import_model(layout, make.model(tmp_path / "two", shards=2), model_id="umbrella/tiny")
    assert (first.path, second.path) == (layout.root / "tiny", layout.root / "umbrella" / "tiny")
    assert [entry.model_id for entry in list_models(layout)] == ["acme/tiny", "umbrella/tiny"]
    assert import_model(layout, tmp_path / "two", model_id="umbrella/tiny").path == second.path


def test_import_from_the_library_itself(layout, make):
    path = make.model(layout.root / "tiny")
    with pytest.raises(InvalidError, match="already in the library"):
        import_model(layout, path)
    with pytest.raises(InvalidError, match="already in the library"):
        import_model(layout, layout.root, model_id="tiny")


def test_a_full_disk_leaves_nothing(layout, tmp_path, make):
    with pytest.raises(DiskFullError) as caught:
        import_model(layout, make.model(tmp_path / "tiny"), free=lambda _: 0)
    assert int(caught.value.exit_code) == 14
    assert visible(layout) == []
    assert leftovers(layout) == []


def test_a_root_that_cannot_be_written(public_path, make, unprivileged):
    layout = Layout(root=public_path / "models", data_dir=public_path)
    origin = make.model(public_path / "tiny")
    layout.root.mkdir(mode=0o555)
    with unprivileged(), pytest.raises(InvalidError, match="Permission denied"):
        import_model(layout, origin)


def test_a_model_that_another_command_works_on(layout, tmp_path, make):
    with (
        file_lock(layout.lock_path("acme/tiny"), timeout=0, purpose="is resolving acme/tiny"),
        pytest.raises(LockedError),
    ):
        import_model(layout, make.model(tmp_path / "tiny"), model_id="acme/tiny", clock=FakeClock())


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/b/c", "hub", ".staging", "tiny@main", "a/b/c.gguf"])
def test_names_that_cannot_be_used(layout, tmp_path, make, name):
    with pytest.raises(InvalidError):
        import_model(layout, make.model(tmp_path / "tiny"), model_id=name)


def test_move_renames(layout, tmp_path, make):
    origin = make.model(tmp_path / "tiny")
    inode = (origin / "model.safetensors").stat().st_ino
    done = import_model(layout, origin, move=True)
    assert (done.path / "model.safetensors").stat().st_ino == inode
    assert not origin.exists()
    assert verify_model(layout, "tiny").source == ".garrison.sha256"


def test_a_move_to_another_disk_leaves_what_was_not_copied(layout, tmp_path, make, monkeypatch):
    monkeypatch.setattr("garrison.models.ingest._can_rename", lambda origin, staging: False)
    origin = make.model(tmp_path / "tiny")
    (origin / ".git").mkdir()
    (origin / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    import_model(layout, origin, move=True)
    assert [path.name for path in origin.iterdir()] == [".git"]
    assert (origin / ".git" / "HEAD").is_file()


def test_move_of_a_tar_removes_it_afterwards(layout, tmp_path, make):
    path = pack(tmp_path / "tiny.tar.gz", make.model(tmp_path / "tiny"))
    import_model(layout, path, move=True)
    assert not path.exists()


def test_move_of_links_is_refused(layout, tmp_path, make):
    snapshot = make.hub_snapshot(tmp_path / "hub")
    with pytest.raises(InvalidError, match="contains links"):
        import_model(layout, snapshot, model_id="tiny", move=True)
    assert validate_model(snapshot)


def test_a_move_that_fails_leaves_the_origin(layout, tmp_path, make):
    import_model(layout, make.model(tmp_path / "tiny"))
    other = make.model(tmp_path / "other", shards=2)
    with pytest.raises(InvalidError):
        import_model(layout, other, model_id="tiny", move=True)
    assert validate_model(other)


class Interrupted(MemoryProgress):
    """Ctrl-C, or whatever `act` does, at the nth call."""

    def __init__(self, nth, act):
        super().__init__()
        self.left, self.act = nth, act

    def _count(self):
        self.left -= 1
        if self.left == 0:
            self.act()

    def started(self, files, total, done=0, *, doing="downloading"):
        self._count()

    def advanced(self, count):
        self._count()

    def finished(self):
        self._count()


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.parametrize("nth", range(1, 7))
@pytest.mark.parametrize("packed", [False, True], ids=["directory", "tar"])
def test_ctrl_c_leaves_nothing(layout, tmp_path, make, nth, packed):
    origin = make.model(tmp_path / "tiny")
    origin = pack(tmp_path / "tiny.tar.gz", origin) if packed else origin
    with pytest.raises(KeyboardInterrupt):
        import_model(layout, origin, progress=Interrupted(nth, interrupt))
    assert visible(layout) == []
    assert leftovers(layout) == []


@pytest.mark.system
@pytest.mark.parametrize("move", [False, True], ids=["copy", "move"])
@pytest.mark.parametrize("nth", range(1, 5))
def test_kill_9_shows_nothing_and_the_next_import_clears_up(layout, tmp_path, make, nth, move):
    origin = make.model(tmp_path / "tiny", shards=2)
    before = content(origin)
    child = os.fork()
    if child == 0:
        try:
            import_model(layout, origin, move=move, progress=Interrupted(nth, lambda: os.kill(os.getpid(), 9)))
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert visible(layout) == []
    assert content(origin) == before
    assert content(import_model(layout, origin, move=move).path) == before
    assert leftovers(layout) == []


@pytest.mark.parametrize("how", ["directory", "tar", "move"])
@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
def test_digests_recorded_elsewhere_travel_along_and_are_checked(layout, tmp_path, make, how, damaged):
    elsewhere = Layout(root=tmp_path / "elsewhere", data_dir=tmp_path)
    origin = import_model(elsewhere, make.model(tmp_path / "tiny")).path
    if damaged:
        weights = origin / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    if how == "tar":
        origin = pack(tmp_path / "tiny.tar.gz", origin)
    if not damaged:
        import_model(layout, origin, move=how == "move")
        assert verify_model(layout, "tiny").ok
        return
    with pytest.raises(ModelInvalidError, match=r"model\.safetensors does not match \.garrison\.sha256"):
        import_model(layout, origin, move=how == "move")
    assert visible(layout) == []
    assert origin.exists()


# verify


def test_verify_tells_a_changed_bit(layout, tmp_path, make):
    path = import_model(layout, make.model(tmp_path / "tiny")).path
    weights = path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\xff")
    assert [fault.name for fault in verify_model(layout, "tiny").faults] == ["model.safetensors"]


def test_verify_looks_at_the_form_first(layout, make, cut):
    cut(make.model(layout.root / "tiny") / "model.safetensors", 1)
    with pytest.raises(ModelInvalidError, match="truncated"):
        verify_model(layout, "tiny")


def test_verify_of_a_path_outside(layout, tmp_path, make):
    assert verify_model(layout, str(make.model(tmp_path / "elsewhere"))).ok


# remove


def test_remove(layout, tmp_path, make):
    path = import_model(layout, make.model(tmp_path / "tiny"), model_id="acme/tiny").path
    removed = remove_model(layout, "acme/tiny")
    assert removed.path == path
    assert visible(layout) == []
    assert leftovers(layout) == []


def test_remove_of_a_link_removes_the_link(layout, tmp_path, make):
    origin = make.model(tmp_path / "elsewhere")
    layout.root.mkdir()
    (layout.root / "tiny").symlink_to(origin)
    remove_model(layout, "tiny")
    assert visible(layout) == []
    assert validate_model(origin)


def test_remove_from_the_hub_cache_takes_the_blobs_too(layout, make):
    make.hub_snapshot(layout.hub, "acme/cached")
    remove_model(layout, "acme/cached")
    assert os.listdir(layout.hub) == []


def test_remove_of_nothing(layout):
    with pytest.raises(ModelNotFoundError):
        remove_model(layout, "tiny")


@pytest.mark.parametrize("name", ["..", "../elsewhere", "/etc", "", "."])
def test_remove_of_what_is_not_below_the_root(layout, tmp_path, make, name):
    make.model(tmp_path / "elsewhere")
    make.model(layout.root / "tiny")
    with pytest.raises((ModelNotFoundError, InvalidError)):
        remove_model(layout, name)
    assert validate_model(tmp_path / "elsewhere")


def test_require_inside(tmp_path):
    require_inside(tmp_path / "a", tmp_path)
    for path in (tmp_path, tmp_path.parent, tmp_path / ".." / "b", tmp_path / "a" / ".." / ".."):
        with pytest.raises(InvalidError):
            require_inside(path, tmp_path)


def test_remove_waits_for_the_lock(layout, tmp_path, make):
    import_model(layout, make.model(tmp_path / "tiny"), model_id="acme/tiny")
    with (
        file_lock(layout.lock_path("acme/tiny"), timeout=0, purpose="is resolving acme/tiny"),
        pytest.raises(LockedError),
    ):
        remove_model(layout, "tiny", clock=FakeClock())
    assert visible(layout) == ["tiny"]


def test_a_name_that_is_taken_while_files_are_copied_is_not_taken_over(layout, make, tmp_path):
    """Two organisations' models of one name have two locks."""

    def free(_):
        if not (layout.root / "tiny").exists():
            write_record(make.model(layout.root / "tiny", shards=2), ModelRecord("other/tiny", "import", "now"))
        return 1 << 40

    with pytest.raises(InvalidError, match="with other content"):
        import_model(layout, make.model(tmp_path / "tiny"), model_id="acme/tiny", free=free)
    assert read_record(layout.root / "tiny").model_id == "other/tiny"
