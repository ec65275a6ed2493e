"""The twin of what a long step reports."""

import threading
from typing import Any

__all__ = ["MemoryProgress"]


class MemoryProgress:
    """`Progress` that records.

    Attributes:
        steps: (name, facts) per step.
        transfers: (files, total bytes, bytes done before) per transfer.
        bytes: sum of what `advanced` reported.
        open: a transfer is running.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, dict[str, Any]]] = []
        self.transfers: list[tuple[int, int, int]] = []
        self.bytes = 0
        self.open = False
        self._lock = threading.Lock()

    def step(self, name: str, **facts: Any) -> None:
        self.steps.append((name, facts))

    def started(self, files: int, total: int, done: int = 0, *, doing: str = "downloading") -> None:
        self.transfers.append((files, total, done))
        self.open = True

    def advanced(self, count: int) -> None:
        with self._lock:
            self.bytes += count

    def finished(self) -> None:
        self.open = False
