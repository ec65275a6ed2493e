"""SHA-256 of many files, in one thread per core: hashing and reading both release the interpreter's lock."""

import os
import threading
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from garrison.base.beneath import Tree
from garrison.models.files.broadcast import Guarded
from garrison.models.files.content import open_file, unreadable
from garrison.models.files.progress import Progress, Silent
from garrison.models.files.stop_token import StoppedError, StopToken, join_all

__all__ = ["RECORDED_NAME", "hash_files"]

#: The file in a model's directory that keeps its digests.
RECORDED_NAME = ".garrison.sha256"

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
    stop: StopToken | None = None,
) -> dict[str, str]:
    """Return the hex digest of each of `files` (relative name to size). Hashes in parallel, largest first.

    Args:
        git_blobs: files to hash as git does (SHA-1 over a header and the content); the hub names small blobs so.
        progress: called in the threads that hash; an error that it raises does not end the work.
        tree: as in `content.open_file`.

    Raises:
        ModelInvalidError: a file cannot be read.
        StoppedError: `stop` was stopped; names the threads that hang in a read.
    """
    stop = stop or StopToken()
    stop.check()
    queue = sorted(files, key=lambda name: -files[name])
    progress = Guarded(progress or Silent())
    work = _Hashing(path, iter(queue), git_blobs, progress, stop, tree)
    count = max(1, min(threads or len(os.sched_getaffinity(0)), _MAX_THREADS, len(queue)))
    # Daemons: one that a stop leaves behind in a read from a dead network mount must not hold up the exit.
    workers = [threading.Thread(target=work.run, name=f"hash-{number}", daemon=True) for number in range(count)]
    progress.started(len(queue), sum(files.values()), doing="hashing")
    try:
        for worker in workers:
            worker.start()
        left = join_all(workers, stop)
    finally:
        work.ended.set()  # after Ctrl-C the workers end at their next block
        progress.finished()
    if stop.stopped:
        raise StoppedError(left)
    if work.fault is not None:
        raise work.fault
    return {name: work.digests[name] for name in sorted(work.digests)}


class _Hashing:
    """The state that the worker threads share."""

    def __init__(
        self,
        path: Path,
        queue: Iterator[str],
        git_blobs: AbstractSet[str],
        progress: Progress,
        stop: StopToken,
        tree: Tree | None,
    ) -> None:
        self.path = path
        self.tree = tree
        self.queue = queue
        self.git_blobs = git_blobs
        self.progress = progress
        self.stop = stop
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.digests: dict[str, str] = {}
        self.fault: BaseException | None = None

    @property
    def stopped(self) -> bool:
        return self.ended.is_set() or self.stop.stopped

    def run(self) -> None:
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while not self.stopped:
            with self.lock:
                name = next(self.queue, None)
            if name is None:
                return
            try:
                self.digests[name] = self._hash(self.path / name, buffer, git=name in self.git_blobs)
            except BaseException as error:  # noqa: BLE001 - not dropped: the caller raises it, and gets no digests
                self.fault = error
                self.ended.set()

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
                while (count := handle.readinto(buffer)) and not self.stopped:
                    hasher.update(buffer[:count])
                    unreported += count
                    if unreported >= _REPORT_BYTES:
                        self.progress.advanced(unreported)
                        unreported = 0
                self.progress.advanced(unreported)
        except OSError as error:
            raise unreadable(path, error) from None
        return hasher.hexdigest()
