import gzip
import io
import os
import tarfile
import tracemalloc

import pytest

from garrison.base.errors import DiskFullError, InvalidError, ModelInvalidError
from garrison.models.files.archive import is_archive, member_path, unpack
from garrison.testing.progress import MemoryProgress

GIB = 1024**3


def tar(path, members, mode="w"):
    """`members`: name to content, or to a TarInfo's type and link name."""
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type, info.linkname = content
                archive.addfile(info)
    return path


def fault(path, target):
    with pytest.raises(ModelInvalidError) as caught:
        unpack(path, target)
    assert caught.value.details["file"] == str(path)
    return caught.value.details["reason"]


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")]
)
def test_each_packing(tmp_path, suffix, mode):
    path = tar(tmp_path / f"m.{suffix}", {"config.json": b"{}", "tokenizer/vocab.txt": b"a"}, mode)
    assert is_archive(path)
    progress = MemoryProgress()
    assert unpack(path, tmp_path / "out", progress=progress) == {"config.json": 2, "tokenizer/vocab.txt": 1}
    assert (tmp_path / "out" / "tokenizer" / "vocab.txt").read_bytes() == b"a"
    assert progress.bytes == 3
    assert not progress.open


def test_a_single_directory_at_the_top_is_left_away(tmp_path):
    path = tar(tmp_path / "m.tar", {"./tiny/config.json": b"{}", "./tiny/d/a": b"x"})
    assert unpack(path, tmp_path / "out") == {"config.json": 2, "d/a": 1}
    assert (tmp_path / "out" / "config.json").exists()
    assert sorted(os.listdir(tmp_path)) == ["m.tar", "out"]


