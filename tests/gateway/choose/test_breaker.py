"""The circuit breaker: when it lets a request through, and whose outcome counts."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from garrison.base.errors import InvalidError
from garrison.gateway.choose.breaker import Breaker, BreakerLimits, BreakerState
from garrison.gateway.choose.candidate import Candidate

THREE = BreakerLimits(failures=3, cool_down=1.0, longest=5.0, probe=20.0)


def opened(now: float = 0.0, limits: BreakerLimits = THREE) -> Breaker:
    breaker = Breaker(limits)
    for _ in range(limits.failures):
        breaker.failed(now, breaker.generation)
    assert breaker.state(now) is BreakerState.OPEN
    return breaker


def probe(breaker: Breaker, now: float) -> int:
    assert breaker.may_pass(now)
    assert breaker.state(now) is BreakerState.HALF_OPEN
    return breaker.generation


class TestClosed:
    def test_it_opens_after_so_many_failures_in_a_row(self):
        breaker = Breaker(THREE)
        assert [breaker.failed(0.0, breaker.generation) for _ in range(3)] == [False, False, True]
        assert not breaker.may_pass(0.5)

    def test_an_answer_in_between_starts_the_count_again(self):
        breaker = Breaker(THREE)
        for _ in range(10):
            breaker.failed(0.0, 0)
            breaker.failed(0.0, 0)
            assert breaker.succeeded(0.0, 0) is False
        assert breaker.may_pass(0.0)

    def test_cancels_never_count(self):
        breaker = Breaker(THREE)
        for _ in range(100):
            assert breaker.may_pass(0.0)
            breaker.cancelled(0.0, breaker.generation)
        assert breaker.state(0.0) is BreakerState.CLOSED

    def test_a_cancel_does_not_hide_failures(self):
        breaker = Breaker(THREE)
        for _ in range(3):
            breaker.failed(0.0, breaker.generation)
            breaker.cancelled(0.0, breaker.generation)
        assert breaker.state(0.0) is BreakerState.OPEN


class TestOpen:
    def test_it_lets_nothing_through_until_the_cool_down_is_over(self):
        breaker = opened(10.0)
        assert not breaker.may_pass(10.0)
        assert not breaker.may_pass(10.999)
        assert breaker.state(11.0) is BreakerState.HALF_OPEN
        assert breaker.may_pass(11.0)

    def test_requests_sent_before_it_opened_change_nothing(self):
        breaker = Breaker(THREE)
        before = breaker.generation
        for _ in range(3):
            breaker.failed(0.0, before)
        assert breaker.succeeded(0.5, before) is False
        assert breaker.failed(0.9, before) is False
        breaker.cancelled(0.9, before)
        assert not breaker.may_pass(0.99)
        assert breaker.may_pass(1.0)

    def test_the_cool_down_doubles_up_to_its_bound_and_starts_anew_after_a_recovery(self):
        breaker, now, waits = opened(0.0), 0.0, []
        for _ in range(5):
            waits.append(breaker.passes_from - now)
            now = breaker.passes_from
            assert breaker.failed(now, probe(breaker, now)) is True
        assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]
        now = breaker.passes_from
        assert breaker.succeeded(now, probe(breaker, now)) is True
        for _ in range(3):
            breaker.failed(now, breaker.generation)
        assert breaker.passes_from - now == 1.0


class TestHalfOpen:
    def test_one_probe_at_a_time(self):
        breaker = opened()
        assert [breaker.may_pass(1.0) for _ in range(5)] == [True, False, False, False, False]

    def test_a_probe_that_succeeds_closes_it(self):
        breaker = opened()
        assert breaker.succeeded(1.5, probe(breaker, 1.0)) is True
        assert breaker.state(1.5) is BreakerState.CLOSED
        assert all(breaker.may_pass(1.5) for _ in range(5))

    def test_one_failure_of_the_probe_opens_it(self):
        breaker = opened()
        assert breaker.failed(1.5, probe(breaker, 1.0)) is True
        assert not breaker.may_pass(3.4)
        assert breaker.may_pass(3.5)

    def test_a_probe_that_is_cancelled_gives_its_place_to_the_next(self):
        breaker = opened()
        breaker.cancelled(1.2, probe(breaker, 1.0))
        assert [breaker.may_pass(1.2) for _ in range(2)] == [True, False]

    @pytest.mark.parametrize("outcome", ["succeeded", "failed", "cancelled"])
    def test_an_older_request_does_not_end_the_probe(self, outcome):
        breaker = Breaker(THREE)
        before = breaker.generation
        for _ in range(3):
            breaker.failed(0.0, before)
        probe(breaker, 1.0)
        getattr(breaker, outcome)(1.1, before)
        assert breaker.state(1.1) is BreakerState.HALF_OPEN
        assert not breaker.may_pass(1.1)

    def test_a_probe_without_an_outcome_does_not_shut_the_target_out_for_ever(self):
        breaker = opened()
        lost = probe(breaker, 1.0)
        assert not breaker.may_pass(20.9)
        second = probe(breaker, 21.0)
        breaker.cancelled(21.1, lost)
        assert not breaker.may_pass(21.1)
        assert breaker.succeeded(21.2, second) is True

    def test_an_outcome_told_twice_counts_once(self):
        breaker = opened()
        generation = probe(breaker, 1.0)
        breaker.failed(1.0, generation)
        assert breaker.failed(1.0, generation) is False
        assert breaker.passes_from == 3.0


class TestRecovery:
    def test_the_candidate_knows_when_its_breaker_closed(self):
        candidate = Candidate("a", breaker=opened())
        candidate.succeeded(0.5, 0)
        assert candidate.recovered_at is None
        candidate.succeeded(1.5, probe(candidate.breaker, 1.0))
        assert candidate.recovered_at == 1.5

    def test_an_ordinary_answer_is_no_recovery(self):
        candidate = Candidate("a")
        candidate.succeeded(1.0, candidate.breaker.generation)
        assert candidate.recovered_at is None


@pytest.mark.parametrize(
    "limits", [{"failures": 0}, {"cool_down": 0.0}, {"cool_down": 9.0, "longest": 8.0}, {"probe": 0.0}]
)
def test_limits_that_cannot_work_are_refused(limits):
    with pytest.raises(InvalidError, match="circuit breaker"):
        BreakerLimits(**limits)


class AnyHistory(RuleBasedStateMachine):
    """Requests that begin and end in any order, as seen by somebody who keeps the books differently."""

    def __init__(self):
        super().__init__()
        self.breaker = Breaker(THREE)
        self.now = 0.0
        self.flying: list[tuple[int, bool, float]] = []  # generation, whether it was a probe, begun

    @rule(seconds=st.floats(0, 8))
    def time_goes_by(self, seconds):
        self.now += seconds

    @rule()
    def a_request_comes(self):
        before = self.breaker.state(self.now)
        waiting = [f for f in self.flying if f[1] and f[0] == self.breaker.generation and self.now < f[2] + THREE.probe]
        passed = self.breaker.may_pass(self.now)
        assert passed == (before is BreakerState.CLOSED or (before is BreakerState.HALF_OPEN and not waiting))
        if passed:
            self.flying.append((self.breaker.generation, before is BreakerState.HALF_OPEN, self.now))

    @precondition(lambda self: self.flying)
    @rule(which=st.randoms(), how=st.sampled_from(["succeeded", "failed", "cancelled"]))
    def one_ends(self, which, how):
        one = self.flying.pop(which.randrange(len(self.flying)))
        stale, state = one[0] != self.breaker.generation, self.breaker.state(self.now)
        getattr(self.breaker, how)(self.now, one[0])
        if stale:
            assert self.breaker.state(self.now) is state
        elif one[1]:
            after = {"succeeded": "closed", "failed": "open", "cancelled": "half-open"}
            assert self.breaker.state(self.now) == after[how]

    @invariant()
    def it_is_never_shut_for_longer_than_its_bounds(self):
        assert self.breaker.passes_from - self.now <= max(THREE.longest, THREE.probe) + 1e-6


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
