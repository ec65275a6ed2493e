"""The policy `sticky`: where a session went first, it stays."""

import random

import pytest
from choosing import counted, some, trip

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate
from garrison.gateway.choose.policy import policy_of


def test_a_session_stays_however_busy_its_target_is():
    made, policy = some(*[0] * 5), policy_of("sticky")
    first = policy.order(made, b"s", 0.0)
    first.outstanding = 1000
    assert counted(policy, made, 50, b"s") == {first.id: 50}
    assert policy_of("hash").order(made, b"s", 0.0) is not first, "the bound of `hash` sends it elsewhere"


def test_sessions_are_spread_by_weight():
    random.seed(3)
    made, policy = some(0, 0, weights=(3.0, 1.0)), policy_of("sticky")
    found = [policy.order(made, b"%d" % n, 0.0).id for n in range(2000)]
    assert found.count("t0") == pytest.approx(1500, rel=0.15)


def test_a_session_moves_when_its_target_fails_and_stays_where_it_went():
    made, policy = some(*[0] * 4), policy_of("sticky")
    first = policy.order(made, b"s", 0.0)
    trip(first)
    second = policy.order(made, b"s", 0.0)
    assert second is not first
    first.breaker = Candidate("closed").breaker
    assert policy.order(made, b"s", 0.0) is second
    assert policy.order(made, b"s", 0.0, [second]) not in (second, None)


def test_a_session_stays_when_others_join_and_leave():
    stays, policy = Candidate("stays"), policy_of("sticky")
    policy.order((stays, Candidate("a")), b"s", 0.0, ())
    mine = next(b"%d" % n for n in range(100) if policy.order((stays, Candidate("b")), b"%d" % n, 0.0) is stays)
    for n in range(50):
        made = (*(Candidate(f"t{n}-{m}") for m in range(5)), stays)
        assert policy.order(made, mine, 0.0) is stays


def test_two_workers_send_a_new_session_to_the_same_target():
    made = some(*[0] * 8)
    found = [{policy_of("sticky").order(made, b"%d" % n, 0.0) for _ in range(3)} for n in range(30)]
    assert all(len(one) == 1 for one in found)


def test_what_it_remembers_is_bounded_and_what_was_used_last_is_kept():
    made, policy = some(0, 0), policy_of("sticky", sessions=10)
    first = policy.order(made, b"kept", 0.0)
    first.outstanding = 100
    for n in range(1000):
        assert policy.order(made, b"kept", 0.0) is first
        policy.order(made, b"%d" % n, 0.0)
    assert len(policy._known) == 10
    for n in range(10):
        policy.order(made, b"other%d" % n, 0.0)
    assert policy.order(made, b"kept", 0.0) is not first, "it was forgotten, and its target is busy"


def test_no_memory_is_refused():
    with pytest.raises(InvalidError, match="0 sessions"):
        policy_of("sticky", sessions=0)