def test_what_a_killed_import_left_of_the_top_directory_is_cleared(tmp_path):
    path = tar(tmp_path / "m.tar", {"tiny/config.json": b"{}"})
    (tmp_path / "out.top" / "d").mkdir(parents=True)
    unpack(path, tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["m.tar", "out"]


def test_hidden_files_are_passed_over(tmp_path):
    path = tar(tmp_path / "m.tar", {"tiny/config.json": b"{}", "tiny/._config.json": b"x", "tiny/.git/config": b"x"})
    assert unpack(path, tmp_path / "out") == {"config.json": 2}


def test_modes_and_owners_of_the_archive_do_not_count(tmp_path):
    with tarfile.open(tmp_path / "m.tar", "w") as archive:
        info = tarfile.TarInfo("a")
        info.mode, info.uid = 0o6777, 12345
        archive.addfile(info)
    unpack(tmp_path / "m.tar", tmp_path / "out")
    status = (tmp_path / "out" / "a").stat()
    assert status.st_mode & 0o7111 == 0
    assert status.st_uid == os.getuid()


OUT = {
    "absolute": {"/tmp/evil": b"x"},
    "dot-dot": {"../evil": b"x"},
    "dot-dot within": {"a/../../evil": b"x"},
    "dot-dot directory": {"../evil/": (tarfile.DIRTYPE, "")},
    "backslash": {"..\\evil": b"x"},
}


@pytest.mark.parametrize("members", OUT.values(), ids=OUT)
def test_names_that_lead_out(tmp_path, members):
    assert "leads out of it" in fault(tar(tmp_path / "m.tar", members), tmp_path / "d" / "out")
    assert not (tmp_path / "d" / "evil").exists()


NOT_PLAIN = {
    "symlink out": {"a": (tarfile.SYMTYPE, "/etc/passwd")},
    "symlink, then a file through it": {"a": (tarfile.SYMTYPE, ".."), "a/evil": b"x"},
    "symlink inside": {"b": b"x", "a": (tarfile.SYMTYPE, "b")},
    "hard link": {"b": b"x", "a": (tarfile.LNKTYPE, "b")},
    "character device": {"a": (tarfile.CHRTYPE, "")},
    "block device": {"a": (tarfile.BLKTYPE, "")},
    "pipe": {"a": (tarfile.FIFOTYPE, "")},
    "hidden symlink": {".a": (tarfile.SYMTYPE, "/etc/passwd")},
}


@pytest.mark.parametrize("members", NOT_PLAIN.values(), ids=NOT_PLAIN)
def test_members_that_are_no_plain_files(tmp_path, members):
    reason = fault(tar(tmp_path / "m.tar", members), tmp_path / "d" / "out")
    is_link = any(kind[0] in (tarfile.SYMTYPE, tarfile.LNKTYPE) for kind in members.values() if isinstance(kind, tuple))
    assert ("holds the link" if is_link else "no plain file") in reason
    assert not any(path.is_symlink() for path in (tmp_path / "d").rglob("*"))


def test_a_file_that_is_there_twice(tmp_path):
    with tarfile.open(tmp_path / "m.tar", "w") as archive:
        for _ in range(2):
            archive.addfile(tarfile.TarInfo("a"))
    assert "twice" in fault(tmp_path / "m.tar", tmp_path / "out")


@pytest.mark.parametrize(
    "members", [{"a": b"x", "a/b": b"y"}, {"a/b": b"y", "a": b"x"}], ids=["file-first", "dir-first"]
)
def test_a_name_that_is_both_file_and_directory(tmp_path, members):
    assert "both as a file and as a directory" in fault(tar(tmp_path / "m.tar", members), tmp_path / "out")


def test_no_files(tmp_path):
    assert fault(tar(tmp_path / "m.tar", {}), tmp_path / "out") == "holds no files"


@pytest.mark.parametrize("content", [b"", b"not a tar at all" * 100, b"\x1f\x8bbroken", b"\xfd7zXZ\0broken"])
def test_what_is_no_archive(tmp_path, content):
    path = tmp_path / "m.tar"
    path.write_bytes(content)
    assert "empty" in fault(path, tmp_path / "out") or "no whole tar" in fault(path, tmp_path / "out2")


@pytest.mark.parametrize(("suffix", "mode"), [("tar", "w"), ("tar.gz", "w:gz"), ("tar.xz", "w:xz")])
def test_a_truncated_archive(tmp_path, suffix, mode):
    path = tar(tmp_path / f"m.{suffix}", {"a": os.urandom(50_000)}, mode)
    os.truncate(path, 20_000)
    assert "no whole tar" in fault(path, tmp_path / "out")


def test_zstd_says_what_to_do(tmp_path):
    path = tmp_path / "m.tar.zst"
    path.write_bytes(b"\x28\xb5\x2f\xfd" + bytes(100))
    assert is_archive(path)
    with pytest.raises(InvalidError) as caught:
        unpack(path, tmp_path / "out")
    assert "zstd -d m.tar.zst" in caught.value.hint


def test_a_full_disk_is_said_before_anything_is_written(tmp_path):
    path = tar(tmp_path / "m.tar", {"a": bytes(1000)})
    with pytest.raises(DiskFullError) as caught:
        unpack(path, tmp_path / "out", free=lambda _: 1000)
    assert caught.value.details["free_bytes"] == 1000
    assert not (tmp_path / "out").exists()


def test_a_bomb_is_bound_by_the_free_disk(tmp_path):
    path = tmp_path / "m.tar.gz"
    with gzip.open(path, "wb") as out:
        info = tarfile.TarInfo("a")
        info.size = 500 * GIB
        out.write(info.tobuf())
        out.write(bytes(1024))
    with pytest.raises(DiskFullError) as caught:
        unpack(path, tmp_path / "out", free=lambda _: GIB)
    assert caught.value.details["needed_bytes"] == 500 * GIB


@pytest.mark.parametrize(
    ("name", "path"), [("a/b", "a/b"), ("./a//b/", "a/b"), (".", None), (".git/a", None), ("a/.b/c", None)]
)
def test_member_path(tmp_path, name, path):
    assert member_path(name, tmp_path) == path


@pytest.mark.parametrize(
    "name", ["m/" + "a/" * 1500 + "f", "/".join("a" * 2000), "m/" + "x" * 300, "m/" + "d/" * 40 + ".hidden"]
)
def test_paths_that_are_too_long(tmp_path, name):
    path = tar(tmp_path / "m.tar", {"m/config.json": b"{}", name: b"x"})
    assert "path is too long" in fault(path, tmp_path / "out")


def header(kind, size):
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
@pytest.mark.parametrize("first", [True, False])
def test_an_extended_header_is_not_read_whatever_its_size(tmp_path, kind, first):
    path = tmp_path / "m.tar.gz"
    before = b"" if first else header(tarfile.REGTYPE, 0)
    with gzip.open(path, "wb", compresslevel=1) as packed:
        packed.write(before + header(kind, 64 * 1024**2))
        packed.write(bytes(64 * 1024**2))
    tracemalloc.start()
    try:
        assert "no whole tar" in fault(path, tmp_path / "out")
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024**2
    finally:
        tracemalloc.stop()


def test_a_long_chain_of_extended_headers(tmp_path):
    path = tmp_path / "m.tar"
    path.write_bytes((header(tarfile.XGLTYPE, 512) + b"9 a=b\n\n\n\n".ljust(512, b"\0")) * 2000 + bytes(1024))
    assert "no whole tar" in fault(path, tmp_path / "out")
