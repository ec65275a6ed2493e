"""One download: where it is, as a value that the event loop reads while threads work."""

import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from garrison.api.models.fetcher import Fetched
from garrison.api.models.wanted import Wanted
from garrison.base.errors import GarrisonError
from garrison.base.redaction import redacted
from garrison.models.files.stop_token import StopToken

__all__ = ["Download", "DownloadProgress", "DownloadState"]


class DownloadState(StrEnum):
    """llamactl's words."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def ended(self) -> bool:
        return self not in (DownloadState.QUEUED, DownloadState.DOWNLOADING)


class DownloadProgress:
    """`models.files.Progress` that keeps the numbers. Any thread may write and read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files = self._total = self._done = self._first = 0
        self._file = self._doing = self._message = ""
        self._since: float | None = None

    def step(self, name: str, **facts: Any) -> None:
        with self._lock:
            self._message = redacted(str(facts.get("message", name)))
            self._file = str(facts.get("file") or self._file)

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        with self._lock:
            self._doing, self._since = doing, time.monotonic()
            if doing == "downloading":  # the check after it counts bytes, too
                self._files, self._total, self._done, self._first = files, total, done, done

    def advanced(self, count: int) -> None:
        with self._lock:
            if self._doing == "downloading":
                self._done += count

    def finished(self) -> None:
        with self._lock:
            self._doing, self._since = "", None

    def to_json(self) -> dict[str, Any]:
        """llamactl's three fields, and what is known beyond them."""
        with self._lock:
            seconds = time.monotonic() - self._since if self._since is not None else 0.0
            rate = round((self._done - self._first) / seconds) if seconds > 0.5 and self._doing else None
            return {
                "bytes_downloaded": self._done,
                "total_bytes": self._total,
                "current_file": self._file,
                "files": self._files,
                "resumed_bytes": self._first,
                "bytes_per_second": rate,
                "message": self._message,
            }


@dataclass(eq=False, slots=True)
class Download:
    """One job.

    Attributes:
        fetched: the model, once it is completed.
        failure: why it failed.
    """

    id: str
    wanted: Wanted
    created: datetime
    state: DownloadState = DownloadState.QUEUED
    ended: datetime | None = None
    fetched: Fetched | None = None
    failure: GarrisonError | None = None
    progress: DownloadProgress = field(default_factory=DownloadProgress)
    stop: StopToken = field(default_factory=StopToken)

    def to_json(self) -> dict[str, Any]:
        """llamactl's job, with the failure as a whole and where the model is."""
        body: dict[str, Any] = {
            "id": self.id,
            "repo": self.wanted.repo,
            "tag": self.wanted.tag,
            "format": self.wanted.format,
            "status": str(self.state),
            "progress": self.progress.to_json(),
            "created_at": int(self.created.timestamp()),
        }
        if self.ended is not None:
            body["completed_at"] = int(self.ended.timestamp())
        if self.failure is not None:
            body |= {"error": self.failure.message, "failure": self.failure.to_json()}
        if self.fetched is not None:
            body["model"] = {
                "path": str(self.fetched.path), "source": self.fetched.source, "revision": self.fetched.revision,
            }  # fmt: skip
        return body
