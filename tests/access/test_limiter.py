"""Limits of keys over time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.access.limiter import Admission, Excess, Limiter, LimitKind
from garrison.access.permissions import UNLIMITED, Limits

SIX = Limits(requests_per_minute=6)
TOKENS = Limits(tokens_per_minute=600)


def begin(limiter: Limiter, limits: Limits, now: float, tokens: int = 0) -> Admission:
    found = limiter.begin(1, limits, now, tokens=tokens)
    assert isinstance(found, Admission)
    return found


def refused(limiter: Limiter, limits: Limits, now: float, tokens: int = 0) -> Excess:
    found = limiter.begin(1, limits, now, tokens=tokens)
    assert isinstance(found, Excess)
    return found


class TestRequests:
    def test_a_minutes_worth_passes_at_once_then_one_every_ten_seconds(self):
        limiter = Limiter()
        for _ in range(6):
            begin(limiter, SIX, 100.0)
        assert refused(limiter, SIX, 100.0) == Excess(LimitKind.REQUESTS, 6, 10.0)
        assert refused(limiter, SIX, 104.0).retry_after == 6
        begin(limiter, SIX, 110.0)
        assert refused(limiter, SIX, 110.0).seconds == pytest.approx(10.0)

    def test_a_refused_request_counts_nothing(self):
        limiter = Limiter()
        for _ in range(6):
            begin(limiter, SIX, 0.0)
        for _ in range(50):
            refused(limiter, SIX, 0.0)
        begin(limiter, SIX, 10.0)

    def test_an_idle_hour_saves_no_more_than_a_minutes_worth(self):
        limiter = Limiter()
        begin(limiter, SIX, 0.0)
        for _ in range(6):
            begin(limiter, SIX, 3600.0)
        refused(limiter, SIX, 3600.0)

    def test_keys_do_not_share(self):
        limiter = Limiter()
        for _ in range(6):
            begin(limiter, SIX, 0.0)
        assert isinstance(limiter.begin(2, SIX, 0.0), Admission)

    def test_a_changed_limit_counts_what_was_used(self):
        limiter = Limiter()
        for _ in range(4):
            begin(limiter, SIX, 0.0)
        assert refused(limiter, Limits(requests_per_minute=3), 0.0).kind is LimitKind.REQUESTS
        for _ in range(4):
            begin(limiter, Limits(requests_per_minute=8), 0.0)
        refused(limiter, Limits(requests_per_minute=8), 0.0)

    def test_a_clock_that_goes_back_gives_nothing(self):
        limiter = Limiter()
        for _ in range(6):
            begin(limiter, SIX, 100.0)
        refused(limiter, SIX, 0.0)
        refused(limiter, SIX, 100.0)

    @given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 20))
    def test_never_more_than_a_burst_and_the_rate(self, pauses, rate):
        limiter, now, passed = Limiter(), 0.0, 0
        for pause in pauses:
            now += pause
            found = limiter.begin(1, Limits(requests_per_minute=rate), now)
            passed += isinstance(found, Admission)
            if isinstance(found, Excess):
                again = limiter.begin(1, Limits(requests_per_minute=rate), now + found.seconds + 1e-6)
                assert isinstance(again, Admission), "Retry-After is the truth"
                now, passed = now + found.seconds + 1e-6, passed + 1
        assert passed <= rate + rate * now / 60 + 1e-3


class TestTokens:
    def test_what_is_known_counts_at_once_and_the_rest_at_the_end(self):
        limiter = Limiter()
        first = begin(limiter, TOKENS, 0.0, tokens=100)
        refused(limiter, TOKENS, 0.0, tokens=501)
        limiter.end(first, 0.0, tokens=700)
        # 100 more than a minute's: ten seconds until it is paid, a tenth until one more is there.
        assert refused(limiter, TOKENS, 0.0).seconds == pytest.approx(10.1)
        begin(limiter, TOKENS, 10.2)

    def test_a_request_that_used_less_gives_back(self):
        limiter = Limiter()
        first = begin(limiter, TOKENS, 0.0, tokens=600)
        refused(limiter, TOKENS, 0.0, tokens=1)
        limiter.end(first, 0.0, tokens=10)
        begin(limiter, TOKENS, 0.0, tokens=590)

    def test_one_that_is_larger_than_the_limit_passes_alone(self):
        limiter = Limiter()
        begin(limiter, TOKENS, 0.0, tokens=1000)
        assert refused(limiter, TOKENS, 0.0).kind is LimitKind.TOKENS
        refused(limiter, TOKENS, 40.0)
        begin(limiter, TOKENS, 40.2)

    def test_a_stream_counts_while_it_runs(self):
        limiter = Limiter()
        stream = begin(limiter, TOKENS, 0.0)
        limiter.spend(stream, 0.0, 400)
        limiter.spend(stream, 0.0, 599)
        begin(limiter, TOKENS, 0.0, tokens=1)
        refused(limiter, TOKENS, 0.0)
        limiter.end(stream, 0.0, tokens=599)
        limiter.spend(stream, 0.0, 10_000)
        assert refused(limiter, TOKENS, 0.0).seconds < 1

    def test_a_request_whose_use_stays_unknown_keeps_what_was_counted(self):
        limiter = Limiter()
        limiter.end(begin(limiter, TOKENS, 0.0, tokens=600), 0.0)
        refused(limiter, TOKENS, 0.0)


class TestConcurrency:
    TWO = Limits(concurrent=2)

    def test_places_are_given_back_once(self):
        limiter = Limiter()
        first, _ = begin(limiter, self.TWO, 0.0), begin(limiter, self.TWO, 0.0)
        assert refused(limiter, self.TWO, 0.0) == Excess(LimitKind.CONCURRENT, 2, 1.0)
        limiter.end(first, 0.0)
        limiter.end(first, 0.0)
        begin(limiter, self.TWO, 0.0)
        refused(limiter, self.TWO, 0.0)

    def test_keys_that_are_gone_are_forgotten_when_their_requests_have_ended(self):
        limiter = Limiter()
        first = begin(limiter, self.TWO, 0.0)
        limiter.keep([])
        assert limiter.standings(1, self.TWO, 0.0)[LimitKind.CONCURRENT].remaining == 1
        limiter.end(first, 0.0)
        limiter.keep([])
        assert limiter._uses == {}
        limiter.end(first, 0.0)


def test_without_limits_everything_passes():
    limiter = Limiter()
    for _ in range(1000):
        begin(limiter, UNLIMITED, 0.0, tokens=10**9)
    assert limiter.standings(1, UNLIMITED, 0.0) == {}


def test_what_is_left_can_be_told():
    limits = Limits(requests_per_minute=6, tokens_per_minute=600, concurrent=3)
    limiter = Limiter()
    assert {kind: one.remaining for kind, one in limiter.standings(1, limits, 0.0).items()} == {
        LimitKind.REQUESTS: 6, LimitKind.TOKENS: 600, LimitKind.CONCURRENT: 3,
    }  # fmt: skip
    begin(limiter, limits, 0.0, tokens=150)
    found = limiter.standings(1, limits, 0.0)
    assert (found[LimitKind.REQUESTS].remaining, found[LimitKind.REQUESTS].reset) == (5, 10.0)
    assert (found[LimitKind.TOKENS].remaining, found[LimitKind.TOKENS].reset) == (450, 15.0)
    assert found[LimitKind.CONCURRENT].remaining == 2


@pytest.mark.parametrize(("kind", "seconds", "after"), [("requests_per_minute", 0.01, 1), ("concurrent", 1.2, 2)])
def test_an_excess_is_an_error_with_the_seconds_to_wait(kind, seconds, after):
    error = Excess(LimitKind(kind), 4, seconds).error()
    assert (error.http_status, error.details) == (429, {"limit": kind, "retry_after": after})
    assert after == max(1, math.ceil(seconds))
