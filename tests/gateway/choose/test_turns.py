"""Turns by weight: the rollout of a version behind an alias, and the policy round-robin."""

from collections import Counter
from itertools import pairwise

import pytest
from choosing import counted, some, trip
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate
from garrison.gateway.choose.policy import policy_of
from garrison.gateway.choose.weights import Turns

WEIGHTS = st.lists(st.integers(1, 40), min_size=1, max_size=8)


def taken(turns: Turns, times: int) -> Counter[str]:
    return Counter(turns.next() for _ in range(times))


class TestTurns:
    def test_ninety_to_ten_is_exact_in_every_hundred(self):
        turns = Turns({"v1": 90, "v2": 10})
        for _ in range(500):
            assert taken(turns, 100) == {"v1": 90, "v2": 10}

    @given(WEIGHTS)
    def test_shares_are_exact_over_time(self, weights):
        turns = Turns({str(n): weight for n, weight in enumerate(weights)})
        rounds = 50
        found = taken(turns, rounds * sum(weights))
        assert all(abs(found[str(n)] - rounds * weight) <= 1 for n, weight in enumerate(weights))

    @given(WEIGHTS, st.integers(1, 400))
    def test_shares_are_even_at_any_time(self, weights, times):
        found = taken(Turns({str(n): weight for n, weight in enumerate(weights)}), times)
        for n, weight in enumerate(weights):
            # The rounding of each name moves the time by less than one turn.
            slack = 1 + len(weights) * weight / sum(weights)
            assert abs(found[str(n)] - times * weight / sum(weights)) <= slack

    def test_a_light_name_is_not_left_to_the_end(self):
        order = [turns.next() for turns in [Turns({"a": 5, "b": 1, "c": 1})] for _ in range(14)]
        light = [at for at, name in enumerate(order) if name != "a"]
        assert all(later - earlier > 1 for earlier, later in pairwise(light))

    def test_a_name_without_weight_has_no_turn(self):
        assert taken(Turns({"old": 0, "new": 3}), 50) == {"new": 50}

    def test_other_weights_take_effect_at_once_and_exactly(self):
        turns = Turns({"v1": 99, "v2": 1})
        taken(turns, 150)
        turns.reweigh({"v1": 50, "v2": 50})
        found = taken(turns, 1000)
        assert found["v1"] == pytest.approx(500, abs=2)

    def test_the_same_weights_again_change_nothing(self):
        weights = {"a": 7.0, "b": 2.0, "c": 1.0}
        calm, disturbed = Turns(weights), Turns(weights)
        order = []
        for _ in range(300):
            order.append(disturbed.next())
            disturbed.reweigh(weights)
        assert order == [calm.next() for _ in range(300)]

    def test_who_joins_does_not_catch_up_on_turns_before_its_time(self):
        turns = Turns({"a": 1})
        taken(turns, 10_000)
        turns.reweigh({"a": 1})
        turns.reweigh({"a": 1, "b": 1})
        assert taken(turns, 100) == {"a": 50, "b": 50}

    @pytest.mark.parametrize("weights", [{}, {"a": 0}, {"a": -1, "b": 2}, {"a": float("nan")}, {"a": float("inf")}])
    def test_weights_that_give_no_turns_are_refused(self, weights):
        with pytest.raises(InvalidError, match="weights cannot be used"):
            Turns(weights)


class TestRoundRobin:
    def test_everybody_in_every_round(self):
        made, policy = some(*[0] * 7), policy_of("round-robin")
        for _ in range(20):
            assert set(counted(policy, made, 7).values()) == {1}

    def test_weights_are_kept_whatever_the_loads(self):
        made = some(0, 50, 3, weights=(1.0, 2.0, 5.0))
        assert counted(policy_of("round-robin"), made, 800) == {"t0": 100, "t1": 200, "t2": 500}

    def test_turns_go_on_when_the_candidates_are_replaced(self):
        policy, chosen = policy_of("round-robin"), Counter[str]()
        stay = some(*[0] * 5)
        for n in range(100):
            chosen[policy.order([*stay, Candidate(f"passing-{n}", 0.001)], None, 0.0).id] += 1
        assert all(abs(chosen[one.id] - 20) <= 2 for one in stay)

    def test_the_turns_of_one_that_is_out_go_to_all_others_alike(self):
        made = some(0, 0, 0, 0)
        trip(made[2])
        assert counted(policy_of("round-robin"), made, 300) == {"t0": 100, "t1": 100, "t3": 100}

    def test_one_that_comes_back_does_not_catch_up_however_heavy_it_is(self):
        made, policy = some(0, 0, 0, weights=(1.0, 8.0, 1.0)), policy_of("round-robin")
        made[1].warm = False
        assert counted(policy, made, 300) == {"t0": 150, "t2": 150}
        made[1].warm = True
        assert counted(policy, made, 100)["t1"] == pytest.approx(80, abs=1)
