"""SHA-256 of many files at once: a thread a core, since hashing and reading both let go of the interpreter's lock."""

import os
import threading
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.base.errors import ModelInvalidError
from garrison.models.files.content import open_file, unreadable
from garrison.models.files.progress import Progress, Silent

__all__ = ["hash_files"]

_BUFFER_BYTES = 1024 * 1024
_REPORT_BYTES = 16 * 1024 * 1024
_MAX_THREADS = 16


def hash_files(
    path: Path,
    files: Mapping[str, int],
    *,
    git_blobs: AbstractSet[str] = frozenset(),
    progress: Progress | None = None,
    threads: int | None = None,
    tree: Tree | None = None,
) -> dict[str, str]:
    """Hex digest of each of `files` (relative name to size), in parallel, largest first.

    Args:
        git_blobs: names to hash as git does (SHA-1 over a header and the content), as the hub names small blobs.
        tree: as in `content.open_file`.

    Raises:
        ModelInvalidError: a file cannot be read.
    """
    queue = sorted(files, key=lambda name: -files[name])
    progress = progress or Silent()
    work = _Hashing(path, iter(queue), git_blobs, progress, tree)
    count = max(1, min(threads or len(os.sched_getaffinity(0)), _MAX_THREADS, len(queue)))
    workers = [threading.Thread(target=work.run, name=f"hash-{number}") for number in range(count)]
    progress.started(len(queue), sum(files.values()), doing="hashing")
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        work.stopped.set()  # after Ctrl-C the workers end at their next block
        progress.finished()
    if work.fault is not None:
        raise work.fault
    return {name: work.digests[name] for name in sorted(work.digests)}


class _Hashing:
    """What the worker threads share."""

    def __init__(
        self,
        path: Path,
        queue: Iterator[str],
        git_blobs: AbstractSet[str],
        progress: Progress,
        tree: Tree | None = None,
    ) -> None:
        self.path = path
        self.tree = tree
        self.queue = queue
        self.git_blobs = git_blobs
        self.progress = progress
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.digests: dict[str, str] = {}
        self.fault: ModelInvalidError | None = None

    def run(self) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while not self.stopped.is_set():
            with self.lock:
                name = next(self.queue, None)
            if name is None:
                return
            try:
                self.digests[name] = self._hash(self.path / name, buffer, git=name in self.git_blobs)
            except ModelInvalidError as error:
                self.fault = error
                self.stopped.set()

    def _hash(self, path: Path, buffer: memoryview, *, git: bool) -> str:
        import hashlib

        try:
            with open(open_file(path, self.tree), "rb", buffering=0) as handle:
                descriptor = handle.fileno()
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                if git:
                    hasher = hashlib.sha1(b"blob %d\0" % os.fstat(descriptor).st_size, usedforsecurity=False)
                else:
                    hasher = hashlib.sha256(usedforsecurity=False)
                unreported = 0
                while (count := handle.readinto(buffer)) and not self.stopped.is_set():
                    hasher.update(buffer[:count])
                    unreported += count
                    if unreported >= _REPORT_BYTES:
                        self.progress.advanced(unreported)
                        unreported = 0
                self.progress.advanced(unreported)
        except OSError as error:
            raise unreadable(path, error) from None
        return hasher.hexdigest()
