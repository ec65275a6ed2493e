"""Importing what a stranger made: no link is followed out of it, nothing blocks, and no copy is more readable."""

import os
import shutil
import stat
import tarfile
from pathlib import Path

import pytest
from foreign_trees import SECRET, only_ours

from garrison.base import openat2
from garrison.base.errors import GarrisonError, InvalidError, ModelInvalidError
from garrison.models import ingest
from garrison.models.adapters.library import import_adapter
from garrison.models.files import copying
from garrison.models.layout import Layout
from garrison.models.library import import_model, list_models, verify_model
from garrison.models.validate import list_files

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs files of another user")


@pytest.fixture
def layout(public_path):
    return Layout(root=public_path / "models", data_dir=public_path / "data")


@pytest.fixture
def secret(public_path):
    return only_ours(public_path / "secret")


@pytest.fixture(params=["openat2", "by hand"])
def way(request, monkeypatch):
    if request.param == "by hand":
        monkeypatch.setattr(openat2, "supported", lambda: False)


@pytest.fixture(params=["model", "adapter"])
def kind(request):
    return request.param


@pytest.fixture
def theirs(public_path, make, unprivileged, kind):
    """A whole model or adapter that a stranger made, in a directory of theirs."""
    (public_path / "theirs").mkdir()
    (public_path / "theirs").chmod(0o777)
    with unprivileged():
        return (make.model if kind == "model" else make.adapter)(public_path / "theirs" / "tiny")


@pytest.fixture
def bring(layout, kind):
    """Import it into the library; where it is then."""

    def call(origin, **options):
        if kind == "model":
            return import_model(layout, origin, **options).path
        return import_adapter(layout, origin, **options).info.path

    return call


def weights(kind):
    return "model.safetensors" if kind == "model" else "adapter_model.safetensors"


def everything(layout):
    """The content of every file in the library, whatever its name."""
    roots = (layout.root, layout.data_dir)
    return [path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()]


LINKS = {
    "a file": ("chat_template.jinja", "{secret}"),
    "the real thing": ("chat_template.jinja", "/etc/shadow"),
    "a directory": ("extra", "/etc"),
    "a process": ("x", "/proc/self/environ"),
    "a relative one": ("notes.txt", "../../secret"),
    "an endless one": ("tokenizer.model", "/dev/zero"),
    "one to nothing": ("later.txt", "/nowhere/yet"),
}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(("name", "target"), LINKS.values(), ids=LINKS)
def test_a_link_that_leads_out_is_refused_by_name(layout, theirs, bring, secret, unprivileged, name, target):
    target = target.format(secret=secret)
    with unprivileged():
        (theirs / name).symlink_to(target)
    with pytest.raises(ModelInvalidError) as caught:
        bring(theirs)
    assert f"{theirs / name} is a link to {target}, which leads out of {theirs}" in caught.value.message
    assert "cp -rL" in caught.value.hint
    assert not any(SECRET in content for content in everything(layout))
    assert list_models(layout) == []


@pytest.mark.usefixtures("way")
def test_weights_that_are_a_link_out(layout, theirs, bring, kind, secret, unprivileged):
    with unprivileged():
        (theirs / weights(kind)).unlink()
        (theirs / weights(kind)).symlink_to(secret)
    with pytest.raises(ModelInvalidError, match="leads out"):
        bring(theirs)
    assert not any(SECRET in content for content in everything(layout))


@pytest.mark.usefixtures("way")
def test_links_that_stay_inside_become_files(theirs, bring, kind, unprivileged):
    with unprivileged():
        (theirs / "again").mkdir()
        (theirs / weights(kind)).rename(theirs / "again" / "w")
        (theirs / weights(kind)).symlink_to("again/w")
        (theirs / "directory").symlink_to("again")
    path = bring(theirs)
    assert not any(one.is_symlink() for one in path.rglob("*"))
    assert (path / weights(kind)).read_bytes() == (theirs / "again" / "w").read_bytes()
    assert (path / "directory" / "w").exists() == (kind == "model")  # an adapter is its own files alone


