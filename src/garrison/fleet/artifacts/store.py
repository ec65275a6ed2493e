"""A directory of adapters by the digest of their content, from which servers load.

    <root>/<digest>/                  an entry: adapter_config.json, adapter_model.*, new_embeddings.*
    <root>/<digest>/.garrison.json    how it came here, and the stamps of its files
    <root>/<digest>-2/                the same content again, once <digest> could no longer be used
    <root>/.garrison-owners           the databases that put entries here, one identity per line
    <root>/.garrison-spoiled          names of spoiled entries that were removed: no name is used twice
    <root>/.garrison.lock             held while an entry appears, is taken into use, or is removed
    <root>/.staging.<random>/         an entry being built
    <root>/.trash.<random>/           an entry being deleted

An entry appears by one rename, once it is complete and on disk, so that a kill leaves all of it or nothing. Its files
share blocks with the source where the file system supports that (reflink), else they are copies; either way, writes to
the source do not reach them. Earlier versions made hard links: those entries are still recognized, but never loaded
from again.

The source is untrusted: nothing outside its own directory is read, and an entry is no more readable than its source. A
spoiled entry is never repaired in place, because a server that has read it keeps wrong prefix blocks under that path.
The content gets a new name instead.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import stat as stat_bits
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from garrison.base.clock import Clock, SystemClock
from garrison.base.errors import DiskFullError, InvalidError, ModelInvalidError
from garrison.base.files import fsync_dir, fsync_tree, write_atomic
from garrison.base.locks import FileLock, file_lock
from garrison.fleet.artifacts.digests import read_stamp
from garrison.fleet.artifacts.entry import (
    MANIFEST,
    OWNERS,
    Entry,
    digest_of,
    entry_name,
    files_below,
    generation_of,
    intact,
    read_entry,
    stat,
)
from garrison.fleet.artifacts.protocol import Staged
from garrison.models.adapters.adapter import ADAPTER_FILES, adapter_digest
from garrison.models.files.content import file_size, is_dir, open_tree
from garrison.models.files.copying import copy_files
from garrison.models.files.space import FreeBytes, disk_full, free_bytes, out_of_space

__all__ = ["AdapterStore"]

_SPOILED = ".garrison-spoiled"
_LOCK = ".garrison.lock"
_STAGING = ".staging."
_TRASH = ".trash."
_LOCK_SECONDS = 60.0
_ROOM = (
    "`garrison adapters gc` frees what no target serves; or put the store (adapter_store of the target) on a larger "
    "disk, or on the file system of the adapters where that one can share blocks (XFS, Btrfs)."
)


class AdapterStore:
    """One store. `identity` is that of the database which records what targets serve from it."""

    def __init__(self, root: Path, identity: str, *, clock: Clock | None = None, free: FreeBytes = free_bytes) -> None:
        self.root = root
        self._identity = identity
        self._clock = clock or SystemClock()
        self._free = free
        self._staging: dict[str, threading.Lock] = {}
        self._staging_guard = threading.Lock()

    def holds(self, digest: str) -> bool:
        """Return whether an entry has that content, including entries that must not be loaded from again."""
        return any(_holds(place, digest) for place in self._older(digest))

    def stage(self, source: Path, digest: str, *, instead_of: Path | None = None) -> Staged:
        """Implement `Artifacts.stage`. Threads and processes that stage the same content all get the same entry.

        Raises:
            DiskFullError, ModelInvalidError, InvalidError: see there.
            LockedError: another command held the store for a minute.
        """
        # The files are copied without the lock, since that may take minutes. So the entry is looked for twice: before
        # the copy, and again before the rename, when another process may have been faster.
        with self._alone(digest), self._failing_clearly():
            self._make_root()
            with self.locked():
                self._own()
                if found := self._take(digest, instead_of):
                    return Staged(str(found), "there")
            temporary = self.root / f"{_STAGING}{secrets.token_hex(8)}"
            try:
                how = self._build_from_any((source, *self._older(digest)), digest, temporary)
                with self.locked():
                    if found := self._take(digest, instead_of):
                        return Staged(str(found), "there")
                    entry = self._free_name(digest, instead_of)
                    temporary.rename(entry)
                    fsync_dir(self.root)
                    return Staged(str(entry), how)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def owners(self) -> set[str]:
        """Return the identities of the databases that have staged here."""
        return {line.split()[0] for line in self._lines(OWNERS)}

    @property
    def owners_file(self) -> Path:
        return self.root / OWNERS

    def entries(self) -> list[Entry]:
        """Return the entries, sorted by name; none if the store does not exist yet."""
        if not self.root.is_dir():
            return []
        places = (path for path in sorted(self.root.iterdir()) if digest_of(path.name) and path.is_dir())
        return [entry for path in places if (entry := read_entry(path)) is not None]

    def leftovers(self, before: float) -> list[Path]:
        """Return what killed commands left: unfinished deletions, and staging directories unchanged since `before`."""
        if not self.root.is_dir():
            return []
        return [
            path
            for path in sorted(self.root.iterdir())
            if path.name.startswith(_TRASH) or (path.name.startswith(_STAGING) and _last_written(path) < before)
        ]

    def trash(self, path: Path) -> Path:
        """Remove an entry from the store by one rename, and return its new path. The caller holds `locked`, and deletes
        the files."""
        # The name goes on the list first: if it were forgotten, new content could get a path for which a server caches
        # blocks of the spoiled files.
        if not intact(path, clock=self._clock):
            names = self._lines(_SPOILED)
            write_atomic(self.root / _SPOILED, "".join(f"{name}\n" for name in (*names, path.name)))
        gone = self.root / f"{_TRASH}{secrets.token_hex(8)}"
        path.rename(gone)
        fsync_dir(self.root)
        return gone

    @contextlib.contextmanager
    def locked(self) -> Iterator[FileLock]:
        """Hold the store's lock: meanwhile no entry appears, is removed, or is taken into use."""
        with file_lock(
            self.root / _LOCK, timeout=_LOCK_SECONDS, purpose="works on the adapter store", clock=self._clock
        ) as lock:
            yield lock

    # --- parts of staging

    def _make_root(self) -> None:
        if not self.root.is_dir():
            self.root.mkdir(parents=True, exist_ok=True)
            self.root.chmod(0o755)
        if self.root.stat().st_mode & stat_bits.S_IWOTH:
            raise InvalidError(
                f"the adapter store {self.root} is world-writable: any user could change what servers load from it",
                hint=f"Run `chmod o-w {self.root}`, or declare another adapter_store for the target.",
            )

    def _own(self) -> None:
        if self._identity not in self.owners():
            line = f"{self._identity} {socket.gethostname()} since {self._clock.now():%Y-%m-%d %H:%M:%S} UTC"
            write_atomic(self.owners_file, "".join(f"{one}\n" for one in (*self._lines(OWNERS), line)))

    def _take(self, digest: str, instead_of: Path | None) -> Path | None:
        """Return the newest intact entry with that content, marked as used now, which protects it from `gc`."""
        entry = self._whole(digest, instead_of)
        if entry is not None:
            now = self._clock.now().timestamp()
            os.utime(entry / MANIFEST, (now, now))
        return entry

    def _whole(self, digest: str, instead_of: Path | None) -> Path | None:
        """Return the newest intact entry with that content, except `instead_of`."""
        entries = (self.root / entry_name(digest, number) for number in sorted(self._generations(digest), reverse=True))
        return next((one for one in entries if one != instead_of and intact(one, clock=self._clock)), None)

    def _older(self, digest: str) -> list[Path]:
        """Return entries that may still hold the content, even if they must not be loaded from."""
        return [self.root / entry_name(digest, number) for number in sorted(self._generations(digest))]

    def _generations(self, digest: str) -> set[int]:
        """Return the numbers of the entries with that content, including spoiled ones."""
        return _numbers(digest, (path.name for path in self.root.glob(f"{digest}*")))

    def _free_name(self, digest: str, instead_of: Path | None) -> Path:
        names = [*self._lines(_SPOILED), *([instead_of.name] if instead_of is not None else [])]
        taken = self._generations(digest) | _numbers(digest, names)
        return self.root / entry_name(digest, max(taken, default=0) + 1)

    def _lines(self, name: str) -> list[str]:
        try:
            text = (self.root / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        return [line for line in text.splitlines() if line.strip()]

    def _build_from_any(self, sources: Iterable[Path], digest: str, temporary: Path) -> str:
        """Call `_build` with the first of `sources` that has the content."""
        refused: ModelInvalidError | None = None
        for source in sources:
            try:
                return self._build(source, digest, temporary)
            except ModelInvalidError as error:
                refused = refused or error
                shutil.rmtree(temporary, ignore_errors=True)
        assert refused is not None
        raise refused

    def _build(self, source: Path, digest: str, temporary: Path) -> str:
        """Build a complete entry at `temporary`, on disk; return `reflink` or `copy`."""
        how = self._fill(source, temporary)
        stamp = read_stamp(str(temporary))
        if stamp is None or adapter_digest(temporary) != digest or read_stamp(str(temporary)) != stamp:
            raise _changed(source)
        now = self._clock.now()
        manifest = {
            "digest": digest,
            "how": how,
            "source": str(source),
            "staged_at": now.isoformat(),
            "stamp": stamp.text,
            "settled": True,  # only Garrison writes here, so no change can go unnoticed
        }
        write_atomic(temporary / MANIFEST, json.dumps(manifest, indent=1) + "\n")
        os.utime(temporary / MANIFEST, (now.timestamp(), now.timestamp()))
        fsync_tree(temporary)
        return how

    def _fill(self, source: Path, temporary: Path) -> str:
        if not is_dir(source):
            raise _changed(source)
        with open_tree(source) as tree:
            sizes = {name: file_size(source / name, tree) for name in ADAPTER_FILES}
            files = {name: size for name, size in sizes.items() if size is not None}
            if not files:
                raise _changed(source)
            # The server may run as another user. What it may read is decided by the source's mode, not by our umask.
            how = copy_files(source, temporary, files, free=self._free, tree=tree, umask=0)
        for name in files:
            copy = temporary / name
            copy.chmod(copy.stat().st_mode & 0o444)
        return how

    @contextlib.contextmanager
    def _alone(self, digest: str) -> Iterator[None]:
        """Let one thread of this process stage a content at a time; the others then find its entry."""
        with self._staging_guard:
            lock = self._staging.setdefault(digest, threading.Lock())
        with lock:
            yield

    @contextlib.contextmanager
    def _failing_clearly(self) -> Iterator[None]:
        try:
            yield
        except DiskFullError as error:
            raise DiskFullError(error.message, hint=_ROOM, details=error.details) from None
        except OSError as error:
            if out_of_space(error):
                full = disk_full(self.root, 0, self._free(self.root))
                raise DiskFullError(f"the disk of {self.root} is full", hint=_ROOM, details=full.details) from None
            raise InvalidError(
                f"the adapter store {self.root} cannot be written: {error.strerror or error}",
                hint="Make it writable for this user, or declare another adapter_store for the target, or `none`.",
            ) from None


def _numbers(digest: str, names: Iterable[str]) -> set[int]:
    return {number for name in names if digest_of(name) == digest and (number := generation_of(name))}


def _holds(place: Path, digest: str) -> bool:
    try:
        with open_tree(place) as tree:
            return adapter_digest(place, tree) == digest
    except ModelInvalidError:
        return False


def _changed(source: Path) -> ModelInvalidError:
    return ModelInvalidError(f"the files at {source} are no longer those that were read", hint="Plan again.")


def _last_written(path: Path) -> float:
    """Return the time of the last write, in Unix seconds.

    Copied files may be as old as their source, so the directory's own time counts, too.
    """
    own = stat(path)
    return max([found.st_mtime for found in files_below(path)] + ([own.st_mtime] if own else []), default=0.0)
