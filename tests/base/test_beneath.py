import errno
import os
import socket
import threading
from pathlib import Path

import pytest

from garrison.base import beneath, openat2
from garrison.base.beneath import IrregularError, OutsideError, Tree, open_regular


@pytest.fixture(params=["openat2", "by hand"], autouse=True)
def way(request, monkeypatch):
    """Both ways of opening a path below a directory must do the same."""
    if request.param == "by hand":
        monkeypatch.setattr(openat2, "supported", lambda: False)
    elif not openat2.supported():
        pytest.skip("this kernel has no openat2, or a sandbox forbids it")
    return request.param


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "deep" / "down").mkdir(parents=True)
    (root / "file").write_bytes(b"file")
    (root / "deep" / "down" / "file").write_bytes(b"deep")
    (tmp_path / "secret").write_bytes(b"secret")
    with Tree(root) as opened:
        yield opened


def read(tree, name):
    with open(tree.open(name), "rb") as handle:
        return handle.read()


def test_files_below(tree):
    assert read(tree, "file") == b"file"
    assert read(tree, "deep/down/file") == b"deep"
    with open(tree.open_path(tree.path / "file"), "rb") as handle:
        assert handle.read() == b"file"


INSIDE = {
    "beside": ("link", "file", b"file"),
    "down": ("link", "deep/down/file", b"deep"),
    "up": ("deep/link", "../file", b"file"),
    "up and down": ("deep/down/link", "../../deep/down/file", b"deep"),
    "with dots and slashes": ("link", ".//deep/./down//file", b"deep"),
}


@pytest.mark.parametrize(("link", "target", "content"), INSIDE.values(), ids=INSIDE)
def test_links_that_stay_inside_are_followed(tree, link, target, content):
    (tree.path / link).symlink_to(target)
    assert read(tree, link) == content
    assert tree.find(link).bytes == len(content)


def test_a_link_to_a_directory_and_a_link_behind_it(tree):
    (tree.path / "directory").symlink_to("deep/down")
    (tree.path / "deep" / "down" / "again").symlink_to("../../file")
    assert read(tree, "directory/file") == b"deep"
    assert read(tree, "directory/again") == b"file"
    assert tree.find("directory").kind == "directory"
    # `..` is that of where the link leads to, as the kernel has it.
    (tree.path / "up").symlink_to("directory/../down/file")
    assert read(tree, "up") == b"deep"


OUTSIDE = {
    "absolute": ("link", "/etc/hostname", "link"),
    "absolute to nothing": ("link", "/nowhere", "link"),
    "absolute and inside": ("link", "{tree}/file", "link"),
    "up": ("link", "../secret", "link"),
    "up and back": ("link", "../tree/file", "link"),
    "far up": ("deep/link", "../../../../../../../../etc/hostname", "deep/link"),
    "magic": ("link", "/proc/self/root/etc/hostname", "link"),
    "in the middle": ("deep/out", "../..", "deep/out"),
}


@pytest.mark.parametrize(("link", "target", "named"), OUTSIDE.values(), ids=OUTSIDE)
def test_links_that_lead_out_are_named_and_not_followed(tree, link, target, named):
    target = target.format(tree=tree.path)
    (tree.path / link).symlink_to(target)
    asked = f"{link}/secret" if link == "deep/out" else link
    for call in (tree.open, tree.find):
        with pytest.raises(OutsideError) as caught:
            call(asked)
        assert (caught.value.link, caught.value.points_to) == (tree.path / named, target)
        assert caught.value.errno == errno.EXDEV


@pytest.mark.parametrize("name", ["../secret", "deep/../../secret", "/etc/hostname"])
def test_names_that_lead_out(tree, name):
    if name.startswith("/"):
        with pytest.raises(ValueError):
            tree.open_path(Path(name))
        return
    with pytest.raises(OutsideError):
        tree.open(name)


def test_a_link_through_another_one_names_the_one_that_leads_out(tree):
    (tree.path / "first").symlink_to("deep/second")
    (tree.path / "deep" / "second").symlink_to("../../secret")
    with pytest.raises(OutsideError) as caught:
        tree.open("first")
    assert caught.value.link == tree.path / "deep" / "second"


