"""SHA-256 of every file of a model: recorded once, checked on request.

The record is `.garrison.sha256` in the model's directory, in the format of `sha256sum`: `cd MODEL && sha256sum -c
.garrison.sha256` checks it without Garrison. If the publisher shipped a `sha256sums.txt`, its digests take precedence:
they say what the files should have been. In a Hugging Face cache the names of the blobs are digests, and nothing is
written.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from garrison.base.beneath import open_regular
from garrison.base.files import write_atomic
from garrison.models.files.content import unreadable
from garrison.models.files.hashing import RECORDED_NAME, hash_files
from garrison.models.files.problem import Problem
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StopToken
from garrison.models.formats.sha256sums import parse_sums, render_sums
from garrison.models.validate import list_files

__all__ = ["FileVerdict", "Verification", "read_recorded", "record_digests", "verify"]

SHIPPED_NAME = "sha256sums.txt"

_MAX_LIST_BYTES = 64 * 1024 * 1024

State = Literal["ok", "changed", "missing", "extra", "recorded"]

_HUB_BLOB = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """The result for one file.

    Attributes:
        name: relative to the model, with `/`.
        state: `recorded` if no digests were on record, `extra` if others were and this file's was not.
        bytes: current size; 0 if missing.
        expected, actual: hex digests, if known.
    """

    name: str
    state: State
    bytes: int
    expected: str | None
    actual: str | None


@dataclass(frozen=True, slots=True)
class Verification:
    """`source` is where the expected digests came from: a file name, `hub` for a hub cache, None if there were none."""

    path: Path
    files: tuple[FileVerdict, ...]
    source: str | None

    @property
    def ok(self) -> bool:
        return not self.faults

    @property
    def faults(self) -> tuple[FileVerdict, ...]:
        """Changed and missing files."""
        return tuple(file for file in self.files if file.state in ("changed", "missing"))

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def raise_faults(self) -> None:
        """Raise ModelInvalidError for the first fault; details list all of them under `faults`."""
        if not self.faults:
            return
        first = self.faults[0]
        reason = "is missing" if first.state == "missing" else f"does not match {self.source}: it has changed"
        error = Problem(
            str(self.path / first.name), reason, "Fetch the model again, or import it again with --replace."
        ).error()
        error.details["faults"] = [{"file": file.name, "state": file.state} for file in self.faults]
        raise error


def verify(
    path: Path,
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    record: bool = True,
    stop: StopToken | None = None,
) -> Verification:
    """Hash every file of the model in `path` and compare with the digests on record.

    Args:
        record: write the record if there is none and the directory is not a hub snapshot.

    Raises:
        ModelInvalidError: a file cannot be read, or a record is malformed. Changed files do not raise.
        StoppedError: `stop` was stopped; nothing is recorded.
    """
    files = _files(path)
    expected, source = _expected(path, files)
    git = {name for name, digest in expected.items() if len(digest) == 40}
    actual = hash_files(path, files, git_blobs=git, progress=progress, threads=threads, stop=stop)
    if source is None and record:
        write_atomic(path / RECORDED_NAME, render_sums(actual))
    return Verification(path, tuple(_verdicts(files, expected, actual, source)), source)


def record_digests(
    path: Path,
    *,
    partial: bool = False,
    progress: Progress | None = None,
    threads: int | None = None,
    stop: StopToken | None = None,
) -> Mapping[str, str]:
    """Hash every file in `path` and write the record.

    A record made elsewhere and the publisher's `sha256sums.txt` are checked as well.

    Args:
        partial: some of the files that a record made elsewhere names may have been left out on purpose.

    Raises:
        ModelInvalidError: a file differs from either, is missing from the record, or cannot be read.
        StoppedError: `stop` was stopped; nothing is recorded.
    """
    files = _files(path)
    actual = hash_files(path, files, progress=progress, threads=threads, stop=stop)
    # Of the publisher's list, files may not have been downloaded; of a record, every file was once there.
    shipped, recorded = _read(path / SHIPPED_NAME), read_recorded(path)
    shipped = {name: digest for name, digest in shipped.items() if name in files}
    if partial:
        recorded = {name: digest for name, digest in recorded.items() if name in files}
    for source, expected in ((SHIPPED_NAME, shipped), (RECORDED_NAME, recorded)):
        Verification(path, tuple(_verdicts(files, expected, actual, source)), source).raise_faults()
    write_atomic(path / RECORDED_NAME, render_sums(actual))
    return actual


def read_recorded(path: Path) -> dict[str, str]:
    """The digests that `record_digests` wrote, name to hex; empty if there are none. Raises as `verify`."""
    return _read(path / RECORDED_NAME)


def _verdicts(
    files: Mapping[str, int], expected: Mapping[str, str], actual: Mapping[str, str], source: str | None
) -> Iterator[FileVerdict]:
    unlisted: State = "extra" if source else "recorded"
    for name in sorted({*files, *expected}):
        if name not in files:
            yield FileVerdict(name, "missing", 0, expected[name], None)
            continue
        state: State = unlisted
        if name in expected:
            state = "ok" if expected[name] == actual[name] else "changed"
        yield FileVerdict(name, state, files[name], expected.get(name), actual[name])


def _expected(path: Path, files: Mapping[str, int]) -> tuple[dict[str, str], str | None]:
    hub = {name: digest for name in files if (digest := _blob_name(path / name))}
    if hub:
        return hub, "hub"
    recorded, shipped = _read(path / RECORDED_NAME), _read(path / SHIPPED_NAME)
    if recorded:
        return recorded | {name: digest for name, digest in shipped.items() if name in recorded}, RECORDED_NAME
    return shipped, SHIPPED_NAME if shipped else None


def _blob_name(path: Path) -> str | None:
    """The digest in the name of the blob that a hub cache's link points to."""
    if not path.is_symlink():
        return None
    target = path.readlink()
    if target.parent.name == "blobs" and _HUB_BLOB.fullmatch(target.name):
        return target.name
    return None


def _read(path: Path) -> dict[str, str]:
    try:
        with open(open_regular(path), "rb") as handle:
            return parse_sums(handle.read(_MAX_LIST_BYTES), path)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise unreadable(path, error) from None


def _files(path: Path) -> dict[str, int]:
    """The files that have digests: all but hidden ones (Garrison's, git's, the hub's) and the publisher's list."""
    files = list_files(path)
    files.pop(SHIPPED_NAME, None)
    return files
