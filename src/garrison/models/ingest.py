"""Bring a directory, a file or a tar into a library: check, stage, check again, record, swap.

A kill at any moment, and a stop, leave what was there before. The origin may come from a stranger, and may still be
written to. It is read below its own directory only, and the copy is checked again once nobody else can change it: the
check before is for a quick answer.

The staging directory is on the library's file system and carries a name of its own; what a killed import left there is
deleted by the next one. The caller holds the lock of the name.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.clock import Clock
from garrison.base.errors import GarrisonError, InvalidError
from garrison.base.locks import file_lock
from garrison.base.presence import absence, is_dir
from garrison.models.files.archive import is_archive, unpack
from garrison.models.files.content import file_size, open_file, open_tree
from garrison.models.files.copying import copy_files
from garrison.models.files.hashing import RECORDED_NAME, hash_files
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress
from garrison.models.files.readability import directory_mode
from garrison.models.files.space import FreeBytes, disk_full, out_of_space
from garrison.models.files.stop_token import StopToken
from garrison.models.layout import Layout
from garrison.models.record import ModelRecord, write_record
from garrison.models.swap import INSTALL_SECONDS, install, recover
from garrison.models.validate import gguf_parts, list_files
from garrison.models.verify import read_recorded, record_digests

__all__ = ["Check", "Ingest", "Ingested", "ingest"]

Check = Callable[[Path, Tree | None], None]
"""Raises ModelInvalidError when a directory is not what it should be; reads below the tree it is given."""

Files = Mapping[str, int]
"""Relative name, with `/`, to bytes."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """`changed` is False when the same content was already there; `kept` is where a hand-copied predecessor went."""

    bytes: int
    changed: bool
    kept: Path | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ingest:
    """What to bring in, and where to.

    Attributes:
        target: the directory in the library; `staging`: where it is made, on the same file system.
        belongs: picks what is brought in from the files of a directory, which it reads below the tree it is given;
            None for all of them.
        replacing: allow other content to be replaced; the same content is left as it is.
        move: rename `origin` where that is safe; else delete it after the copy.
    """

    origin: Path
    target: Path
    staging: Path
    layout: Layout
    record: ModelRecord
    check: Check
    replacing: bool
    move: bool
    progress: Progress | None
    clock: Clock
    free: FreeBytes
    stop: StopToken
    belongs: Callable[[Path, Files, Tree | None], Files] | None = None

    def pick(self, directory: Path, files: Files, tree: Tree | None = None) -> Files:
        return files if self.belongs is None else self.belongs(directory, files, tree)

    def is_taken(self) -> bool:
        """Whether something is in the way that must not be replaced. Looks at the disk."""
        return os.path.lexists(self.target) and not self.replacing


def ingest(job: Ingest) -> Ingested:
    """Make the content of `job.origin` the directory `job.target`.

    Raises:
        As `library.import_model`.
    """
    _refuse_own_place(job.origin, job.target)
    with _held(job.origin) as tree:
        try:
            recover(job.target, job.layout, job.clock)
            shutil.rmtree(job.staging, ignore_errors=True)
            job.staging.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not is_archive(job.origin):
                _step(job, "check")
                files = _files(job, tree)
                job.check(job.origin, tree)
                if job.is_taken():
                    return _already_there(job, job.origin, files, tree)
            return _install(job, _staged(job, tree), tree)
        except OSError as error:
            raise _refused(error, job.target, job.free) from None
        finally:
            shutil.rmtree(job.staging, ignore_errors=True)


def _step(job: Ingest, name: str) -> None:
    if job.progress is not None:
        job.progress.step(name)


def _staged(job: Ingest, tree: Tree | None) -> Path:
    """The directory to install, checked, and out of reach of others."""
    # A move does not go through staging: a kill must not leave the only copy where the next import clears up.
    if job.move and _belongs_whole(job) and _can_rename(job.origin, job.staging):
        _narrow(job.origin)
        return job.origin
    if is_archive(job.origin):
        unpack(job.origin, job.staging, progress=job.progress, free=job.free, stop=job.stop)
        _prune(job)
    else:
        _copy(job, tree)
    _step(job, "check")
    job.check(job.staging, None)
    return job.staging


def _install(job: Ingest, staged: Path, tree: Tree | None) -> Ingested:
    files = list_files(staged)
    if job.is_taken():
        return _already_there(job, staged, files)
    record_digests(staged, partial=job.belongs is not None, progress=job.progress, stop=job.stop)
    write_record(staged, job.record)
    _step(job, "install")
    job.stop.check()  # the last time: what follows is done as a whole
    # Another organisation's model may have been given the name in the meantime, under a lock of its own.
    with file_lock(job.layout.install_lock, timeout=INSTALL_SECONDS, purpose="is installing a model", clock=job.clock):
        taken = job.is_taken()
        kept = None if taken else install(staged, job.target, job.layout, job.clock)
    if taken:
        return _already_there(job, staged, files)
    if job.move and staged is job.staging:
        _remove(job.origin, files, tree)
    return Ingested(sum(files.values()), changed=True, kept=kept)


def _held(origin: Path) -> contextlib.AbstractContextManager[Tree | None]:
    """`origin` held open where it is a directory. A file is the one that was named, wherever a link puts it."""
    return open_tree(origin) if is_dir(origin) else contextlib.nullcontext()


def _copy(job: Ingest, tree: Tree | None) -> None:
    origin = job.origin
    files = dict(_files(job, tree))
    if tree is not None and (size := file_size(origin / RECORDED_NAME, tree)) is not None:
        files[RECORDED_NAME] = size  # made elsewhere: the copy is compared with it
    copy_files(
        origin if tree else origin.parent,
        job.staging,
        files,
        progress=job.progress,
        free=job.free,
        tree=tree,
        stop=job.stop,
    )


def _refused(error: OSError, target: Path, free: FreeBytes) -> GarrisonError:
    if out_of_space(error):
        return disk_full(target.parent, 0, free(target.parent))
    return InvalidError(
        f"{error.filename or target} cannot be written: {error.strerror}",
        hint="Check the permissions of the library's directory and of what is imported.",
    )


def _refuse_own_place(origin: Path, target: Path) -> None:
    if (absent := absence(origin)) is not None:
        raise InvalidError(f"{origin} {absent}", hint="Check the path.")
    here, there = origin.resolve(), target.resolve()
    if here == there or there in here.parents or here in there.parents:
        raise InvalidError(
            f"{origin} is already in the library, or contains it",
            hint="A directory below the models root is listed as it is: `garrison models list`.",
        )


def _files(job: Ingest, tree: Tree | None) -> Files:
    """What is brought in: of a directory what belongs, of a split GGUF all parts."""
    if tree is not None:
        return job.pick(job.origin, list_files(job.origin, tree=tree), tree)
    parts = gguf_parts(job.origin)
    if isinstance(parts, Problem):
        raise parts.error()
    return {part.name: _size(part) for part in parts}


def _size(path: Path) -> int:
    descriptor = open_file(path)
    try:
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _belongs_whole(job: Ingest) -> bool:
    """Whether nothing of the origin would be left behind."""
    if not is_dir(job.origin):
        return False
    files = list_files(job.origin)
    return job.pick(job.origin, files).keys() == files.keys()


def _prune(job: Ingest) -> None:
    """Delete what was unpacked and does not belong."""
    files = list_files(job.staging)
    if left_out := files.keys() - job.pick(job.staging, files).keys():
        for name in left_out:
            (job.staging / name).unlink()
        _remove_empty(job.staging)


def _already_there(job: Ingest, origin: Path, files: Files, tree: Tree | None = None) -> Ingested:
    """Raise InvalidError unless the target holds the same files; sizes are compared before contents."""
    target = job.target
    there = list_files(target) if is_dir(target) else {}
    root = origin if is_dir(origin) else origin.parent
    same = files == there and hash_files(root, files, progress=job.progress, tree=tree, stop=job.stop) == (
        read_recorded(target) or hash_files(target, there, progress=job.progress, stop=job.stop)
    )
    if not same:
        raise InvalidError(
            f"{target} already exists, with other content",
            hint="Import it under another name (--as), or replace what is there (--replace).",
        )
    return Ingested(sum(files.values()), changed=False, kept=None)


def _can_rename(origin: Path, staging: Path) -> bool:
    """Whether `origin` is a plain directory on the library's file system that nobody else can write into: not by its
    modes or owners, and not through another name of one of its files. Anything else is copied.

    Raises:
        InvalidError: links in it would lead elsewhere afterwards.
    """
    if not is_dir(origin) or origin.is_symlink():
        return False
    ours = _ours(origin.lstat()) and _keeps_names(origin.absolute().parent.stat())
    for directory, directories, names in os.walk(origin):
        for path in (Path(directory, name) for name in (*directories, *names)):
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise InvalidError(
                    f"{origin} contains links to files elsewhere, which cannot be moved",
                    hint="Import it without --move: then the files are copied.",
                )
            ours = ours and _ours(status)
    return ours and origin.stat().st_dev == staging.parent.stat().st_dev


def _ours(status: os.stat_result) -> bool:
    shared = stat.S_ISREG(status.st_mode) and status.st_nlink > 1
    return status.st_uid == os.geteuid() and not _others_write(status) and not shared


def _keeps_names(directory: os.stat_result) -> bool:
    """Whether nobody else can replace this user's entries of that directory."""
    trusted = directory.st_uid in (0, os.geteuid())
    return trusted and (not _others_write(directory) or bool(directory.st_mode & stat.S_ISVTX))


