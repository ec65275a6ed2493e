"""Names that take turns in proportion to their weights: exactly over time, evenly in between, in O(log n) a turn.

Each name is due at times that are 1/weight apart; the one that is due first has its turn. Where in its first interval a
name begins is spread out, so that a heavy name does not have all its turns in a row.
"""

from collections.abc import Callable, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from math import isfinite
from typing import TypeAlias

from garrison.base.errors import InvalidError

__all__ = ["Turns"]

_SPREAD = 0.6180339887498949
"""The golden ratio: its multiples, modulo 1, lie evenly for any number of them."""
_MOST_ASKED = 64
_Place: TypeAlias = tuple[float, int, str, float]
"""When a name is due, what decides between equals, the name, and the time between two of its turns."""


class Turns:
    """Turns of names with weights, such as the versions of an adapter behind an alias, 90 to 10."""

    __slots__ = ("_queue", "_time")

    def __init__(self, weights: Mapping[str, float]) -> None:
        """Begin. A name with the weight 0 has no turns.

        Raises:
            InvalidError: a weight is below 0 or not finite, or no name has any.
        """
        self._time = 0.0
        self._queue: list[_Place] = []
        self.reweigh(weights)

    def next(self) -> str:
        due, place, name, interval = self._queue[0]
        heapreplace(self._queue, (due + interval, place, name, interval))
        self._time = due
        return name

    def next_of(self, may: Callable[[str], bool]) -> str | None:
        """Give the turn to the first in the row who may have it. Who may not loses its turn.

        Return None if nobody may of those who are asked, 64 at most.
        """
        called: list[_Place] = []
        found = None
        while self._queue and found is None and len(called) < _MOST_ASKED:
            called.append(heappop(self._queue))
            due, _, name, _ = called[-1]
            if may(name):
                self._time, found = due, name
        for due, place, name, interval in called:
            # Turns that were lost are not made up for.
            heappush(self._queue, (max(due + interval, self._time), place, name, interval))
        return found

    def reweigh(self, weights: Mapping[str, float]) -> None:
        """Go on with other names or weights. Who is in both keeps its place in the row."""
        if any(weight < 0 or not isfinite(weight) for weight in weights.values()) or not any(weights.values()):
            raise InvalidError(
                f"these weights cannot be used: {dict(weights)}",
                hint="Give each a number, 0 or above, and at least one of them more than 0.",
            )
        waits = {name: (due - self._time) / interval for due, _, name, interval in self._queue}
        self._time = 0.0
        self._queue = [
            (waits.get(name, place * _SPREAD % 1) / weight, place, name, 1 / weight)
            for place, (name, weight) in enumerate(weights.items())
            if weight > 0
        ]
        heapify(self._queue)
