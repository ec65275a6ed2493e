"""Unpack an untrusted tar: plain files and directories below one directory, nothing else.

Links, devices, absolute names and `..` are rejected, not repaired. The standard library's own filter is not used: it is
missing in early releases of Python 3.11, including Debian 12's, and lets links through.
"""

import io
import os
import shutil
import stat
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO, Self

from garrison.base.errors import InvalidError, ModelInvalidError
from garrison.models.files.content import is_file, open_file, unreadable
from garrison.models.files.hashing import RECORDED_NAME
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress, Silent
from garrison.models.files.readability import readers
from garrison.models.files.space import FreeBytes, disk_full, free_bytes, out_of_space, require_space
from garrison.models.files.stop_token import StopToken

__all__ = ["is_archive", "member_path", "unpack"]

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")
_ZSTD_START = b"\x28\xb5\x2f\xfd"
_MAX_MEMBERS = 100_000
_MAX_DEPTH = 32
_MAX_NAME_BYTES = 255  # of one component, as on most file systems
_MAX_HEADER_BYTES = 1024 * 1024
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_SHOWN = 80
_BUFFER_BYTES = 1024 * 1024
_SOURCE = "Get the archive again from a source you trust."


class _Member(tarfile.TarInfo):
    """A member whose extended header has a bounded size: `tarfile` reads a header into memory as a whole, and a few
    compressed megabytes can hold one of many gigabytes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        found = super().frombuf(buf, encoding, errors)
        if found.size < 0 or (found.type in _HEADERS and found.size > _MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header gives a size of {found.size} bytes")
        return found


def is_archive(path: Path) -> bool:
    """Whether this is a file whose name is that of a tar."""
    return path.name.lower().endswith(_SUFFIXES) and is_file(path)


def unpack(
    archive: Path,
    target: Path,
    *,
    progress: Progress | None = None,
    free: FreeBytes = free_bytes,
    stop: StopToken | None = None,
) -> dict[str, int]:
    """Unpack into `target`, which is created; a single directory at the top is left out.

    Hidden files are skipped, except the record of digests. The files are no more readable than the archive.

    Returns:
        Relative name to bytes of what was unpacked.

    Raises:
        ModelInvalidError: broken, or it contains something other than plain files; the message names the member.
        InvalidError: compressed in a way that this Python cannot read.
        DiskFullError: the contents do not fit; checked before each file.
        StoppedError: `stop` was stopped. `target` stays, incomplete, for the caller to remove.
    """
    with _StoppableReader(open_file(archive), stop or StopToken()) as content:
        return _unpack(content, archive, target, progress or Silent(), free)


class _StoppableReader(io.BufferedReader):
    """The archive's bytes, until the token is stopped.

    Checked here rather than for each block of a member: `tarfile` also decompresses what it skips.
    """

    def __init__(self, descriptor: int, stop: StopToken) -> None:
        super().__init__(io.FileIO(descriptor))
        self._stop = stop

    def read(self, size: int | None = -1, /) -> bytes:
        self._stop.check()
        return super().read(size)


def _unpack(content: BinaryIO, archive: Path, target: Path, progress: Progress, free: FreeBytes) -> dict[str, int]:
    size = _check_start(content, archive)
    require_space(target.parent, size, free=free)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(mode=0o700)
    progress.started(1, 0, doing="unpacking")
    try:
        with tarfile.open(fileobj=content, mode="r:*", tarinfo=_Member) as tar:
            written = _members(tar, archive, target, progress, free)
        status = target.stat()
        readable = readers(content.fileno(), status.st_gid)
        target.chmod(stat.S_IMODE(status.st_mode) & (0o700 | readable | readable >> 2))
        return written
    except _broken_errors() as error:
        raise Problem(str(archive), f"is no whole tar archive: {error}", "Copy it again.").error() from None
    except OSError as error:
        if out_of_space(error):
            raise disk_full(target, size, free(target)) from None
        # gzip and bzip2 report broken content as an OSError without a number.
        if error.errno is None:
            raise Problem(str(archive), f"is no whole tar archive: {error}", "Copy it again.").error() from None
        raise unreadable(archive, error) from None
    finally:
        progress.finished()


def member_path(name: str, archive: Path) -> str | None:
    """The member's name as a relative path; None for one to skip. Pure.

    Raises:
        ModelInvalidError: it leads out of the archive.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name or "\\" in name:
        raise Problem(str(archive), f"holds {name!r}, which leads out of it", _SOURCE).error()
    if len(parts) > _MAX_DEPTH or any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in parts):
        shown = f"{name[:_SHOWN]}…"
        raise Problem(str(archive), f"holds {shown!r}, whose path is too long", _SOURCE).error()
    if not parts or any(part.startswith(".") and part != RECORDED_NAME for part in parts):
        return None
    return "/".join(parts)