def test_links_that_go_in_circles(tree):
    (tree.path / "one").symlink_to("two")
    (tree.path / "two").symlink_to("one")
    assert tree.find("one") is None
    with pytest.raises(OSError) as caught:
        tree.open("one")
    assert caught.value.errno == errno.ELOOP


def test_what_is_not_there(tree):
    (tree.path / "dangling").symlink_to("nothing")
    for name in ("nothing", "dangling", "deep/nothing/file", "file/below"):
        assert tree.find(name) is None
        with pytest.raises(OSError) as caught:
            tree.open(name)
        assert caught.value.errno in (errno.ENOENT, errno.ENOTDIR)
        assert caught.value.filename == str(tree.path / name)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("kind", ["pipe", "socket", "directory", "link to a pipe"])
def test_only_regular_files_are_opened_and_nothing_blocks(tree, kind, monkeypatch):
    monkeypatch.chdir(tree.path)  # the path of a socket is short
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("odd")
    elif kind == "directory":
        os.mkdir("odd")
    else:
        os.mkfifo("pipe")
        Path("odd").symlink_to("pipe")
    name = "pipe" if kind == "pipe" else "odd"
    for call in (lambda: tree.open(name), lambda: open_regular(tree.path / name)):
        with pytest.raises(IrregularError, match="not a regular file"):
            call()
    found = tree.find(name)
    assert found is None if kind != "directory" else found.kind == "directory"


def test_a_listing(tree):
    (tree.path / ".hidden").symlink_to("/etc/shadow")
    (tree.path / "link").symlink_to("deep/down/file")
    (tree.path / "directory").symlink_to("deep")
    (tree.path / "dangling").symlink_to("nothing")
    os.mkfifo(tree.path / "pipe")
    found = {one.name: (one.kind, one.bytes) for one in tree.scan()}
    assert found == {
        "file": ("file", 4),
        "link": ("file", 4),
        "deep": ("directory", 0),
        "directory": ("directory", 0),
    }
    assert [one.name for one in tree.scan("directory/down")] == ["file"]


def test_a_listing_with_a_link_that_leads_out(tree):
    (tree.path / "deep" / "out").symlink_to("/etc")
    with pytest.raises(OutsideError):
        list(tree.scan("deep"))


def test_the_directory_itself_may_be_a_link(tmp_path, tree):
    (tmp_path / "link").symlink_to(tree.path)
    with Tree(tmp_path / "link") as opened:
        assert read(opened, "file") == b"file"
        assert opened.path == tmp_path / "link"


def test_it_stays_the_directory_that_was_opened(tmp_path, tree):
    tree.path.rename(tmp_path / "moved")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_bytes(b"another")
    assert read(tree, "file") == b"file"


@pytest.mark.parametrize("what", ["nothing", "a file"])
def test_what_is_no_directory(tmp_path, what):
    if what == "a file":
        (tmp_path / "there").touch()
    with pytest.raises((FileNotFoundError, NotADirectoryError)):
        Tree(tmp_path / "there")


def test_removing_a_name_goes_through_no_link(tmp_path, tree):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (tree.path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutsideError):
        tree.unlink("out/file")
    tree.unlink("deep/down/file")
    tree.unlink("out")
    assert (tmp_path / "elsewhere" / "file").exists()
    assert not (tree.path / "deep" / "down" / "file").exists()


# --- a hub cache


@pytest.fixture
def snapshot(tmp_path):
    repository = tmp_path / "hub" / "models--acme--tiny"
    (repository / "snapshots" / "abc" / "sub").mkdir(parents=True)
    (repository / "snapshots" / "other").mkdir()
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "blobs" / "0f").write_bytes(b"blob")
    (repository / "refs" / "main").write_bytes(b"abc")
    (repository / "snapshots" / "abc" / "file").symlink_to("../../blobs/0f")
    (repository / "snapshots" / "abc" / "sub" / "file").symlink_to("../../../blobs/0f")
    (repository / "snapshots" / "abc" / "plain").write_bytes(b"plain")
    return repository / "snapshots" / "abc"


