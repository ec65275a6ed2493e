"""What holds for all policies, whichever a route has."""

import random

import pytest
from choosing import counted, some, trip
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.gateway.choose.candidate import Candidate
from garrison.gateway.choose.policy import POLICIES, policy_of

every_policy = pytest.mark.parametrize("name", POLICIES)

STATES = st.lists(
    st.tuples(st.integers(0, 12), st.sampled_from(["closed", "open", "cooled down"]), st.booleans(), st.booleans()),
    max_size=40,
)


def in_states(states) -> tuple[list[Candidate], list[Candidate]]:
    """Return candidates as they are at the time 10, and those of them that were tried."""
    made = [Candidate(f"t{n}", 1.0 + n % 3, warm=warm) for n, (_, _, warm, _) in enumerate(states)]
    for one, (load, breaker, _, _) in zip(made, states, strict=True):
        one.outstanding = load
        if breaker != "closed":
            trip(one, 10.0 if breaker == "open" else 0.0)
    return made, [one for one, state in zip(made, states, strict=True) if state[3]]


@every_policy
@given(states=STATES, key=st.none() | st.binary(max_size=1500), more=st.integers(0, 3))
def test_somebody_is_chosen_exactly_if_somebody_may_be(name, states, key, more):
    made, tried = in_states(states)
    policy = policy_of(name)
    for _ in range(1 + more):
        may = [one for one in made if one.breaker.passes_from <= 10.0 and one not in tried]
        chosen = policy.order(made, key, 10.0, tried)
        assert (chosen in may) if may else chosen is None


@every_policy
@given(states=STATES, key=st.none() | st.binary(max_size=1500))
def test_a_cold_target_is_woken_only_if_no_warm_one_will_do(name, states, key):
    made, tried = in_states(states)
    chosen = policy_of(name).order(made, key, 10.0, tried)
    ready = [one for one in made if one.warm and one.breaker.passes_from <= 10.0 and one not in tried]
    if name in ("pin", "spill") or chosen is None:
        return
    assert chosen.warm or not ready


@every_policy
def test_the_only_one_of_many_that_is_left_is_found(name):
    made = some(*[0] * 100)
    made[0].warm = False
    for one in made[1:-1]:
        trip(one)
    if name not in ("pin", "spill"):
        assert counted(policy_of(name), made, 20, b"k") == {"t99": 20}


@every_policy
def test_all_who_come_while_all_are_cold_wake_the_same_one(name):
    cold = tuple(Candidate(f"t{n}", warm=False) for n in range(3))
    policy = policy_of(name)
    for n in range(6):
        chosen = policy.order(cold, b"%d" % n, 0.0)
        assert chosen is cold[0]
        chosen.outstanding += 1


@every_policy
@pytest.mark.parametrize("count", [1, 2, 30])
def test_a_half_open_breaker_is_sent_one_request_however_often_it_is_looked_at(name, count):
    made = some(*[0] * count)
    for one in made:
        trip(one)
    policy = policy_of(name)
    assert policy.order(made, b"k", 0.5) is None
    probes = [policy.order(made, b"k", 1.0) for _ in range(count + 3)]
    assert sorted(one.id for one in probes if one) == sorted(one.id for one in made)


@every_policy
@pytest.mark.parametrize("count", [1, 2, 5, 30])
def test_retries_visit_every_target_once_and_then_nobody(name, count):
    made, policy, tried = some(*[0] * count), policy_of(name), []
    while (chosen := policy.order(made, b"k", 0.0, tried)) is not None:
        assert chosen not in tried
        tried.append(chosen)
    assert len(tried) == count


@every_policy
def test_a_policy_follows_candidates_that_come_and_go(name):
    policy, stays = policy_of(name), Candidate("stays")
    for n in range(40):
        made = [stays, *(Candidate(f"t{n}-{m}") for m in range(n % 5))]
        made = made[n % len(made) :] + made[: n % len(made)]
        assert policy.order(made, b"%d" % n, float(n)) in made
    assert policy.order([], b"k", 0.0) is None