def _others_write(status: os.stat_result) -> bool:
    others = 0o002 if status.st_gid == os.getegid() else 0o022  # a user's own group is often the user alone
    return bool(status.st_mode & others)


def _narrow(directory: Path) -> None:
    """Take away the rights that others could not use where the directory was, since its parents closed it to them."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode) & directory_mode(descriptor, status.st_gid))
    finally:
        os.close(descriptor)


def _remove(origin: Path, files: Files, tree: Tree | None) -> None:
    """Remove what was imported. Raises InvalidError where that fails."""
    try:
        _delete(origin, files, tree)
    except OSError as error:
        raise InvalidError(
            f"{origin} was imported and could not be removed: {error.filename or origin}: {error.strerror}",
            hint="Remove it by hand if you no longer need it.",
        ) from None


def _delete(origin: Path, files: Files, tree: Tree | None) -> None:
    """Delete what was copied, and the directories that are empty then; what was not copied (`.git`) stays. Follows no
    link."""
    if origin.is_symlink():
        origin.unlink()
        return
    if tree is None:
        for name in files if origin.suffix == ".gguf" else [origin.name]:
            origin.with_name(name).unlink()
        return
    for name in [*files, RECORDED_NAME]:
        with contextlib.suppress(FileNotFoundError):
            tree.unlink(name)
    _remove_empty(origin)
    with contextlib.suppress(OSError):
        origin.rmdir()


def _remove_empty(top: Path) -> None:
    """Remove the empty directories below `top`. Follows no link."""
    for _, directories, _, descriptor in os.fwalk(top, topdown=False):
        for name in directories:
            with contextlib.suppress(OSError):  # not empty, or a link
                os.rmdir(name, dir_fd=descriptor)
