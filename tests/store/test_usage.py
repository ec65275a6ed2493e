"""What every store does with usage: in memory, on SQLite, on PostgreSQL."""

from datetime import date

import pytest
from store_samples import at, usage_batch, used

from garrison.store.fleet_store import FleetStore
from garrison.store.usage_store import NO_KEY, Usage, UsageBy, UsageRow

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 31)
EVERYTHING = {
    "requests": 5, "failed": 1, "client_left": 1, "uncounted": 1, "tokens_in": 2**40, "tokens_out": 7,
    "tokens_cached": 3, "bytes_in": 2**50, "bytes_out": 9, "seconds": 1.25,
}  # fmt: skip


def test_batches_are_summed_by_day_key_and_route(store: FleetStore):
    store.add_usage([], at())
    one = usage_batch(used(1, **EVERYTHING), used(2, route="é/\0x"), used(1, key=NO_KEY))
    store.add_usage([one, usage_batch(used(1, requests=2), source="w2")], at())
    store.add_usage([usage_batch(used(1), used(1), number=2)], at())
    found = store.usage(FIRST, LAST, by=UsageBy)
    assert [(row.day, row.key_id, row.usage.requests) for row in found] == [
        (date(2026, 3, 1), NO_KEY, 1), (date(2026, 3, 1), 7, 9), (date(2026, 3, 2), 7, 1),
    ]  # fmt: skip
    assert found[1].usage == Usage(**EVERYTHING) + Usage(requests=4, tokens_in=30, tokens_out=9, seconds=1.5)


def test_a_batch_counts_once(store: FleetStore):
    """Whoever does not know whether a batch was stored sends it again."""
    store.add_usage([usage_batch(used(), number=3)], at())
    store.add_usage([usage_batch(used(), number=3), usage_batch(used(), number=2)], at())
    store.add_usage([usage_batch(used(), number=3, source="w2")], at())
    (row,) = store.usage(FIRST, LAST, by=())
    assert row.usage.requests == 2
    store.add_usage([usage_batch(used(), number=4), usage_batch(used(), number=4)], at())
    (row,) = store.usage(FIRST, LAST, by=())
    assert row.usage.requests == 3


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ([], [(None, None, None, 4)]),
        (["day"], [(1, None, None, 3), (2, None, None, 1)]),
        (["key"], [(None, 7, None, 3), (None, 8, None, 1)]),
        (["route"], [(None, None, "a", 2), (None, None, "b", 2)]),
        (["route", "key"], [(None, 7, "a", 2), (None, 7, "b", 1), (None, 8, "b", 1)]),
    ],
)
def test_sums_are_split_by_what_is_asked_for(store: FleetStore, by: list[str], expected: list[object]):
    store.add_usage([usage_batch(used(1, 7, "a"), used(1, 7, "b"), used(1, 8, "b"), used(2, 7, "a"))], at())
    found = store.usage(FIRST, LAST, by=[UsageBy(one) for one in by])
    assert [(one.day and one.day.day, one.key_id, one.route, one.usage.requests) for one in found] == expected


def test_days_keys_and_routes_are_chosen(store: FleetStore):
    assert store.usage(FIRST, LAST, by=()) == []
    store.add_usage([usage_batch(used(1, 7, "a"), used(2, 7, "a"), used(2, 8, "b"), used(3, 8, "a"))], at())

    def days(**chosen: object) -> list[int]:
        rows: list[UsageRow] = store.usage(**{"first": FIRST, "last": LAST, "by": UsageBy} | chosen)
        return [one.day.day for one in rows if one.day]

    assert days(first=date(2026, 3, 2)) == [2, 2, 3]
    assert days(last=date(2026, 3, 2)) == [1, 2, 2]
    assert days(key_id=7) == [1, 2]
    assert days(route="a") == [1, 2, 3]
    assert days(key_id=8, route="b") == [2]
    assert days(limit=2) == [1, 2]


def test_old_days_are_deleted_and_so_are_the_numbers_of_old_batches(store: FleetStore):
    store.add_usage([usage_batch(used(1), used(2))], at())
    store.add_usage([usage_batch(used(3), source="w2")], at(days=3))
    assert store.prune_usage(at(days=1)) == 2, "the first day, and the number of the first batch"
    assert [one.day for one in store.usage(FIRST, LAST, by=UsageBy)] == [date(2026, 3, 2), date(2026, 3, 3)]
    store.add_usage([usage_batch(used(3), source="w2")], at(days=3))
    assert store.usage(FIRST, LAST, by=())[0].usage.requests == 2
    assert store.prune_usage(at(days=1)) == 0
