"""What all workers have reported, as metrics: sums since the start of this server, and what is in progress now."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from garrison.gateway.choose.breaker import BreakerState
from garrison.gateway.link.reports import (
    FIRST_BYTE_BOUNDS,
    GAP_BOUNDS,
    OVERHEAD_BOUNDS,
    SECONDS_BOUNDS,
    WAIT_BOUNDS,
    HistogramValue,
    Used,
    UseValue,
    histogram,
)

__all__ = ["Totals"]

Labels = tuple[str, str, str]
_LABELS = ("route", "target", "key")
_MOST_ROWS = 1000
_OTHERS: Labels = ("", "", "")
"""Stands for what is beyond that: each row is some hundred lines of a scrape."""
_HISTOGRAMS = {
    "seconds": ("garrison_gateway_seconds", "Until the end of the answer.", SECONDS_BOUNDS),
    "first_bytes": ("garrison_gateway_first_byte_seconds", "Until the first byte of the answer.", FIRST_BYTE_BOUNDS),
    "first_tokens": ("garrison_gateway_first_token_seconds", "Until a stream said something.", FIRST_BYTE_BOUNDS),
    "gaps": (
        "garrison_gateway_inter_token_seconds", "Between two reads of a stream: a token each, if none came together.",
        GAP_BOUNDS,
    ),
    "overheads": ("garrison_gateway_overhead_seconds", "In the gateway's own code.", OVERHEAD_BOUNDS),
    "waits": (
        "garrison_gateway_queue_seconds", "For a place or for the target, of requests that waited.", WAIT_BOUNDS,
    ),
}  # fmt: skip
_STATES = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}


@dataclass(slots=True)
class _Sums:
    """The sums of one route, target and key."""

    statuses: Counter[int] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    histograms: dict[str, HistogramValue] = field(
        default_factory=lambda: {name: histogram(bounds) for name, (_, _, bounds) in _HISTOGRAMS.items()}
    )

    def add(self, use: UseValue) -> None:
        self.statuses.update(use.statuses)
        self.totals.update(
            {"in": use.tokens_in, "out": use.tokens_out, "cached": use.tokens_cached, "retries": use.retries,
             "bytes_in": use.bytes_in, "bytes_out": use.bytes_out}
        )  # fmt: skip
        for name, found in self.histograms.items():
            given: HistogramValue = getattr(use, name)
            found.counts = [one + other for one, other in zip(found.counts, given.counts, strict=True)]
            found.total += given.total

    def copy(self) -> "_Sums":
        """Return sums that stay as they are. Counts of a histogram are replaced as a whole, and so can be shared."""
        same = {name: HistogramValue(counts=one.counts, total=one.total) for name, one in self.histograms.items()}
        return _Sums(Counter(self.statuses), Counter(self.totals), same)


class Totals:
    """Sums by route, target and key.

    Args:
        targets: returns the ids of all targets, for the states of their breakers.
    """

    def __init__(self, targets: Callable[[], Iterable[str]] = lambda: ()) -> None:
        self._targets = targets
        self._rows: dict[Labels, _Sums] = {}
        self._now: dict[Hashable, Used] = {}
        self._lost = 0

    def add(self, worker: Hashable, used: Used) -> None:
        """Add what a worker has reported."""
        for use in used.uses:
            self._row(_labels(use.route, use.target, use.key_id)).add(use)
        self._now[worker] = used

    def copy(self) -> "Totals":
        """Return sums as they are now, which another thread may collect."""
        targets = tuple(self._targets())
        found = Totals(lambda: targets)
        found._rows = {key: row.copy() for key, row in self._rows.items()}
        found._now, found._lost = dict(self._now), self._lost
        return found

    def lose(self, count: int) -> None:
        """Count requests that were carried and not reported one by one."""
        self._lost += count

    def forget(self, worker: Hashable) -> None:
        """A worker has gone: nothing is in progress there."""
        self._now.pop(worker, None)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._counted()
        for name, (metric, text, bounds) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(metric, text, labels=_LABELS)
            for key, row in self._rows.items():
                found = row.histograms[name]
                if any(found.counts):
                    family.add_metric(key, _buckets(bounds, found.counts), found.total)
            yield family
        yield from self._in_progress()
        yield self._breakers()
        lost = CounterMetricFamily(
            "garrison_gateway_requests_not_listed", "Requests that are in the sums and in no list: they were too many."
        )
        lost.add_metric((), self._lost)
        yield lost

    def _row(self, key: Labels) -> _Sums:
        if key not in self._rows and len(self._rows) >= _MOST_ROWS:
            key = _OTHERS
        return self._rows.setdefault(key, _Sums())

    def _counted(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "garrison_gateway_requests", "Requests that have ended, by the status of the answer; 499: the client left.",
            labels=(*_LABELS, "status"),
        )  # fmt: skip
        tokens = CounterMetricFamily(
            "garrison_gateway_tokens", "Tokens, as the engines say.", labels=(*_LABELS, "kind")
        )
        sizes = CounterMetricFamily("garrison_gateway_bytes", "Bytes of bodies.", labels=(*_LABELS, "direction"))
        retries = CounterMetricFamily("garrison_gateway_retries", "Requests that were sent again.", labels=_LABELS)
        for key, row in self._rows.items():
            for status, count in row.statuses.items():
                requests.add_metric((*key, str(status)), count)
            for kind in ("in", "out", "cached"):
                tokens.add_metric((*key, kind), row.totals[kind])
            for direction in ("in", "out"):
                sizes.add_metric((*key, direction), row.totals[f"bytes_{direction}"])
            retries.add_metric(key, row.totals["retries"])
        yield from (requests, tokens, sizes, retries)

    def _in_progress(self) -> Iterator[Metric]:
        running: Counter[Labels] = Counter()
        waiting: Counter[Labels] = Counter()
        for used in self._now.values():
            for one in used.in_progress:
                key = _labels(one.route, one.target, one.key_id)
                if key not in running and len(running) >= _MOST_ROWS:
                    key = _OTHERS
                running[key] += one.count
                waiting[key] += one.waiting
        for metric, text, found in (
            ("garrison_gateway_in_flight", "Requests in progress.", running),
            (
                "garrison_gateway_queued",
                "Of these, those that wait for a place, a target or a connection.",
                waiting,
            ),
        ):
            family = GaugeMetricFamily(metric, text, labels=_LABELS)
            for key, count in found.items():
                family.add_metric(key, count)
            yield family

    def _breakers(self) -> Metric:
        text = "Of a target: 0 is closed, 1 is half open, 2 is open; the worst of all workers."
        family = GaugeMetricFamily("garrison_gateway_breaker", text, labels=("target",))
        said = [used.breakers for used in self._now.values()]
        for target in self._targets():
            family.add_metric((target,), max((_state(one, target) for one in said), default=0))
        return family


def _labels(route: str, target: str, key_id: int | None) -> Labels:
    return route, target, "" if key_id is None else str(key_id)


def _state(breakers: Mapping[str, str], target: str) -> int:
    return _STATES.get(BreakerState(breakers.get(target, BreakerState.CLOSED)), 0)


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    total = 0
    for bound, count in zip((*map(str, bounds), "+Inf"), counts, strict=True):
        total += count
        found.append((bound, total))
    return found
