"""Open files below an untrusted directory: no path leads out of it, whatever links it contains.

The kernel enforces that where it can (`openat2` with `RESOLVE_BENEATH`, Linux 5.6). Elsewhere, and where a sandbox
forbids the call, each component is opened without following links, and links are followed by hand. Both refuse the
same: links that leave the directory, absolute links, and anything that is not a regular file. Nothing blocks on a FIFO.
Callers check and read through the one descriptor they get, so a file cannot be swapped between the check and the read.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

__all__ = ["Found", "IrregularError", "OutsideError", "Tree", "open_regular"]

# On Linux: opens nothing, so that no device is touched. openat2 rejects O_NONBLOCK beside it.
_PATH: int = getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK)
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PASS = _PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK = _PATH | os.O_CLOEXEC
_RACES = 16
_MOST_LINKS = 40  # the kernel's limit
_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


class OutsideError(OSError):
    """A link leads out of the tree.

    Attributes:
        tree: the directory that was opened.
        link: path of the link, below the tree.
        points_to: its content. The target was not looked at.
    """

    def __init__(self, tree: Path, link: str, points_to: str) -> None:
        super().__init__(errno.EXDEV, f"a link to {points_to}, which leads out of {tree}", str(tree / link))
        self.tree = tree
        self.link = tree / link
        self.points_to = points_to


class IrregularError(OSError):
    """A FIFO, a device, a socket or a directory where a file was expected."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EINVAL, "not a regular file", path)


@dataclass(frozen=True, slots=True)
class Found:
    """One name in a directory of a tree. For a link, `kind` and `bytes` are those of its target."""

    name: str
    kind: Literal["file", "directory"]
    bytes: int


class Tree:
    """A directory that is kept open, and the files below it.

    A snapshot of a Hugging Face cache (`models--ORG--NAME/snapshots/REVISION`, or a directory in one) is opened at
    its repository, so that its links into `blobs` can be followed; nothing else in the repository can be reached.

    Attributes:
        path: the directory as given. It may itself be a link.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            OSError: it is not a directory, or cannot be opened.
        """
        self.path = path
        self._root, self._repository, self._prefix = _hold(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def open(self, name: str) -> int:
        """Return a descriptor for reading the regular file `name` (relative, with `/`).

        Raises:
            OutsideError: a link leads out of the tree.
            IrregularError: it is not a regular file.
            OSError: it is missing, or cannot be opened.
        """
        return _regular(lambda: self._open(name, _READ), str(self.path / name))

    def open_path(self, path: Path) -> int:
        """Open a path that starts with `self.path`, as `open` does."""
        return self.open(path.relative_to(self.path).as_posix())

    def open_directory(self, name: str = "") -> int:
        """Return a descriptor of the directory `name`. Raises as `open` does."""
        return self._open(name, _DIRECTORY)

    def find(self, name: str) -> Found | None:
        """Return what `name` is; None if it is neither a file nor a directory, or does not exist.

        Raises:
            OutsideError: a link leads out of the tree.
            OSError: it cannot be looked at.
        """
        try:
            descriptor = self._open(name, _LOOK)
        except OSError as error:
            if error.errno in _NOWHERE:
                return None
            raise
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        return _found(name.rpartition("/")[2], status)

    def scan(self, name: str = "") -> Iterator[Found]:
        """Yield the files and directories in the directory `name`, in no order, without hidden ones. Raises as `find`
        does."""
        descriptor = self.open_directory(name)
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_symlink():
                        found = self.find(f"{name}/{entry.name}" if name else entry.name)
                    else:
                        found = _seen(entry)
                    if found is not None:
                        yield found
        finally:
            os.close(descriptor)

    def unlink(self, name: str) -> None:
        """Remove the name of a file or a link, in the directory where `name` is found. Raises as `open` does."""
        parent, _, last = name.rpartition("/")
        descriptor = self.open_directory(parent)
        try:
            os.unlink(last, dir_fd=descriptor)
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int) -> int:
        inside = "/".join(part for part in (self._prefix, name) if part) or "."
        try:
            descriptor = self._by_kernel(inside, flags)
            if descriptor is None:
                descriptor = _walk(self._root, inside, flags)
        except _LeadsOutError as error:
            raise OutsideError(self.path, self._seen_from_here(error.link), error.points_to) from None
        except OSError as error:
            raise type(error)(error.errno, os.strerror(error.errno or 0), str(self.path / name)) from None
        if self._repository is not None and not self._belongs(descriptor, self._repository):
            os.close(descriptor)
            raise OutsideError(self.path, name, "another part of the cache")
        return descriptor

    def _by_kernel(self, name: str, flags: int) -> int | None:
        """Open with the kernel's call. Return None if it has none, or if the path leads out: `_walk` finds where."""
        # Imported here: ctypes is slow to load, and most commands open nothing untrusted.
        from garrison.base import openat2

        if not openat2.supported():
            return None
        for _ in range(_RACES):
            try:
                return openat2.open_beneath(self._root, name, flags)
            except BlockingIOError:  # something was renamed during the call
                continue
            except OSError as error:
                if error.errno == errno.EXDEV:
                    return None
                raise
        return None

    def _belongs(self, descriptor: int, repository: Path) -> bool:
        """Return whether a file that was reached through a snapshot is in the snapshot, or is one of the blobs."""
        real = Path(os.path.realpath(f"/proc/self/fd/{descriptor}"))
        snapshot = repository.joinpath(*self._prefix.split("/")[:2])
        return real == snapshot or snapshot in real.parents or real.parent == repository / "blobs"

    def _seen_from_here(self, link: str) -> str:
        """Convert a path below the open directory to one below `self.path`."""
        return os.path.relpath(link, self._prefix) if self._prefix else link


