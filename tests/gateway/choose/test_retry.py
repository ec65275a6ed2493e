"""Whether a request is sent once more."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.choose.failure import Failure, failure_of
from garrison.gateway.choose.retry import Attempt, GiveUp, Retry, WhyNot, blames_target, decide
from garrison.gateway.choose.retry_budget import RetryBudget

ATTEMPTS = st.builds(
    Attempt,
    number=st.integers(1, 5),
    failure=st.sampled_from(Failure),
    answered=st.booleans(),
    cancelled=st.booleans(),
    reused=st.booleans(),
    accepted=st.booleans(),
)


def plenty() -> RetryBudget:
    return RetryBudget(minimum=1000)


def none_left() -> RetryBudget:
    return RetryBudget(share=0, minimum=0)


class TestDecide:
    @given(ATTEMPTS)
    def test_never_after_bytes_went_to_the_client_or_after_a_cancel(self, attempt):
        if attempt.answered or attempt.cancelled:
            assert isinstance(decide(attempt, plenty(), 0.0), GiveUp)

    @given(ATTEMPTS)
    def test_never_a_fourth_attempt_nor_after_a_timeout(self, attempt):
        if attempt.number > 2 or attempt.failure is Failure.TIMEOUT:
            assert isinstance(decide(attempt, plenty(), 0.0), GiveUp)

    @given(ATTEMPTS)
    def test_a_request_that_may_kill_is_tried_on_two_targets_at_most(self, attempt):
        found = decide(attempt, plenty(), 0.0)
        if attempt.failure is Failure.LOST and attempt.accepted and isinstance(found, Retry):
            assert attempt.number == 1

    @given(ATTEMPTS)
    def test_without_a_budget_only_what_nobody_has_worked_on_is_sent_again(self, attempt):
        found = decide(attempt, none_left(), 0.0)
        if isinstance(found, Retry):
            assert attempt.stale if not found.other_target else attempt.failure is Failure.CONNECT

    @pytest.mark.parametrize("failure", [Failure.CONNECT, Failure.LOST, Failure.MALFORMED, Failure.UNAVAILABLE])
    def test_the_first_retry_goes_to_another_target_at_once(self, failure):
        assert decide(Attempt(number=1, failure=failure), plenty(), 0.0) == Retry(other_target=True, delay=0.0)

    def test_the_second_waits_a_little_and_not_all_wait_alike(self):
        second = Attempt(number=2, failure=Failure.CONNECT)
        found = [decide(second, plenty(), 0.0, draw=draw).delay for draw in (0.0, 1.0)]
        assert found == pytest.approx([0.025, 0.05])

    def test_a_stale_connection_is_replaced_by_a_new_one_to_the_same_target(self):
        stale = Attempt(number=1, failure=Failure.LOST, reused=True)
        assert decide(stale, none_left(), 0.0) == Retry(other_target=False)

    def test_a_target_that_ends_a_reused_connection_with_the_request_in_hand_has_failed(self):
        attempt = Attempt(number=1, failure=Failure.LOST, reused=True, accepted=True)
        assert decide(attempt, plenty(), 0.0) == Retry(other_target=True)

    @pytest.mark.parametrize(
        ("attempt", "why"),
        [
            (Attempt(number=1, failure=Failure.LOST, cancelled=True, answered=True), WhyNot.CANCELLED),
            (Attempt(number=1, failure=Failure.LOST, answered=True), WhyNot.ANSWERED),
            (Attempt(number=1, failure=Failure.TIMEOUT), WhyNot.TIMED_OUT),
            (Attempt(number=3, failure=Failure.CONNECT), WhyNot.ATTEMPTS),
            (Attempt(number=2, failure=Failure.LOST, accepted=True), WhyNot.MAY_KILL),
        ],
    )
    def test_it_says_why_not(self, attempt, why):
        assert decide(attempt, plenty(), 0.0) == GiveUp(why)

    def test_giving_up_costs_no_budget(self):
        budget = RetryBudget(minimum=1)
        for why in ({"answered": True}, {"cancelled": True}, {"reused": True}):
            decide(Attempt(number=1, failure=Failure.LOST, **why), budget, 0.0)
        assert isinstance(decide(Attempt(number=1, failure=Failure.CONNECT), budget, 0.0), Retry)
        again = Attempt(number=1, failure=Failure.MALFORMED)
        assert isinstance(decide(again, budget, 0.0), Retry)
        assert decide(again, budget, 0.0) == GiveUp(WhyNot.BUDGET)


class TestBlame:
    @given(ATTEMPTS)
    def test_a_cancel_never_counts_against_the_target(self, attempt):
        assert not (attempt.cancelled and blames_target(attempt))

    def test_a_stale_connection_does_not_and_a_broken_answer_does(self):
        assert not blames_target(Attempt(number=1, failure=Failure.LOST, reused=True))
        assert blames_target(Attempt(number=1, failure=Failure.LOST, reused=True, answered=True))
        assert all(blames_target(Attempt(number=1, failure=failure)) for failure in Failure)

    def test_statuses(self):
        assert {status for status in range(100, 600) if failure_of(status)} == {502, 503, 504}


class TestBudget:
    def test_a_quiet_route_has_its_minimum(self):
        budget = RetryBudget(minimum=3, window=10.0)
        assert [budget.take(100.0) for _ in range(4)] == [True, True, True, False]
        assert budget.take(125.0)

    def test_a_tenth_of_the_requests(self):
        budget = RetryBudget(share=0.1, minimum=0)
        for _ in range(1000):
            budget.request(5.0)
        assert sum(budget.take(5.0) for _ in range(1000)) == 100

    def test_the_window_slides(self):
        budget = RetryBudget(share=0.1, minimum=0, window=10.0)
        budget.request(100.0)  # a window begins
        for _ in range(999):
            budget.request(109.0)
        assert sum(budget.take(115.0) for _ in range(1000)) == 50
        assert not budget.take(119.9)
        assert not budget.take(200.0)

    @given(
        st.lists(st.tuples(st.floats(0, 7), st.integers(0, 60), st.integers(0, 60)), max_size=40),
        st.sampled_from([0.0, 0.1, 0.5]),
        st.integers(0, 5),
    )
    def test_never_more_than_the_share_of_all_requests_and_the_minimum_of_each_window(self, steps, share, minimum):
        budget, now, requests, retries = RetryBudget(share, minimum, 10.0), 50.0, 0, 0
        for pause, some, wanted in steps:
            now += pause
            for _ in range(some):
                budget.request(now)
            requests += some
            retries += sum(budget.take(now) for _ in range(wanted))
            windows = math.ceil((now - 50.0) / 10.0) + 1
            assert retries <= share * requests + minimum * windows + 1e-6

    @pytest.mark.parametrize("options", [{"share": -0.1}, {"share": 1.5}, {"minimum": -1}, {"window": 0.0}])
    def test_values_that_cannot_work_are_refused(self, options):
        with pytest.raises(InvalidError, match="retry budget"):
            RetryBudget(**options)
