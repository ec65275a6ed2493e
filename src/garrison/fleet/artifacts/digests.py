"""Digests of adapters, kept with the stamp of their files, so that asking again costs a few stats instead of a read."""

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import ModelInvalidError
from garrison.models.adapters.adapter import ADAPTER_FILES, adapter_digest
from garrison.models.files.content import open_tree

__all__ = ["AdapterDigests", "ContentRecord", "Stamp", "read_stamp"]

_CONFIG = ADAPTER_FILES[0]
_TRIES = 3
_SETTLED_SECONDS = 2.0


class ContentRecord(Protocol):
    """The two methods of `FleetStore` that keep digests between runs."""

    def content(self, path: str, stamp: str) -> str | None: ...

    def put_content(self, path: str, stamp: str, digest: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identifies the files of an adapter without reading them.

    Attributes:
        text: name, size in bytes, modification time in nanoseconds and inode of each file.
        newest: the latest modification time, in Unix seconds.
    """

    text: str
    newest: float

    def settled(self, now: float) -> bool:
        """Return whether a later change would show. A file system's clock ticks in steps, and two writes within one
        step leave the same time."""
        return abs(now - self.newest) >= _SETTLED_SECONDS


def read_stamp(path: str) -> Stamp | None:
    """Return the stamp of the adapter at `path`; None if no `adapter_config.json` is readable there."""
    parts, newest = [], 0
    for name in ADAPTER_FILES:
        try:
            # Follows links: a hub cache consists of them.
            found = os.stat(f"{path}/{name}")  # noqa: PTH116 - 20,000 adapters a cycle: no object for each path
        except (OSError, ValueError):  # ValueError: a path with a null character
            if name == _CONFIG:
                return None
            continue
        parts.append(f"{name}:{found.st_size}:{found.st_mtime_ns}:{found.st_ino}")
        newest = max(newest, found.st_mtime_ns)
    return Stamp(";".join(parts), newest / 1e9)


class AdapterDigests:
    """Known digests by path. Thread-safe; files are read one adapter at a time."""

    def __init__(self, record: ContentRecord | None = None, clock: Clock | None = None) -> None:
        self._record = record
        self._clock = clock or SystemClock()
        self._known: dict[str, tuple[str, str]] = {}
        self._reading = threading.Lock()

    def digest(self, path: str) -> str | None:
        """Return the digest of the adapter at `path`. None if no adapter is readable there, if a link leads out of its
        directory, or if it is being written.

        A relative path has no digest: it starts at the server's directory, or names a hub repository.
        """
        if not path.startswith("/") or (stamp := read_stamp(path)) is None:
            return None
        known = self._known.get(path)
        if known is not None and known[0] == stamp.text:
            return known[1]
        with self._reading:
            known = self._known.get(path)  # another thread may have read it while this one waited
            if known is not None and known[0] == stamp.text:
                return known[1]
            return self._learn(path, stamp)

    def _learn(self, path: str, stamp: Stamp) -> str | None:
        if self._record is not None and (recorded := self._record.content(path, stamp.text)):
            self._known[path] = (stamp.text, recorded)
            return recorded
        for _ in range(_TRIES):
            try:
                with open_tree(Path(path)) as tree:
                    digest = adapter_digest(Path(path), tree)
            except ModelInvalidError:
                return None
            after = read_stamp(path)
            if after is None:
                return None
            if after == stamp:
                self._remember(path, stamp, digest)
                return digest
            stamp = after
        return None

    def _remember(self, path: str, stamp: Stamp, digest: str) -> None:
        if not stamp.settled(self._clock.now().timestamp()):
            return
        self._known[path] = (stamp.text, digest)
        if self._record is not None:
            self._record.put_content(path, stamp.text, digest)