def test_hidden_names_are_not_looked_at(theirs, bring, secret, unprivileged):
    with unprivileged():
        (theirs / ".cache").symlink_to(secret)
    assert not (bring(theirs) / ".cache").exists()


@pytest.mark.timeout(20)
@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("name", ["weights", "extra.txt", ".garrison-model.json", ".garrison.sha256"])
def test_a_pipe_blocks_nobody(theirs, bring, kind, unprivileged, name):
    name = weights(kind) if name == "weights" else name
    with unprivileged():
        (theirs / name).unlink(missing_ok=True)
        os.mkfifo(theirs / name)
    if name == weights(kind):
        with pytest.raises(ModelInvalidError):
            bring(theirs)
    else:
        assert not (bring(theirs) / name).is_fifo()


def test_a_record_that_is_a_link_is_not_read(theirs, bring, secret, unprivileged, kind):
    with unprivileged():
        (theirs / ".garrison-model.json").symlink_to(secret)
    assert bring(theirs).name == "tiny"


def test_the_origin_itself_may_be_a_link(public_path, theirs, bring, kind):
    (public_path / "short").symlink_to(theirs)
    assert (bring(public_path / "short") / weights(kind)).is_file()


def test_a_file_that_becomes_a_link_before_it_is_copied(layout, theirs, bring, kind, secret, monkeypatch):
    real = copying.copy_files

    def swap_then_copy(*arguments, **options):
        (theirs / weights(kind)).unlink()
        (theirs / weights(kind)).symlink_to(secret)
        return real(*arguments, **options)

    monkeypatch.setattr(ingest, "copy_files", swap_then_copy)
    with pytest.raises(ModelInvalidError, match="leads out"):
        bring(theirs)
    assert not any(SECRET in content for content in everything(layout))


def test_what_is_installed_is_checked_once_it_is_ours(layout, theirs, bring, kind, monkeypatch):
    """The check of the origin says nothing of what is copied a moment later."""
    real = copying.copy_files

    def cut_then_copy(*arguments, **options):
        os.truncate(theirs / weights(kind), 100)
        return real(*arguments, **options)

    monkeypatch.setattr(ingest, "copy_files", cut_then_copy)
    with pytest.raises(ModelInvalidError, match="truncated"):
        bring(theirs)
    assert list_models(layout) == []


def test_a_file_that_grows_is_copied_as_long_as_it_was(theirs, bring, monkeypatch):
    (theirs / "README.md").write_bytes(b"x" * 1000)
    real = os.copy_file_range

    def grow_then_copy(read, write, count):
        with open(theirs / "README.md", "ab") as file:
            file.write(b"y" * 100)
        return real(read, write, count)

    monkeypatch.setattr(copying, "_shares", lambda read, write: False)
    monkeypatch.setattr(os, "copy_file_range", grow_then_copy)
    assert (bring(theirs) / "README.md").stat().st_size <= 1000 + 100 * 4


# --- who may read the copy

MODES = {
    "everybody's": (0o755, 0o644, 0o755, 0o644),
    "read-only": (0o755, 0o444, 0o755, 0o444),
    "the owner's": (0o755, 0o600, 0o755, 0o600),
    "in a directory of the owner's": (0o700, 0o644, 0o700, 0o600),
    "setuid, setgid and writable": (0o6755, 0o6777, 0o755, 0o644),
}


def mode(path):
    return oct(stat.S_IMODE(path.stat().st_mode))


@pytest.mark.parametrize(("directory", "file", "copied_directory", "copy"), MODES.values(), ids=MODES)
def test_no_copy_is_more_readable(theirs, bring, kind, directory, file, copied_directory, copy):
    (theirs / weights(kind)).chmod(file)
    theirs.chmod(directory)
    path = bring(theirs)
    assert (mode(path), mode(path / weights(kind))) == (oct(copied_directory), oct(copy))


