"""The choice between sleep and stop, and what counts as a sleep and a wake that worked."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.instances.sleep_policy import (
    Situation,
    changed_answer,
    choose_rest,
    deadline,
    memory_kept,
    memory_missing,
)
from garrison.instances.values.sleep import SleepCost, SleepRecord

BOTH = {1: "host", 2: "dropped"}
A100_8B = {1: SleepCost(10.57, 2.19), 2: SleepCost(0.31, 6.53)}
"""Figures published for an 8B model on an A100."""


@pytest.mark.parametrize(
    ("changes", "level", "why"),
    [
        ({"levels": {}}, None, "cannot sleep"),
        ({"declared": 0}, None, "switched off"),
        ({"declared": 3}, None, "no sleep level 3"),
        ({"declared": 2, "quarantined": frozenset({2})}, None, "failed before"),
        ({"quarantined": frozenset({1, 2})}, None, "failed before"),
        ({}, 1, "not known yet"),
        ({"waited_for": True}, 2, "not known yet"),
        ({"costs": A100_8B, "start_seconds": 60.0}, 1, "level 1 costs 2.2 s"),
        ({"costs": A100_8B, "start_seconds": 60.0, "waited_for": True}, 2, "level 2 costs 6.8 s"),
        ({"costs": A100_8B, "start_seconds": 60.0, "quarantined": frozenset({1})}, 2, "level 2 costs 6.5 s"),
        ({"costs": A100_8B, "start_seconds": 1.0}, None, "no sleep costs less"),
        ({"costs": {1: SleepCost(9.0, 9.0)}, "start_seconds": 5.0}, 2, "not known yet"),
        ({"costs": {1: SleepCost(9.0)}, "declared": 1}, 1, "not known yet"),
        ({"host_bytes": 10, "host_free": 9}, 2, "not known yet"),
        ({"host_bytes": 10, "host_free": 9, "declared": 1}, None, "no room for its weights"),
        ({"host_bytes": 10, "host_free": 9, "costs": {1: SleepCost(1.0, 1.0, host_bytes=8)}}, 1, "costs 1.0 s"),
    ],
)
def test_choice(changes: dict[str, Any], level: int | None, why: str) -> None:
    found = choose_rest(Situation(**{"levels": BOTH, **changes}))
    assert found.level == level
    assert why in found.why


COSTS = st.builds(SleepCost, st.floats(0, 100), st.none() | st.floats(0, 100), st.none() | st.integers(0, 20))


@given(
    st.builds(
        Situation,
        levels=st.sampled_from([BOTH, {1: "host"}, {2: "dropped"}, {}]),
        declared=st.none() | st.integers(0, 3),
        costs=st.dictionaries(st.sampled_from([1, 2]), COSTS),
        start_seconds=st.none() | st.floats(0, 300),
        quarantined=st.frozensets(st.sampled_from([1, 2])),
        waited_for=st.booleans(),
        host_bytes=st.integers(0, 20),
        host_free=st.none() | st.integers(0, 20),
    )
)
def test_a_level_that_is_chosen_may_be_used(found: Situation) -> None:
    rest = choose_rest(found)
    assert rest.why
    if rest.level is None:
        return
    assert rest.level in found.levels
    assert rest.level not in found.quarantined
    assert found.declared in (None, rest.level)
    cost = found.costs.get(rest.level)
    if cost is not None and cost.wake is not None:
        start = 30.0 if found.start_seconds is None else found.start_seconds
        assert cost.wake + (cost.sleep if found.waited_for else 0) < start


def test_deadlines() -> None:
    assert [deadline(one, 300.0) for one in (None, 1.0, 20.0, 200.0)] == [300.0, 30.0, 80.0, 300.0]


def test_memory_that_is_kept_or_missing() -> None:
    before = {"gpu0": 8 << 30, "gpu1": 8 << 30}
    assert memory_kept(before, {"gpu0": 1 << 30}) is None
    assert memory_kept(before, {"gpu1": 5 << 30}) == "5.00 GiB of 8.00 GiB on gpu1 are still held"
    assert memory_missing(before, {"gpu0": 8 << 30, "gpu1": 7 << 30}) is None
    assert memory_missing(before, {"gpu0": 8 << 30}) == "only 0.00 GiB of 8.00 GiB on gpu1 are back"
    assert memory_missing(before, {}) is None, "what cannot be measured is not known"


def test_answers_that_changed() -> None:
    before = {"base@": "one", "sql@/a": "two"}
    assert changed_answer(before, {**before, "new@/b": "three"}) is None
    assert changed_answer(before, {**before, "sql@/a": "2"}) == "sql answers '2' instead of 'two'"
    assert changed_answer(before, {"base@": "one"}) == "sql is not served any more"
    assert changed_answer(before, {"base@": "one", "sql@/other": "two"}) == "sql is not served any more"


def test_a_record_survives_as_json() -> None:
    record = SleepRecord(
        2, ("gpu0",), {"host": 7}, {"m@": "x"}, {1: SleepCost(1.0), 2: SleepCost(1.0, 2.0, 3)}, {"k": "w"}
    )
    assert SleepRecord.from_json(record.to_json()) == record
    assert SleepRecord.from_json({}) == SleepRecord()
