"""What is to be stored: sums by key and route, sent in batches, one at a time, each until it is on disk. Pure."""

from collections.abc import Iterable

import msgspec

from garrison.gateway.link.reports import Spent, SpentValue, UseValue

__all__ = ["Ledger"]

_MOST_ROWS = 10_000


class Ledger:
    """Sums that are not on disk yet.

    Args:
        source: a random name of this process.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._rows: dict[tuple[str, int | None], SpentValue] = {}
        self._number = 0
        self._ends = False
        self._sent: Spent | None = None

    def add(self, uses: Iterable[UseValue]) -> None:
        """Add to the sums."""
        for use in uses:
            _add(self._row(use.route, use.key_id), use)

    def next(self) -> Spent | None:
        """Return the batch to send now; None while one is not on disk yet, or where there is nothing to store."""
        if self._sent is not None or not self._rows:
            return None
        self._number += 1
        self._sent = Spent(source=self._source, number=self._number, rows=list(self._rows.values()), ends=self._ends)
        self._rows = {}
        return self._sent

    def end(self) -> Spent | None:
        """The process ends: from now on each batch says so. Return the one under way, to send it again."""
        self._ends = True
        if self._sent is not None:
            self._sent = msgspec.structs.replace(self._sent, ends=True)
        return self._sent

    def unstored(self) -> Spent | None:
        """Return the batch of which it is not known whether it is on disk, to send it again."""
        return self._sent

    def stored(self, number: int) -> None:
        """A batch is on disk."""
        if self._sent is not None and self._sent.number <= number:
            self._sent = None

    @property
    def is_empty(self) -> bool:
        """Everything is on disk."""
        return self._sent is None and not self._rows

    def _row(self, route: str, key_id: int | None) -> SpentValue:
        key = (route, key_id)
        if key not in self._rows and len(self._rows) >= _MOST_ROWS:
            key = ("", None)
        return self._rows.setdefault(key, SpentValue(route=key[0], key_id=key[1]))


def _add(row: SpentValue, use: UseValue) -> None:
    row.requests += sum(use.statuses.values())
    row.client_left += use.client_left
    row.failed += use.failed
    row.uncounted += use.uncounted
    row.tokens_in += use.tokens_in
    row.tokens_out += use.tokens_out
    row.tokens_cached += use.tokens_cached
    row.bytes_in += use.bytes_in
    row.bytes_out += use.bytes_out
    row.seconds += use.seconds.total
