"""What requests were and took, since the last report to the control process. A request costs a lookup and some sums."""

from bisect import bisect_left

from garrison.gateway.link.messages import UseValue
from garrison.gateway.requests.usage_tail import usage_of

__all__ = ["FIRST_BYTE_BOUNDS", "SECONDS_BOUNDS", "Stats"]

FIRST_BYTE_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SECONDS_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_MOST_ROWS = 10_000
"""Routes, targets and keys come from the tables, so that their number is bounded; this bounds their products."""


class Stats:
    """Sums by route, target and key."""

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, int | None], UseValue] = {}

    def record(
        self,
        route: str,
        target: str,
        key_id: int | None,
        *,
        status: int,
        seconds: float,
        first_byte: float | None,
        retries: int = 0,
        bytes_in: int = 0,
        bytes_out: int = 0,
        tail: bytes = b"",
    ) -> None:
        """Count a request that has ended.

        Args:
            status: of its answer; 499 where the client left before there was one.
            first_byte: seconds until the first byte of the answer; None without any.
            tail: the end of the answer's body, in which an engine says what was used.
        """
        key = (route, target, key_id)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= _MOST_ROWS:
                key = ("", "", None)
            row = self._rows.get(key) or self._rows.setdefault(
                key,
                UseValue(
                    route=key[0], target=key[1], key_id=key[2], seconds=[0] * (len(SECONDS_BOUNDS) + 1),
                    first_bytes=[0] * (len(FIRST_BYTE_BOUNDS) + 1),
                ),
            )  # fmt: skip
        row.statuses[status] = row.statuses.get(status, 0) + 1
        row.seconds[bisect_left(SECONDS_BOUNDS, seconds)] += 1
        row.seconds_sum += seconds
        if first_byte is not None:
            row.first_bytes[bisect_left(FIRST_BYTE_BOUNDS, first_byte)] += 1
            row.first_bytes_sum += first_byte
        row.retries += retries
        row.bytes_in += bytes_in
        row.bytes_out += bytes_out
        if tail and (found := usage_of(tail)) is not None:
            row.tokens_in += found[0]
            row.tokens_out += found[1]
            row.tokens_cached += found[2]

    def take(self) -> list[UseValue]:
        """Return what was counted, and begin anew."""
        rows, self._rows = self._rows, {}
        return list(rows.values())