def _broken_errors() -> tuple[type[Exception], ...]:
    # `tarfile` recurses for each extended header in a chain.
    errors: tuple[type[Exception], ...] = (tarfile.TarError, EOFError, zlib.error, UnicodeDecodeError, RecursionError)
    try:
        from lzma import LZMAError
    except ImportError:  # a Python built without liblzma; tarfile itself then rejects .xz
        return errors
    return (*errors, LZMAError)


def _members(tar: tarfile.TarFile, archive: Path, target: Path, progress: Progress, free: FreeBytes) -> dict[str, int]:
    written: dict[str, int] = {}
    for count, member in enumerate(tar, 1):
        if count > _MAX_MEMBERS:
            raise Problem(str(archive), f"holds more than {_MAX_MEMBERS} files", _SOURCE).error()
        name = member_path(member.name, archive)
        if not member.isdir() and (problem := _refuse(member, archive)):
            raise problem
        if name is None or member.isdir():
            continue
        if name in written:
            raise Problem(str(archive), f"holds {name!r} twice", _SOURCE).error()
        require_space(target, member.size, free=free)
        _write(tar, member, target / name, archive, progress)
        written[name] = member.size
    if not written:
        raise Problem(str(archive), "holds no files").error()
    return _strip_top(target, written)


def _refuse(member: tarfile.TarInfo, archive: Path) -> ModelInvalidError | None:
    if member.issym() or member.islnk():
        hint = "Pack the files themselves: `tar --dereference --hard-dereference -cf …`."
        return Problem(str(archive), f"holds the link {member.name!r}", hint).error()
    if not member.isreg() or member.issparse():
        what = f"holds {member.name!r}, which is no plain file"
        return Problem(str(archive), what, "Pack plain files, without --sparse.").error()
    return None


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, archive: Path, progress: Progress) -> None:
    content = tar.extractfile(member)
    assert content is not None  # a regular file has content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    except (FileExistsError, NotADirectoryError):
        raise Problem(
            str(archive), f"holds {member.name!r} both as a file and as a directory", _SOURCE
        ).error() from None
    left = member.size
    with content, os.fdopen(descriptor, "wb") as out:
        while block := content.read(_BUFFER_BYTES):
            out.write(block)
            left -= len(block)
            progress.advanced(len(block))
        out.flush()
        os.fsync(descriptor)
    if left:
        raise Problem(str(archive), f"is truncated within {member.name!r}", "Copy it again.").error()


def _strip_top(target: Path, written: dict[str, int]) -> dict[str, int]:
    tops = {name.partition("/")[0] for name in written}
    if len(tops) > 1 or any("/" not in name for name in written):
        return written
    top = tops.pop()
    aside = target.with_name(f"{target.name}.top")
    if aside.exists():  # left by an import that was killed between the two renames
        shutil.rmtree(aside)
    (target / top).rename(aside)
    target.rmdir()
    aside.rename(target)
    return {name.partition("/")[2]: size for name, size in written.items()}


def _check_start(content: BinaryIO, archive: Path) -> int:
    """The size of the archive. Raises if it cannot be read here."""
    try:
        start = content.read(4)
        content.seek(0)
        size = os.fstat(content.fileno()).st_size
    except OSError as error:
        raise unreadable(archive, error) from None
    if not start:
        raise Problem(str(archive), "is empty").error()
    if start == _ZSTD_START:
        raise InvalidError(
            f"{archive} is compressed with zstd, which this Python cannot read",
            hint=f"Run `zstd -d {archive.name}` and import the .tar.",
        )
    return size
