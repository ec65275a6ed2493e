"""What all workers have reported: sums since the start of this server, as metrics."""

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily, Metric

from garrison.gateway.link.messages import UseValue
from garrison.gateway.worker.stats import FIRST_BYTE_BOUNDS, SECONDS_BOUNDS

__all__ = ["Totals"]

_LABELS = ("route", "target", "key")
_MOST_ROWS = 10_000


class _Sums:
    """The sums of one route, target and key."""

    __slots__ = ("first_bytes", "first_bytes_sum", "seconds", "seconds_sum", "statuses", "totals")

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds = [0] * (len(SECONDS_BOUNDS) + 1)
        self.first_bytes = [0] * (len(FIRST_BYTE_BOUNDS) + 1)
        self.seconds_sum = self.first_bytes_sum = 0.0
        self.totals: Counter[str] = Counter()


class Totals:
    """Sums by route, target and key."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str, str], _Sums] = {}

    def add(self, uses: Sequence[UseValue]) -> None:
        """Add what a worker has reported."""
        for use in uses:
            key = (use.route, use.target, "" if use.key_id is None else str(use.key_id))
            if key not in self._rows and len(self._rows) >= _MOST_ROWS:
                key = ("", "", "")
            row = self._rows.setdefault(key, _Sums())
            row.statuses.update(use.statuses)
            row.seconds = _summed(row.seconds, use.seconds)
            row.first_bytes = _summed(row.first_bytes, use.first_bytes)
            row.seconds_sum += use.seconds_sum
            row.first_bytes_sum += use.first_bytes_sum
            row.totals.update(
                {"in": use.tokens_in, "out": use.tokens_out, "cached": use.tokens_cached, "retries": use.retries,
                 "bytes_in": use.bytes_in, "bytes_out": use.bytes_out}
            )  # fmt: skip

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        requests = CounterMetricFamily(
            "garrison_gateway_requests", "Requests that have ended, by the status of the answer; 499: the client left.",
            labels=(*_LABELS, "status"),
        )  # fmt: skip
        tokens = CounterMetricFamily(
            "garrison_gateway_tokens", "Tokens, as the engines say.", labels=(*_LABELS, "kind")
        )
        sizes = CounterMetricFamily("garrison_gateway_bytes", "Bytes of bodies.", labels=(*_LABELS, "direction"))
        retries = CounterMetricFamily("garrison_gateway_retries", "Requests that were sent again.", labels=_LABELS)
        seconds = HistogramMetricFamily("garrison_gateway_seconds", "Until the end of the answer.", labels=_LABELS)
        first = HistogramMetricFamily(
            "garrison_gateway_first_byte_seconds", "Until the first byte of the answer.", labels=_LABELS
        )
        for key, row in self._rows.items():
            for status, count in row.statuses.items():
                requests.add_metric((*key, str(status)), count)
            for kind in ("in", "out", "cached"):
                tokens.add_metric((*key, kind), row.totals[kind])
            for direction in ("in", "out"):
                sizes.add_metric((*key, direction), row.totals[f"bytes_{direction}"])
            retries.add_metric(key, row.totals["retries"])
            seconds.add_metric(key, _buckets(SECONDS_BOUNDS, row.seconds), row.seconds_sum)
            first.add_metric(key, _buckets(FIRST_BYTE_BOUNDS, row.first_bytes), row.first_bytes_sum)
        yield from (requests, tokens, sizes, retries, seconds, first)


def _summed(one: Sequence[int], other: Sequence[int]) -> list[int]:
    return [a + b for a, b in zip(one, other, strict=True)]


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, total))
    return found
