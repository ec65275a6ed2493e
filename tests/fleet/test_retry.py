"""When to try again: the table, and what holds for every failure and every draw."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.execute.retry import RetryBudget, decide_retry, next_look
from garrison.fleet.values.failure import Failure, FailureCode

BUDGET = RetryBudget(attempts=4, seconds=60, first=0.5, longest=8, longest_asked=30)


def failure(recoverable: bool = True, retry_after: float | None = None) -> Failure:
    code = FailureCode.SERVICE_INTERNAL_ERROR
    return Failure(code=code, message="no", recoverable=recoverable, retry_after=retry_after)


@pytest.mark.parametrize(
    ("attempt", "given_failure", "elapsed", "draw", "wait"),
    [
        pytest.param(1, failure(), 0.0, 1.0, 0.5, id="the first wait is at most the first bound"),
        pytest.param(2, failure(), 0.0, 1.0, 1.0, id="it doubles"),
        pytest.param(3, failure(), 0.0, 0.5, 1.0, id="jitter takes any part of it"),
        pytest.param(1, failure(), 0.0, 0.0, 0.0, id="even nothing"),
        pytest.param(4, failure(), 0.0, 0.0, None, id="attempts are used up"),
        pytest.param(1, failure(), 61.0, 0.0, None, id="seconds are used up"),
        pytest.param(1, failure(), 59.9, 1.0, None, id="the wait would not fit"),
        pytest.param(1, failure(recoverable=False), 0.0, 0.0, None, id="permanent"),
        pytest.param(1, failure(retry_after=3), 0.0, 0.0, 3.0, id="never sooner than asked"),
        pytest.param(1, failure(retry_after=3), 0.0, 1.0, 3.5, id="and not all at once then"),
        pytest.param(1, failure(retry_after=31), 0.0, 0.0, None, id="who asks for too long is left alone"),
        pytest.param(1, failure(recoverable=False, retry_after=3), 0.0, 0.0, None, id="permanent, whatever it asks"),
    ],
)
def test_decide(attempt: int, given_failure: Failure, elapsed: float, draw: float, wait: float | None) -> None:
    decision = decide_retry(BUDGET, attempt=attempt, failure=given_failure, elapsed=elapsed, draw=draw)
    assert decision.wait == wait
    assert decision.reason


failures = st.builds(failure, st.booleans(), st.none() | st.floats(0, 1e9))


@given(failures, st.lists(st.floats(0, 1, exclude_max=True), min_size=10, max_size=10))
def test_every_series_ends(one: Failure, draws: list[float]) -> None:
    elapsed, attempt = 0.0, 1
    while True:
        decision = decide_retry(BUDGET, attempt=attempt, failure=one, elapsed=elapsed, draw=draws[attempt % 10])
        if decision.wait is None:
            break
        assert one.recoverable
        assert decision.wait >= (one.retry_after or 0)
        elapsed += decision.wait
        attempt += 1
    assert attempt <= BUDGET.attempts
    assert elapsed <= BUDGET.seconds


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 10_000), st.floats(1, 3600))
def test_a_server_that_comes_back_is_seen_within_one_interval(draw: float, failed: int, interval: float) -> None:
    assert next_look(interval, draw, failures=failed) <= interval
    assert 0.9 * interval <= next_look(interval, draw) <= interval


@pytest.mark.parametrize(
    ("given_state", "expected"),
    [
        pytest.param({"failures": 1}, 1.0, id="soon after the first failure"),
        pytest.param({"failures": 3}, 4.0, id="then less often"),
        pytest.param({"failures": 30}, 30.0, id="once an interval in the end"),
        pytest.param({"failures": 30, "longest": 300.0}, 300.0, id="or less, where that is wanted"),
        pytest.param({"recovered": True}, 0.0, id="at once after it recovered"),
        pytest.param({"failures": 1, "retry_after": 20.0}, 20.0, id="as asked"),
        pytest.param({"failures": 1, "retry_after": 1e9}, 300.0, id="but not for ever"),
        pytest.param({}, 27.0, id="calm"),
    ],
)
def test_next_look(given_state: dict[str, float], expected: float) -> None:
    assert next_look(30.0, 1.0, **given_state) == pytest.approx(expected)
