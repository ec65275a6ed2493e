"""Names in batches: both databases take some ten thousand parameters in one statement."""

from collections.abc import Collection, Iterator
from itertools import islice

__all__ = ["batches"]

_BATCH = 500


def batches(names: Collection[str]) -> Iterator[list[str]]:
    """Sorted, each name once."""
    rest = iter(sorted(set(names)))
    while some := list(islice(rest, _BATCH)):
        yield some