def test_the_umask_counts_too(theirs, bring, kind):
    before = os.umask(0o077)
    try:
        path = bring(theirs)
    finally:
        os.umask(before)
    assert (mode(path), mode(path / weights(kind))) == ("0o700", "0o600")


def test_directories_above_and_below_count(public_path, make, layout):
    (public_path / "home").mkdir(mode=0o700)
    origin = make.model(public_path / "home" / "tiny")
    (origin / "private").mkdir(mode=0o700)
    (origin / "private" / "notes.txt").touch()
    path = import_model(layout, origin).path
    assert [mode(one) for one in (path, path / "config.json", path / "private")] == ["0o700", "0o600", "0o700"]


def test_a_public_link_to_a_private_directory(theirs, bring, unprivileged):
    with unprivileged():
        (theirs / "private").mkdir(mode=0o700)
        (theirs / "private" / "notes.txt").touch()
        (theirs / "README.md").symlink_to("private/notes.txt")
    assert mode(bring(theirs) / "README.md") == "0o600"


@as_root
def test_another_group_reads_what_everybody_may(theirs, bring, kind):
    os.chown(theirs / weights(kind), -1, 65534)
    (theirs / weights(kind)).chmod(0o640)
    assert mode(bring(theirs) / weights(kind)) == "0o600"


@pytest.mark.parametrize(("packed", "unpacked"), [(0o644, ("0o755", "0o644")), (0o600, ("0o700", "0o644"))])
def test_files_of_a_tar_are_as_readable_as_the_tar(public_path, layout, make, packed, unpacked):
    """Whatever modes its members claim; a directory that nobody can enter hides them."""
    origin = make.model(public_path / "tiny")
    (origin / "model.safetensors").chmod(0o6777)
    with tarfile.open(public_path / "packed.tar", "w") as archive:
        archive.add(origin, "tiny")
    (public_path / "packed.tar").chmod(packed)
    path = import_model(layout, public_path / "packed.tar").path
    assert (mode(path), mode(path / "model.safetensors")) == unpacked


@pytest.mark.timeout(20)
def test_an_archive_that_is_a_pipe(public_path, layout):
    os.mkfifo(public_path / "m.tar")
    with pytest.raises(GarrisonError):
        import_model(layout, public_path / "m.tar")


# --- moves


def test_a_move_keeps_what_nobody_could_reach_unreachable(public_path, layout, make):
    (public_path / "home").mkdir(mode=0o700)
    origin = make.model(public_path / "home" / "tiny")
    assert mode(import_model(layout, origin, move=True).path) == "0o700"


@as_root
def test_what_a_stranger_owns_is_copied_and_not_moved(theirs, bring, kind):
    inode = (theirs / weights(kind)).stat().st_ino
    path = bring(theirs, move=True)
    found = (path / weights(kind)).stat()
    assert found.st_uid == os.geteuid()
    assert found.st_ino != inode
    assert not theirs.exists()


@pytest.mark.parametrize("share", ["hard link", "writable file", "writable directory", "writable parent"])
def test_what_others_can_write_is_copied_and_not_moved(public_path, layout, make, share):
    origin = make.model(public_path / "tiny")
    if share == "hard link":
        os.link(origin / "model.safetensors", public_path / "another name")
    else:
        changed = {"file": origin / "model.safetensors", "directory": origin, "parent": public_path}
        changed[share.removeprefix("writable ")].chmod(0o777)
    inode = origin.stat().st_ino
    path = import_model(layout, origin, move=True).path
    found = (path / "model.safetensors").stat()
    assert (found.st_nlink, found.st_mode & 0o022) == (1, 0)
    assert path.stat().st_ino != inode
    assert not origin.exists()


