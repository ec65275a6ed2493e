"""What requests were and took, since the last report to the control process. A request costs a lookup and some sums."""

from bisect import bisect_left
from operator import add
from typing import TYPE_CHECKING

from garrison.gateway.link.reports import (
    FIRST_BYTE_BOUNDS,
    GAP_BOUNDS,
    OVERHEAD_BOUNDS,
    SECONDS_BOUNDS,
    WAIT_BOUNDS,
    HistogramValue,
    UseValue,
    histogram,
)

if TYPE_CHECKING:
    from garrison.gateway.worker.accounts.account import Account

__all__ = ["Stats"]

_ERROR = 400
_MOST_ROWS = 10_000
"""Routes, targets and keys come from the tables, so that their number is bounded; this bounds their products."""


class Stats:
    """Sums by route, target and key."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int | None], UseValue] = {}

    def record(self, one: "Account") -> None:
        """Count a request that has ended."""
        row = self._rows.get((one.route, one.target, one.key)) or self._row(one.route, one.target, one.key)
        statuses, status = row.statuses, one.status
        statuses[status] = statuses.get(status, 0) + 1
        if one.outcome == "client-left":
            row.client_left += 1
        elif one.outcome != "ok" or status >= _ERROR:
            row.failed += 1
        _observe(row.seconds, SECONDS_BOUNDS, one.seconds)
        row.bytes_in += one.bytes_in
        row.bytes_out += one.bytes_out
        if one.tries > 1:
            row.retries += one.tries - 1
        if one.waited:
            _observe(row.waits, WAIT_BOUNDS, one.waited)
        if one.first_byte is not None:
            _observe(row.first_bytes, FIRST_BYTE_BOUNDS, one.first_byte)
            _observe(row.overheads, OVERHEAD_BOUNDS, one.overhead)
            if one.tokens is not None:
                tokens_in, tokens_out, cached = one.tokens
                row.tokens_in += tokens_in
                row.tokens_out += tokens_out
                row.tokens_cached += cached
            elif one.says_usage and 200 <= status < 300:
                row.uncounted += 1
            if one.gaps is not None and one.first_token is not None:
                _observe(row.first_tokens, FIRST_BYTE_BOUNDS, one.first_token)
                row.gaps.counts = list(map(add, row.gaps.counts, one.gaps))
                row.gaps.total += one.gaps_total

    def take(self) -> list[UseValue]:
        """Return what was counted, and begin anew."""
        rows, self._rows = self._rows, {}
        return list(rows.values())

    def _row(self, route: str, target: str, key_id: int | None) -> UseValue:
        if len(self._rows) >= _MOST_ROWS:
            route, target, key_id = "", "", None
        return self._rows.setdefault(
            (route, target, key_id),
            UseValue(
                route=route, target=target, key_id=key_id, seconds=histogram(SECONDS_BOUNDS),
                first_bytes=histogram(FIRST_BYTE_BOUNDS), first_tokens=histogram(FIRST_BYTE_BOUNDS),
                gaps=histogram(GAP_BOUNDS), overheads=histogram(OVERHEAD_BOUNDS), waits=histogram(WAIT_BOUNDS),
            ),
        )  # fmt: skip


def _observe(found: HistogramValue, bounds: tuple[float, ...], value: float) -> None:
    found.counts[bisect_left(bounds, value)] += 1
    found.total += value
