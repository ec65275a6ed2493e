"""Which of an engine's metrics mean what, and a reader of its metrics page. Pure.

The page comes from a peer: it is read line by line, in time that grows with its length, and a value that cannot be
right counts as missing.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["Metric", "MetricsPage", "Reading", "Throughput", "read_metrics", "throughput"]

_MOST_TOGETHER = 1e15


@dataclass(frozen=True, slots=True)
class Metric:
    """One quantity.

    Attributes:
        names: the engine's name for it; further ones are those of older versions.
        combine: what several samples amount to, one for each engine core or registry: their `sum`, or the `max`.
    """

    names: tuple[str, ...]
    combine: Literal["sum", "max"] = "sum"


@dataclass(frozen=True, slots=True)
class MetricsPage:
    """Where an engine's metrics are, and what they are called. None: the engine does not tell.

    Attributes:
        arguments: what the engine must be started with to have the page.
        needs_key: it is refused without the key that clients of the engine send.
        running: requests that are being computed now.
        waiting: requests that wait for a place.
        kv_cache: part of the KV cache that is in use, 0 to 1.
        prompt_tokens, generated_tokens: counters since the start. Throughput is their growth: the averages that engines
            offer as gauges are over windows of their own, or since the last time that anybody asked.
        started_at: Unix seconds at which the process started; another value means another process.
        start_header: the response header that changes with the process, where no metric does. Its unit is the engine's.
    """

    path: str = "/metrics"
    arguments: tuple[str, ...] = ()
    needs_key: bool = False
    running: Metric | None = None
    waiting: Metric | None = None
    kv_cache: Metric | None = None
    prompt_tokens: Metric | None = None
    generated_tokens: Metric | None = None
    started_at: Metric | None = None
    start_header: str | None = None


@dataclass(frozen=True, slots=True)
class Reading:
    """What a page said. None where it has no such metric, or a value that cannot be right."""

    running: int | None = None
    waiting: int | None = None
    kv_cache: float | None = None
    prompt_tokens: float | None = None
    generated_tokens: float | None = None
    started_at: float | None = None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Tokens per second. None where the readings do not tell."""

    prompt: float | None
    generated: float | None


def read_metrics(text: str, page: MetricsPage) -> Reading:
    """Read a page in the Prometheus text format. The caller bounds its length."""
    found = _samples(text, page)

    def value(metric: Metric | None, most: float = _MOST_TOGETHER) -> float | None:
        for name in metric.names if metric is not None else ():
            if samples := found.get(name):
                assert metric is not None
                together = sum(samples) if metric.combine == "sum" else max(samples)
                return together if 0 <= together <= most else None
        return None

    running, waiting = value(page.running, 1e9), value(page.waiting, 1e9)
    return Reading(
        running=None if running is None else int(running),
        waiting=None if waiting is None else int(waiting),
        kv_cache=value(page.kv_cache, 1.0),
        prompt_tokens=value(page.prompt_tokens),
        generated_tokens=value(page.generated_tokens),
        started_at=value(page.started_at, 1e11),
    )


def throughput(before: Reading, after: Reading, seconds: float) -> Throughput:
    """Tokens per second between two readings, `seconds` apart; None across a restart, which resets the counters."""
    if before.started_at != after.started_at or seconds <= 0:
        return Throughput(None, None)

    def rate(old: float | None, new: float | None) -> float | None:
        return (new - old) / seconds if old is not None and new is not None and new >= old else None

    return Throughput(
        rate(before.prompt_tokens, after.prompt_tokens), rate(before.generated_tokens, after.generated_tokens)
    )


def _samples(text: str, page: MetricsPage) -> dict[str, list[float]]:
    """The finite values of the metrics that the page names, by their name."""
    found: dict[str, list[float]] = {}
    names = sorted(_names(page))
    if not names:
        return found
    # Labels may hold anything, a `}` too: the value stands behind the last one of its line.
    pattern = re.compile(rf"^({'|'.join(map(re.escape, names))})(?:\{{.*\}})?[ \t]+(\S{{1,40}})", re.MULTILINE)
    for name, given in pattern.findall(text):
        try:
            value = float(given)
        except ValueError:
            continue
        if math.isfinite(value):
            found.setdefault(name, []).append(value)
    return found


def _names(page: MetricsPage) -> Iterator[str]:
    metrics = (
        page.running,
        page.waiting,
        page.kv_cache,
        page.prompt_tokens,
        page.generated_tokens,
        page.started_at,
    )
    for metric in metrics:
        if metric is not None:
            yield from metric.names