def test_removing_a_moved_origin_goes_through_no_link(public_path, layout, make, monkeypatch):
    origin = make.model(public_path / "tiny")
    (origin / "sub").mkdir()
    (origin / "sub" / "notes.txt").touch()
    mine = public_path / "mine"
    mine.mkdir()
    (mine / "notes.txt").write_text("mine")
    monkeypatch.setattr(ingest, "_can_rename", lambda origin, staging: False)
    real = ingest.record_digests

    def swap(*arguments, **options):
        shutil.rmtree(origin / "sub")
        (origin / "sub").symlink_to(mine)
        return real(*arguments, **options)

    monkeypatch.setattr(ingest, "record_digests", swap)
    with pytest.raises(InvalidError, match="was imported and could not be removed"):
        import_model(layout, origin, move=True)
    assert (mine / "notes.txt").read_text() == "mine"


# --- bounds, and what stays as it is


def test_links_that_branch_end(tmp_path, monkeypatch):
    """Ten links to the next directory in each of seven would be ten million files."""
    for level in range(7):
        (tmp_path / "m" / f"level-{level}").mkdir(parents=True)
        (tmp_path / "m" / f"level-{level}" / "file").touch()
        for number in range(10 if level else 0):
            (tmp_path / "m" / f"level-{level - 1}" / f"link-{number}").symlink_to(f"../level-{level}")
    monkeypatch.setattr("garrison.models.validate._MAX_FILES", 1000)
    with pytest.raises(ModelInvalidError, match="more than 1000 files"):
        list_files(tmp_path / "m")


@pytest.mark.parametrize(
    ("links", "extra"),
    [
        ({"again": "."}, set()),
        ({"again": ".", "once-more": "."}, set()),
        ({"sub/up": ".."}, {"sub/notes.txt"}),
        ({"sub/here": ".", "sub/up": "../sub"}, {"sub/notes.txt"}),
        ({"sub/other": "../other", "other/sub": "../sub"}, {"sub/notes.txt", "other/sub/notes.txt"}),
        ({"sub/again": ".", "other": "sub"}, {"sub/notes.txt", "other/notes.txt"}),
    ],
    ids=["to-itself", "twice", "to-its-parent", "below", "to-each-other", "a-link-beside-a-loop"],
)
def test_a_loop_of_links_is_copied_once(theirs, bring, way, kind, links, extra):
    """Two links to the directory itself once made 255 copies of the weights."""
    plain = set(list_files(theirs))
    for link in links:
        (theirs / link).parent.mkdir(exist_ok=True)
    if extra:
        (theirs / "sub").mkdir(exist_ok=True)
        (theirs / "sub" / "notes.txt").write_text("notes")
    for link, to in links.items():
        (theirs / link).symlink_to(to)
    copied = set(list_files(bring(theirs)))
    assert copied == (plain | extra if kind == "model" else plain)  # an adapter has no directories
    assert set(list_files(theirs)) == plain | extra, "without a tree held open the listing is the same"


def test_a_model_that_its_owner_serves_in_place_may_hold_links(layout, public_path, make):
    """Nothing is copied of it: where its files lie was its owner's choice."""
    real = make.model(public_path / "big-disk")
    place = layout.root / "linked"
    place.mkdir(parents=True)
    for file in real.iterdir():
        (place / file.name).symlink_to(file)
    (entry,) = list_models(layout)
    assert entry.valid
    assert verify_model(layout, "linked").ok


def test_a_hint_for_links_of_ones_own(layout, public_path, make):
    real = make.model(public_path / "big-disk")
    origin = public_path / "linked"
    origin.mkdir()
    for file in real.iterdir():
        (origin / file.name).symlink_to(file)
    with pytest.raises(ModelInvalidError) as caught:
        import_model(layout, origin)
    assert "serve it" in caught.value.hint
    shutil.copytree(origin, public_path / "copied", symlinks=False)
    assert import_model(layout, Path(public_path / "copied")).path.is_dir()
