"""The staging directory of a download: what is already there, what is missing, and whether it fits.

A file is `<name>.part` until it is whole. Beside the directory, `<directory>.json` records the version of each file; a
file of another version, or one that is no longer wanted, is deleted before anything is fetched.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from garrison.base.errors import DiskFullError, FetchError
from garrison.base.files import write_atomic
from garrison.models.files.space import disk_full, out_of_space, require_space
from garrison.models.layout import RECORD_NAME

__all__ = ["Pending", "Plan", "RemoteFile", "Staging", "plan", "write_all", "write_failed"]

_PART = ".part"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """Attributes:
    path: relative, with `/`.
    size: bytes.
    tag: changes when the content does: an ETag or a digest.
    """

    path: str
    size: int
    tag: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A file of which only the first `offset` bytes are here."""

    file: RemoteFile
    offset: int


@dataclass(frozen=True, slots=True)
class Plan:
    """`drop`: relative names of files to delete first."""

    pending: tuple[Pending, ...]
    drop: tuple[str, ...]

    @property
    def needed_bytes(self) -> int:
        return sum(item.file.size - item.offset for item in self.pending)


class Staging:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._versions = directory.with_name(directory.name + ".json")

    def prepare(self, files: Iterable[RemoteFile], free_bytes: Callable[[Path], int]) -> tuple[Pending, ...]:
        """Prepare the directory for `files` and return those that are still to be fetched.

        Raises:
            DiskFullError: they do not fit.
            FetchError: a file has a name that cannot be stored.
        """
        files = list(files)
        for file in files:
            _check_name(file.path)
        self.directory.parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        decided = plan(files, self._recorded(), _present(self.directory))
        for name in decided.drop:
            (self.directory / name).unlink()
        write_atomic(self._versions, json.dumps({file.path: [file.size, file.tag] for file in files}))
        if decided.needed_bytes:
            require_space(self.directory, decided.needed_bytes, free=free_bytes)
        for item in decided.pending:
            self.part(item.file).parent.mkdir(parents=True, exist_ok=True)
        return decided.pending

    def part(self, file: RemoteFile) -> Path:
        return self.directory / (file.path + _PART)

    def finish(self, file: RemoteFile) -> None:
        """Give a part that is whole its final name."""
        self.part(file).rename(self.directory / file.path)

    def forget(self) -> None:
        """Remove the record beside the directory, once the directory has been moved into place."""
        self._versions.unlink(missing_ok=True)

    def _recorded(self) -> dict[str, tuple[int, str]]:
        try:
            content = json.loads(self._versions.read_bytes())
            return {str(path): (int(size), str(tag)) for path, (size, tag) in content.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}


def plan(files: Iterable[RemoteFile], recorded: Mapping[str, tuple[int, str]], present: Mapping[str, int]) -> Plan:
    """Decide what to fetch and what to delete. Pure.

    Args:
        recorded: path to (size, tag) of the interrupted download.
        present: relative name to bytes of the files in the directory, parts included.
    """
    pending: list[Pending] = []
    keep: set[str] = set()
    for file in files:
        part = file.path + _PART
        known = recorded.get(file.path) == (file.size, file.tag)
        if known and present.get(file.path) == file.size:
            keep.add(file.path)
        elif known and file.tag and 0 < present.get(part, 0) <= file.size:
            keep.add(part)
            pending.append(Pending(file, present[part]))
        else:
            pending.append(Pending(file, 0))
    return Plan(tuple(pending), tuple(sorted(set(present) - keep)))


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Write all of `content` where the descriptor stands: one call may write only a part."""
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def write_failed(
    path: Path, error: OSError, needed: int, free_bytes: Callable[[Path], int]
) -> DiskFullError | FetchError:
    """The error for a failed write of a download."""
    if out_of_space(error):
        return disk_full(path, needed, free_bytes(path))
    return FetchError(
        f"{path} cannot be written: {error.strerror}", hint="Check the permissions of the models directory."
    )


def _present(directory: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for parent, _, names in os.walk(directory):
        for name in names:
            path = Path(parent, name)
            found[path.relative_to(directory).as_posix()] = path.lstat().st_size
    return found


def _check_name(name: str) -> None:
    bad = any(part in ("", ".", "..") for part in name.split("/")) or "\\" in name or not name.isprintable()
    if bad or name.endswith(_PART) or name == RECORD_NAME:
        raise FetchError(
            f"the source offers a file named {name!r}, which cannot be stored", hint="Do not use this source for it."
        )