def test_blobs_of_a_hub_cache_can_be_reached(snapshot):
    with Tree(snapshot) as tree:
        assert [read(tree, name) for name in ("file", "sub/file", "plain")] == [b"blob", b"blob", b"plain"]
        assert sorted(one.name for one in tree.scan()) == ["file", "plain", "sub"]
    with Tree(snapshot / "sub") as tree:
        assert read(tree, "file") == b"blob"


def test_a_hub_cache_behind_a_link(snapshot, tmp_path):
    (tmp_path / "link").symlink_to(snapshot)
    with Tree(tmp_path / "link") as tree:
        assert read(tree, "file") == b"blob"


@pytest.mark.parametrize(
    "target", ["../../refs/main", "../other", "../../blobs", "../../../elsewhere", "/etc/hostname", "../.."]
)
def test_nothing_else_of_a_hub_cache_can(snapshot, target):
    (snapshot / "out").symlink_to(target)
    (snapshot.parents[2] / "elsewhere").touch()
    with Tree(snapshot) as tree, pytest.raises(OutsideError) as caught:
        tree.find("out")
    assert caught.value.link == snapshot / "out"


def test_a_blob_that_leads_out(snapshot):
    (snapshot.parents[1] / "blobs" / "0e").symlink_to("/etc/hostname")
    (snapshot / "out").symlink_to("../../blobs/0e")
    with Tree(snapshot) as tree, pytest.raises(OutsideError) as caught:
        tree.open("out")
    assert caught.value.points_to == "/etc/hostname"


@pytest.mark.parametrize("place", ["datasets--a--b/snapshots/abc", "models--a--b/abc", "snapshots/abc"])
def test_what_only_looks_like_a_hub_cache(tmp_path, place):
    root = tmp_path / place
    root.mkdir(parents=True)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "0f").touch()
    (root / "file").symlink_to(os.path.relpath(tmp_path / "blobs" / "0f", root))
    with Tree(root) as tree, pytest.raises(OutsideError):
        tree.open("file")


# --- races


@pytest.mark.system
def test_a_file_that_is_swapped_for_a_link_all_the_time(tree, tmp_path):
    """Every open gives the file or fails; none gives the secret."""
    stop = threading.Event()
    swap = tree.path / "swap"

    def work():
        while not stop.is_set():
            swap.symlink_to(tmp_path / "secret")
            swap.rename(tree.path / "file")
            swap.write_bytes(b"file")
            swap.rename(tree.path / "file")

    swapping = threading.Thread(target=work)
    swapping.start()
    seen = []
    try:
        for _ in range(2000):
            try:
                seen.append(read(tree, "file"))
            except OSError as error:
                seen.append(type(error))
    finally:
        stop.set()
        swapping.join()
    assert set(seen) <= {b"file", OutsideError}
    assert OutsideError in seen


def test_no_descriptor_is_left_open(tree):
    (tree.path / "out").symlink_to("/etc/hostname")
    (tree.path / "loop").symlink_to("loop")
    os.mkfifo(tree.path / "pipe")
    tree.find("file")
    before = len(os.listdir("/proc/self/fd"))
    for name in ("out", "loop", "pipe", "nothing", "file/below", "deep", "../secret"):
        with pytest.raises(OSError):
            tree.open(name)
    tree.find("deep/down/file")
    list(tree.scan("deep"))
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_module_can_be_imported_without_ctypes(run):
    """It is on the way of every start of a server."""
    assert "ctypes" not in vars(beneath)
    done = run("-c", "import sys; from garrison.base import beneath; print('ctypes' in sys.modules)")
    assert done.out.strip() == "False", done.err


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EINVAL])
def test_a_kernel_or_sandbox_without_the_call(tree, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.undo()
    openat2.supported.cache_clear()
    monkeypatch.setattr(openat2, "open_beneath", refuse)
    try:
        assert not openat2.supported()
        assert read(tree, "deep/down/file") == b"deep"
    finally:
        openat2.supported.cache_clear()


def test_a_directory_in_which_something_is_renamed_all_the_time(tree, monkeypatch):
    """The kernel gives up then, as it does for `..`; a component at a time still works."""

    def again(*_):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(openat2, "open_beneath", again)
    assert read(tree, "file") == b"file"
