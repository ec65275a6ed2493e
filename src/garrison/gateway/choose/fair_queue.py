"""Which of the requests that wait goes next: fair among those who sent them, by priority, and nobody waits for ever.

Each holder of a key has a row of its own. A turn goes to the holder with the strongest claim, and there to the request
that came first. A claim is the priority of the holder, and grows by one for each `ageing` seconds since the holder's
last turn, or since its oldest request came, if that is later. So

- holders of equal priority take turns, however many requests each of them sends;
- one step of priority is worth `ageing` seconds of waiting, and a low priority gets a turn in the end.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["FairQueue", "Place"]

T = TypeVar("T")


class Place(Generic[T]):
    """One request in the queue.

    Attributes:
        at: when it came.
    """

    __slots__ = ("at", "holder", "item", "number")

    def __init__(self, item: T, holder: Hashable, number: int, at: float) -> None:
        self.item, self.holder, self.number, self.at = item, holder, number, at


class _Row(Generic[T]):
    """The requests of one holder, oldest first."""

    __slots__ = ("places", "priority", "since")

    def __init__(self, since: float) -> None:
        self.places: OrderedDict[int, Place[T]] = OrderedDict()
        self.priority = 0
        self.since = since


class FairQueue(Generic[T]):
    """The queue. A turn looks at each holder once; everything else costs the same however many wait.

    Args:
        ageing: seconds that count as much as one step of priority.
    """

    def __init__(self, ageing: float) -> None:
        self.ageing = ageing
        self._rows: dict[Hashable, _Row[T]] = {}
        self._count = 0
        self._number = 0

    def __len__(self) -> int:
        return self._count

    def put(self, item: T, holder: Hashable, priority: int, now: float) -> Place[T]:
        """Add a request.

        Args:
            priority: of the holder from now on.
            now: monotonic seconds.
        """
        row = self._rows.get(holder)
        if row is None:
            row = self._rows[holder] = _Row(now)
        row.priority = priority
        self._number += 1
        self._count += 1
        place = row.places[self._number] = Place(item, holder, self._number, now)
        return place

    def next(self, now: float) -> T | None:
        """Take out the request that goes next; None if none waits."""
        best: _Row[T] | None = None
        strongest = 0.0
        for row in self._rows.values():
            claim = row.priority + (now - row.since) / self.ageing
            if best is None or claim > strongest:
                best, strongest = row, claim
        if best is None:
            return None
        place = next(iter(best.places.values()))
        self.remove(place)
        best.since = now
        return place.item

    def remove(self, place: Place[T]) -> None:
        """Take out one that does not wait any more. A second call has no effect."""
        row = self._rows.get(place.holder)
        if row is None or row.places.pop(place.number, None) is None:
            return
        self._count -= 1
        if not row.places:
            del self._rows[place.holder]
        else:
            oldest = next(iter(row.places.values()))
            row.since = max(row.since, oldest.at)
