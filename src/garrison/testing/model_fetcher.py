"""The twin of the sources of models."""

import threading
from dataclasses import dataclass, field
from pathlib import Path

from garrison.api.models.wanted import Wanted
from garrison.base.errors import GarrisonError
from garrison.models.files.progress import Progress
from garrison.models.files.stop_token import StopToken

__all__ = ["MemoryFetched", "MemoryFetcher"]

_SLICE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class MemoryFetched:
    """`Fetched` of nothing."""

    path: Path
    source: str = "hf-hub"
    revision: str | None = "c0ffee"


@dataclass
class MemoryFetcher:
    """`Fetcher` that downloads nothing: it reports `total` bytes, half of which arrive before `hold` is set.

    Attributes:
        hold: while it is clear, downloads wait in the middle.
        fails: by repository, raised at the end.
        left: by repository, bytes that earlier calls got before they were stopped.
        asked: the repositories, in order; `running` those at work, `most` the largest number at once.
    """

    total: int = 1000
    hold: threading.Event = field(default_factory=threading.Event)
    fails: dict[str, GarrisonError | Exception] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    running: set[str] = field(default_factory=set)
    most: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fetch(self, wanted: Wanted, progress: Progress, stop: StopToken) -> MemoryFetched:
        repo = wanted.repo
        with self._lock:
            self.asked.append(repo)
            self.running.add(repo)
            self.most = max(self.most, len(self.running))
        try:
            before = self.left.get(repo, 0)
            progress.started(1, self.total, before)
            half = max(0, self.total // 2 - before)
            progress.advanced(half)
            self.left[repo] = before + half
            while not self.hold.wait(_SLICE_SECONDS):
                stop.check()
            stop.check()
            if repo in self.fails:
                raise self.fails[repo]
            progress.advanced(self.total - before - half)
            progress.finished()
        finally:
            with self._lock:
                self.running.discard(repo)
        return MemoryFetched(Path("/models") / repo)
