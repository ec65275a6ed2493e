"""The gateway's metrics: what Prometheus reads of the workers' reports, and how many rows there can be."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from garrison.gateway.link.reports import (
    FIRST_BYTE_BOUNDS,
    GAP_BOUNDS,
    OVERHEAD_BOUNDS,
    SECONDS_BOUNDS,
    WAIT_BOUNDS,
    HistogramValue,
    InProgressValue,
    Used,
    UseValue,
    histogram,
)
from garrison.server.workers import totals
from garrison.server.workers.totals import Totals

LABELS = ("route", "target", "key", "status", "kind", "direction", "le")


def use(route: str = "m", target: str = "t", key: int | None = 5, **values: object) -> UseValue:
    made = UseValue(
        route=route, target=target, key_id=key, statuses={200: 1}, seconds=histogram(SECONDS_BOUNDS),
        first_bytes=histogram(FIRST_BYTE_BOUNDS), first_tokens=histogram(FIRST_BYTE_BOUNDS), gaps=histogram(GAP_BOUNDS),
        overheads=histogram(OVERHEAD_BOUNDS), waits=histogram(WAIT_BOUNDS),
    )  # fmt: skip
    for name, value in values.items():
        setattr(made, name, value)
    return made


def scraped(found: Totals) -> dict[tuple[str, ...], float]:
    """Samples by name and the values of their labels, as a scrape has them."""

    class Collector:
        def collect(self) -> list[Metric]:
            return list(found.collect())

    registry = CollectorRegistry()
    registry.register(Collector())  # type: ignore[arg-type]  # it has all that is called
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (
            one.name.removeprefix("garrison_gateway_"),
            *(one.labels[name] for name in LABELS if name in one.labels),
        ): one.value
        for family in families
        for one in family.samples
    }


def counts(size: int, *places: int) -> HistogramValue:
    found = [0] * (size + 1)
    for place in places:
        found[place] += 1
    return HistogramValue(found, 1.5)


def test_reports_of_several_workers_are_summed() -> None:
    found = Totals()
    gaps = counts(len(GAP_BOUNDS), 0, 0, 1, len(GAP_BOUNDS))
    found.add("w1", Used(uses=[use(tokens_in=3, retries=1, bytes_out=9, gaps=gaps)]))
    found.add("w2", Used(uses=[use(statuses={200: 1, 499: 2}, tokens_cached=2, gaps=gaps)]))
    samples = scraped(found)
    who = ("m", "t", "5")
    assert samples["requests_total", *who, "200"] == 2
    assert samples["requests_total", *who, "499"] == 2
    assert samples["tokens_total", *who, "in"] == 3
    assert samples["tokens_total", *who, "cached"] == 2
    assert samples["retries_total", *who] == 1
    assert samples["bytes_total", *who, "out"] == 9
    assert [samples["inter_token_seconds_bucket", *who, at] for at in ("0.002", "0.005", "5.0", "+Inf")] == [4, 6, 6, 8]
    assert samples["inter_token_seconds_sum", *who] == 3.0
    assert ("queue_seconds_count", *who) not in samples, "nothing waited"


def test_what_is_in_progress_is_as_of_now_and_ends_with_its_worker() -> None:
    found = Totals(lambda: ["t", "u"])
    now = InProgressValue(route="m", target="t", key_id=None, count=3, waiting=2)
    found.add("w1", Used(uses=[], in_progress=[now], breakers={"u": "open"}))
    found.add("w2", Used(uses=[], in_progress=[now], breakers={"u": "half-open"}))
    samples = scraped(found)
    assert samples["in_flight", "m", "t", ""] == 6
    assert samples["queued", "m", "t", ""] == 4
    assert (samples["breaker", "t"], samples["breaker", "u"]) == (0, 2), "the worst of all workers"
    found.forget("w1")
    samples = scraped(found)
    assert (samples["in_flight", "m", "t", ""], samples["breaker", "u"]) == (3, 1)


def test_there_are_no_more_rows_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "_MOST_ROWS", 2)
    found = Totals()
    found.add("w", Used(uses=[use(route=str(number)) for number in range(5)]))
    found.lose(7)
    samples = scraped(found)
    requests = {key[1:4]: value for key, value in samples.items() if key[0] == "requests_total"}
    assert requests == {("0", "t", "5"): 1, ("1", "t", "5"): 1, ("", "", ""): 3}
    assert samples["requests_not_listed_total",] == 7


def test_a_copy_is_collected_as_it_was() -> None:
    targets = ["t"]
    found = Totals(lambda: targets)
    found.add("w", Used(uses=[use(tokens_in=7, seconds=HistogramValue(counts=counts(len(SECONDS_BOUNDS), 0).counts))]))
    before, copied = scraped(found), found.copy()
    assert before
    found.add("w", Used(uses=[use(tokens_in=7), use("n")], in_progress=[], breakers={"t": "open"}))
    found.lose(3)
    targets.append("u")
    assert scraped(copied) == before
    assert scraped(found) != before
