"""Names in batches: both databases limit the parameters of a statement to some ten thousand."""

from collections.abc import Collection, Iterator
from itertools import islice

__all__ = ["batches"]

_BATCH = 500


def batches(names: Collection[str]) -> Iterator[list[str]]:
    """Yield the names in batches, sorted, each name once."""
    rest = iter(sorted(set(names)))
    while some := list(islice(rest, _BATCH)):
        yield some