def open_regular(path: Path) -> int:
    """Return a descriptor for reading `path`, which follows links and does not block. For files at a trusted path.

    Raises:
        IrregularError: it is not a regular file.
        OSError: it is missing, or cannot be opened.
    """
    return _regular(lambda: os.open(path, _READ), str(path))


def _regular(opened: Callable[[], int], path: str) -> int:
    try:
        descriptor = opened()
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise IrregularError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IrregularError(path)
    return descriptor


def _seen(entry: os.DirEntry[str]) -> Found | None:
    try:
        return _found(entry.name, entry.stat(follow_symlinks=False))
    except FileNotFoundError:  # removed since the scan
        return None


def _found(name: str, status: os.stat_result) -> Found | None:
    if stat.S_ISREG(status.st_mode):
        return Found(name, "file", status.st_size)
    return Found(name, "directory", 0) if stat.S_ISDIR(status.st_mode) else None


def _hold(path: Path) -> tuple[int, Path | None, str]:
    """Open the directory that paths must stay below. For a snapshot, that is its repository, which is returned with the
    place of `path` in it."""
    real = Path(os.path.realpath(path))
    parts = real.parts
    for at in range(len(parts) - 2, 0, -1):
        if parts[at] == "snapshots" and parts[at - 1].startswith("models--"):
            repository = Path(*parts[:at])
            return os.open(repository, _PASS), repository, "/".join(parts[at:])
    return os.open(path, _PATH | os.O_DIRECTORY | os.O_CLOEXEC), None, ""


class _LeadsOutError(OSError):
    def __init__(self, link: str, points_to: str) -> None:
        super().__init__(errno.EXDEV, os.strerror(errno.EXDEV), link)
        self.link = link
        self.points_to = points_to


def _walk(root: int, name: str, flags: int) -> int:
    """Open `name` below `root` a component at a time, following links by hand."""
    todo = name.split("/")[::-1]
    directories = [os.dup(root)]
    trail: list[str] = []
    followed: list[tuple[str, str]] = []
    try:
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not trail:
                    raise _LeadsOutError(*(followed[-1] if followed else (name, name)))
                os.close(directories.pop())
                trail.pop()
                continue
            last = all(rest in ("", ".") for rest in todo)
            found = _step(part, flags if last else _PASS, directories[-1])
            if isinstance(found, str):
                followed.append(("/".join([*trail, part]), found))
                if found.startswith("/"):
                    raise _LeadsOutError(*followed[-1])
                if len(followed) > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
                todo.extend(found.split("/")[::-1])
            elif last:
                return found
            else:
                directories.append(found)
                trail.append(part)
        return os.open(".", flags, dir_fd=directories[-1])
    finally:
        for directory in directories:
            os.close(directory)


def _step(part: str, flags: int, directory: int) -> int | str:
    """Return a descriptor of `part`; if it is a link, its content."""
    refused: OSError | None = None
    for _ in range(_RACES):
        try:
            descriptor = os.open(part, flags | os.O_NOFOLLOW, dir_fd=directory)
            if not stat.S_ISLNK(os.fstat(descriptor).st_mode):
                return descriptor
            os.close(descriptor)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            refused = error
        try:
            return os.readlink(part, dir_fd=directory)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            if refused is not None and refused.errno == errno.ENOTDIR:
                raise refused from None
        # It was a link at the first call and no longer at the second.
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), part)
