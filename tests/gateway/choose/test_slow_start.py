"""The weight of a target after its recovery."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate
from garrison.gateway.choose.slow_start import ramped


def test_it_grows_linearly():
    assert [ramped(4.0, since, 20.0) for since in (5.0, 10.0, 15.0)] == [1.0, 2.0, 3.0]


@given(st.floats(0.01, 1e6), st.floats(-10, 1e4), st.floats(0, 1e4), st.floats(0, 1e3))
def test_it_never_falls_and_stays_between_a_tenth_and_the_whole(weight, since, more, window):
    first, later = ramped(weight, since, window), ramped(weight, since + more, window)
    assert weight * 0.0999 <= first <= later <= weight


def test_it_is_whole_when_the_window_is_over_and_costs_nothing_more():
    candidate = Candidate("a", 2.0, slow_start=10.0)
    candidate.recovered_at = 100.0
    assert candidate.effective_weight(105.0) == 1.0
    assert candidate.effective_weight(110.0) == 2.0
    assert candidate.recovered_at is None


def test_without_a_window_it_is_whole_at_once():
    candidate = Candidate("a", slow_start=0.0)
    candidate.recovered_at = 5.0
    assert candidate.effective_weight(5.0) == 1.0


@pytest.mark.parametrize("weight", [0, -1, float("nan"), float("inf")])
def test_a_weight_that_is_none_is_refused(weight):
    with pytest.raises(InvalidError, match="'a' has the weight"):
        Candidate("a", weight)