@every_policy
def test_a_single_target_costs_no_look_at_anything_else(name, monkeypatch):
    policy = policy_of(name)
    monkeypatch.setattr(type(policy), "best", lambda *_: pytest.fail("looked"))
    (only,) = some(7)
    assert policy.order((only,), b"k", 0.0) is only
    assert policy.order((only,), b"k", 0.0, [only]) is None


@every_policy
def test_a_target_that_has_recovered_is_not_flooded(name):
    if name in ("warm-first", "pin", "spill"):
        return  # they follow the declared order, whatever the weights
    random.seed(7)
    made = some(*[0] * 4)
    made[0].recovered_at = 0.0
    policy, chosen, flying = policy_of(name), 0, []
    for n in range(4000):
        one = policy.order(made, b"%d" % n, 3.0)
        one.outstanding += 1
        flying.append(one)
        chosen += one is made[0]
        if len(flying) > 100:
            flying.pop(random.randrange(len(flying))).outstanding -= 1
    # A tenth of its weight: 0.1 of 3.1, which is 129 of 4000. Hashing sends it that much only at the bound, 1.25 times.
    assert 40 < chosen < 400


class TestByName:
    def test_least_outstanding_is_the_default(self):
        assert type(policy_of()) is type(policy_of("least-outstanding"))

    def test_an_unknown_name_is_refused_with_those_there_are(self):
        with pytest.raises(InvalidError, match="no policy 'fastest'") as found:
            policy_of("fastest")
        assert all(name in str(found.value.hint) for name in POLICIES)

    def test_an_unknown_option_is_refused_with_those_there_are(self):
        with pytest.raises(InvalidError, match="spill has no option bound") as found:
            policy_of("spill", bound=2)
        assert "limit" in str(found.value.hint)

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("spill", {"limit": 0}),
            ("spill", {"limit": 1.5}),
            ("spill", {"limit": True}),
            ("hash", {"bound": 1.0}),
            ("hash", {"bound": "2"}),
            ("hash", {"bound": float("nan")}),
            ("prefix", {"block": 0}),
            ("prefix", {"blocks": 0}),
            ("prefix", {"blocks": 2.5}),
        ],
    )
    def test_a_value_that_cannot_work_is_refused(self, name, options):
        with pytest.raises(InvalidError) as found:
            policy_of(name, **options)
        assert found.value.hint

    def test_options_are_used(self):
        made = some(0, 0)
        policy = policy_of("spill", limit=2)
        made[0].outstanding = 2
        assert policy.order(made, None, 0.0) is made[1]


class TestInOrder:
    def test_pin_takes_the_first_however_loaded_and_wakes_it(self):
        made = some(90, 0, 0)
        made[0].warm = False
        assert counted(policy_of("pin"), made, 5) == {"t0": 5}
        trip(made[0])
        assert counted(policy_of("pin"), made, 5) == {"t1": 5}

    def test_warm_first_takes_the_first_warm_one_in_declared_order(self):
        made = some(0, 5, 0)
        made[0].warm = False
        assert counted(policy_of("warm-first"), made, 5) == {"t1": 5}
        trip(made[1])
        assert counted(policy_of("warm-first"), made, 5) == {"t2": 5}
        trip(made[2])
        assert counted(policy_of("warm-first"), made, 5) == {"t0": 5}

    def test_spill_fills_the_first_then_the_next_even_if_it_must_be_woken(self):
        made, policy, chosen = some(0, 0, 0), policy_of("spill", limit=2), []
        made[1].warm = False
        for _ in range(6):
            one = policy.order(made, None, 0.0)
            one.outstanding += 1
            chosen.append(one.id)
        assert chosen == ["t0", "t0", "t1", "t1", "t2", "t2"]
        made[0].outstanding = 1
        assert policy.order(made, None, 0.0) is made[0]

    def test_spill_with_all_full_takes_the_least_loaded(self):
        made = some(9, 8, 10)
        assert policy_of("spill", limit=2).order(made, None, 0.0) is made[1]
