"""One entry of an adapter store: its name, its manifest, and whether it still holds what its name says.

An entry is spoiled for good once its content was seen to differ from its name, since a server may have read it. One
whose files have hard links elsewhere still holds its content; it is replaced before anyone writes through a link.
"""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import ModelInvalidError
from garrison.base.files import write_atomic
from garrison.fleet.artifacts.digests import Stamp, read_stamp
from garrison.fleet.artifacts.protocol import EntryFault
from garrison.models.adapters.adapter import ADAPTER_FILES, adapter_digest
from garrison.models.files.content import is_file

__all__ = [
    "MANIFEST",
    "OWNERS",
    "Entry",
    "digest_of",
    "entry_name",
    "fault_of",
    "files_below",
    "generation_of",
    "intact",
    "next_name",
    "read_entry",
    "stat",
]

MANIFEST = ".garrison.json"
OWNERS = ".garrison-owners"
_NAME = re.compile(r"(?P<digest>[0-9a-f]{64})(?:-(?P<generation>[1-9]\d*))?")


@dataclass(frozen=True, slots=True)
class Entry:
    """What `gc` needs to know about an entry.

    Attributes:
        bytes: size of the files that have no other link, which is what a deletion frees.
        used_at: when it was last staged or asked for, in Unix seconds.
    """

    path: Path
    bytes: int
    used_at: float


def entry_name(digest: str, generation: int) -> str:
    """Return the name of an entry. The first is the digest alone; each of the others replaces one that was unusable."""
    return digest if generation == 1 else f"{digest}-{generation}"


def next_name(name: str) -> str:
    """Return the entry name that follows `name` for the same content."""
    return entry_name(digest_of(name) or name, (generation_of(name) or 1) + 1)


def digest_of(name: str) -> str | None:
    """Return the digest in the name of an entry; None for any other name."""
    match = _NAME.fullmatch(name)
    return match["digest"] if match else None


def generation_of(name: str) -> int | None:
    match = _NAME.fullmatch(name)
    return int(match["generation"] or 1) if match else None


def intact(path: Path, *, clock: Clock | None = None) -> bool | None:
    """Return whether an entry holds the content that its name says, in files of its own; None if `path` is not in a
    store. Costs as much as `fault_of`."""
    fault = fault_of(path, clock=clock)
    return None if fault is None and not _in_a_store(path) else fault is None


def fault_of(path: Path, *, clock: Clock | None = None) -> EntryFault | None:
    """Return why an entry must not be loaded from again; None if it has no fault, or if `path` is not in a store.

    Costs one stat per file if nothing changed. Else the files are read, and their new stamps are stored if the content
    is still the same.
    """
    if not _in_a_store(path):
        return None
    stamp = read_stamp(str(path))
    if stamp is None:
        return EntryFault.MISSING
    manifest = _read_manifest(path)
    whole = _holds(path, manifest, stamp, clock or SystemClock())
    if not whole:
        return EntryFault.CHANGED
    files = (stat(path / name) for name in ADAPTER_FILES)
    linked = manifest.get("how") == "hardlink" or any(found is not None and found.st_nlink > 1 for found in files)
    return EntryFault.SHARED if linked else None


def _in_a_store(path: Path) -> bool:
    return digest_of(path.name) is not None and is_file(path.parent / OWNERS)


def _holds(path: Path, manifest: Mapping[str, Any], stamp: Stamp, clock: Clock) -> bool:
    if manifest.get("spoiled"):
        return False
    if manifest.get("stamp") == stamp.text and manifest.get("settled"):
        return True
    digest = digest_of(path.name)
    try:
        whole = adapter_digest(path) == digest
    except ModelInvalidError:
        return False
    if read_stamp(str(path)) != stamp:
        return False
    if not whole:
        # For good, even if the old content comes back: a server may have read what was there in between.
        _write_manifest(path, {**manifest, "spoiled": True})
    elif stamp.settled(clock.now().timestamp()):
        _write_manifest(path, {**manifest, "digest": digest, "stamp": stamp.text, "settled": True})
    return whole


def read_entry(path: Path) -> Entry | None:
    """Read an entry; None if it was removed in the meantime."""
    used = stat(path / MANIFEST) or stat(path)
    if used is None:
        return None
    return Entry(path, sum(found.st_size for found in files_below(path) if found.st_nlink == 1), used.st_mtime)


def _write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Store what was found, so that the files need not be read again. The time of the last use stays as it was."""
    # A process without write permission reads the files each time.
    with contextlib.suppress(OSError):
        used = (stat(path / MANIFEST) or path.stat()).st_mtime
        write_atomic(path / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        os.utime(path / MANIFEST, (used, used))


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        body = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def files_below(path: Path) -> list[os.stat_result]:
    """Return the status of every file below `path`."""
    places = (Path(parent) / name for parent, _, names in os.walk(path) for name in names)
    return [found for place in places if (found := stat(place)) is not None]


def stat(path: Path) -> os.stat_result | None:
    """Return the status of `path`; None if it does not exist or is not accessible."""
    try:
        return path.stat()
    except OSError:
        return None
