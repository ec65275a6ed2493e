"""The ring of consistent hashing: the points of all targets, in order.

A target's points follow from its id and its weight alone, so when another one joins or leaves they stay where they are.
"""

from bisect import bisect_right
from collections.abc import Iterator
from hashlib import blake2b
from math import frexp
from struct import unpack
from zlib import crc32

from garrison.gateway.choose.candidate import Candidate, Candidates

__all__ = ["Ring", "point_of"]

_POINTS = 64
"""The heaviest target has so many, or up to twice as many, and the others in proportion. With more, keys are spread
more evenly, and a change takes longer: with these it takes 30 ms on a route of a thousand targets."""
_A_DIGEST = 16
"""Points that one digest gives."""
_SCRAMBLE = 0x9E3779B1
_MASK = 0xFFFFFFFF


def point_of(key: bytes) -> int:
    """Return where a key lies; the same in every process. A sixth of the cost of a cryptographic hash."""
    return crc32(key) * _SCRAMBLE & _MASK


class Ring:
    """The points of some candidates. Made in O(n log n) by `follow`; walked from a key by `walk`."""

    __slots__ = ("_owners", "_places", "_points")

    def __init__(self) -> None:
        self._points: dict[str, tuple[int, ...]] = {}
        self._places: list[int] = []
        self._owners: list[Candidate] = []

    def follow(self, candidates: Candidates) -> None:
        """Put these on the ring instead of those before. What was worked out for one that stays is used again."""
        unit = 2.0 ** frexp(max(candidate.weight for candidate in candidates))[1] / 2
        points = {one.id: self._points_of(one.id, max(1, round(_POINTS * one.weight / unit))) for one in candidates}
        owners: dict[int, Candidate] = {}
        for one in candidates:
            for place in points[one.id]:
                # Whose a point is that two have must not depend on who came first.
                if (other := owners.setdefault(place, one)) is not one and one.id < other.id:
                    owners[place] = one
        self._points = points
        self._places = sorted(owners)
        self._owners = [owners[place] for place in self._places]

    def walk(self, point: int) -> Iterator[Candidate]:
        """Yield the owners of the points that follow, once around. One may come several times."""
        start = bisect_right(self._places, point)
        owners = self._owners
        for place in range(start - len(owners), start):
            yield owners[place]

    def _points_of(self, id: str, count: int) -> tuple[int, ...]:
        known = self._points.get(id, ())
        if len(known) == count:
            return known
        found: list[int] = []
        for number in range(-(-count // _A_DIGEST)):
            found += unpack(f"<{_A_DIGEST}I", blake2b(f"{number} {id}".encode()).digest())
        return tuple(found[:count])
