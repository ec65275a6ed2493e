"""The policies that balance load: least-outstanding and power-of-two."""

import random
from collections import Counter

import pytest
from choosing import counted, some
from hypothesis import given
from hypothesis import strategies as st

from garrison.gateway.choose.policy import policy_of


@pytest.fixture(autouse=True)
def _same_draws():
    random.seed(20)


def flooded(name: str, count: int, requests: int, flying: int, weights: tuple[float, ...] = ()):
    """Return the candidates as they are while `flying` requests are outstanding, and the largest load that was seen."""
    made, policy, waiting, most = some(*[0] * count, weights=weights), policy_of(name), [], 0
    for _ in range(requests):
        one = policy.order(made, None, 0.0)
        one.outstanding += 1
        most = max(most, one.outstanding)
        waiting.append(one)
        if len(waiting) > flying:
            waiting.pop(random.randrange(len(waiting))).outstanding -= 1
    return made, most


class TestLeastOutstanding:
    @given(
        st.lists(st.tuples(st.integers(0, 50), st.sampled_from([0.5, 1.0, 2.0, 7.0])), min_size=2, max_size=16),
    )
    def test_nobody_would_be_less_loaded(self, targets):
        loads, weights = zip(*targets, strict=True)
        made = some(*loads, weights=weights)
        chosen = policy_of().order(made, None, 0.0)
        assert (chosen.outstanding + 1) / chosen.weight == min((c.outstanding + 1) / c.weight for c in made)

    def test_ties_are_broken_evenly(self):
        made = some(3, 1, 1, 2, 1)
        found = counted(policy_of(), made, 9000)
        assert set(found) == {"t1", "t2", "t4"}
        assert all(abs(times - 3000) < 200 for times in found.values())

    def test_of_two_idle_ones_the_heavier(self):
        assert counted(policy_of(), some(0, 0, weights=(1.0, 2.0)), 20) == {"t1": 20}

    def test_loads_settle_in_proportion_to_the_weights(self):
        made, _ = flooded("least-outstanding", 3, 5000, 70, weights=(1.0, 2.0, 4.0))
        assert [one.outstanding for one in made] == pytest.approx([10, 20, 40], abs=2)

    @pytest.mark.parametrize("count", [2, 16, 17, 200, 1000])
    def test_no_target_gets_far_above_the_mean_however_many_there_are(self, count):
        _, most = flooded("least-outstanding", count, 12 * count, 5 * count)
        assert most <= 5 + 2

    def test_a_heavy_one_among_many_gets_its_share(self):
        weights = (100.0,) + (1.0,) * 99
        made, _ = flooded("least-outstanding", 100, 6000, 995, weights=weights)
        assert made[0].outstanding == pytest.approx(500, rel=0.1)

    def test_other_weights_take_effect_with_another_sequence(self):
        made, policy = some(*[0] * 50, weights=(1000.0,) + (1.0,) * 49), policy_of()
        policy.order(made, None, 0.0)
        made[0].weight = 1.0
        assert counted(policy, list(made), 1000)["t0"] < 60

    def test_what_many_targets_cost_does_not_grow_with_their_number(self):
        class Watched(tuple):
            looks = 0

            def __getitem__(self, at):
                type(self).looks += 1
                return super().__getitem__(at)

            def __iter__(self):
                type(self).looks += len(self)
                return super().__iter__()

        made, policy = Watched(some(*[0] * 1000)), policy_of()
        policy.order(made, None, 0.0)
        Watched.looks = 0
        for _ in range(100):
            policy.order(made, None, 0.0)
        assert Watched.looks <= 100 * 10


class TestPowerOfTwo:
    def test_of_two_the_less_loaded(self):
        assert counted(policy_of("power-of-two"), some(3, 2), 50) == {"t1": 50}

    def test_never_the_most_loaded_of_three_or_more(self):
        found = counted(policy_of("power-of-two"), some(0, 1, 2, 9), 12_000)
        assert found["t0"] > found["t1"] > found["t2"]
        # Only if it is drawn three times in a row.
        assert found["t3"] < 12_000 / 64 + 60

    def test_it_spreads_better_than_chance(self):
        count = 100
        _, most = flooded("power-of-two", count, 10 * count, 10 * count)
        by_chance = max(Counter(random.randrange(count) for _ in range(10 * count)).values())
        assert most <= 10 + 5 < by_chance

    def test_a_heavy_one_gets_its_share(self):
        made, _ = flooded("power-of-two", 10, 4000, 190, weights=(10.0,) + (1.0,) * 9)
        assert made[0].outstanding == pytest.approx(100, rel=0.2)
