"""When each target is looked at next. No I/O."""

import heapq

__all__ = ["Schedule"]

_SPARE = 64
"""Outdated heap entries that are tolerated beyond one per target."""


class Schedule:
    """Due times by target, in monotonic seconds.

    A heap, so that one due target among thousands is found without visiting the others. A changed time leaves its old
    entry in the heap, where it is skipped later.
    """

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __contains__(self, target: object) -> bool:
        return target in self._due

    def set(self, target: str, due: float) -> None:
        """Schedule `target` at `due`, instead of any earlier time set."""
        self._due[target] = due
        if len(self._heap) > 2 * len(self._due) + _SPARE:
            self._heap = [(at, name) for name, at in self._due.items()]
            heapq.heapify(self._heap)
        else:
            heapq.heappush(self._heap, (due, target))

    def drop(self, target: str) -> None:
        """Forget `target`."""
        self._due.pop(target, None)

    def take_due(self, now: float) -> list[str]:
        """Remove and return the targets that are due, the longest overdue first."""
        taken = []
        while self.next_due() <= now:
            _, target = heapq.heappop(self._heap)
            del self._due[target]
            taken.append(target)
        return taken

    def next_due(self) -> float:
        """Return the earliest due time; infinity if nothing is scheduled."""
        while self._heap and self._due.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else float("inf")
