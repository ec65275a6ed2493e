"""Which of the requests that wait goes next."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from garrison.gateway.choose.fair_queue import FairQueue


def filled(*asked: tuple[str, int, float], ageing: float = 10.0) -> FairQueue[str]:
    """A queue of `holder:number`, from who, with which priority, at which time."""
    queue: FairQueue[str] = FairQueue(ageing)
    for number, (holder, priority, at) in enumerate(asked):
        queue.put(f"{holder}:{number}", holder, priority, at)
    return queue


def order(queue: FairQueue[str], count: int = 1000, *, now: float = 100.0, step: float = 0.1) -> list[str]:
    found = []
    while len(found) < count and (one := queue.next(now)) is not None:
        found.append(one)
        now += step
    return found


def holders(found: list[str]) -> str:
    return "".join(one[0] for one in found)


def test_of_one_holder_the_first_goes_first():
    assert order(filled(*[("a", 0, float(n)) for n in range(5)])) == [f"a:{n}" for n in range(5)]


def test_holders_take_turns_however_many_requests_each_has():
    flood = [("a", 0, 1.0)] * 50
    queue = filled(*flood, ("b", 0, 2.0), ("c", 0, 2.1), ("b", 0, 3.0))
    assert holders(order(queue, 6)) == "abcaba"


def test_one_who_has_just_come_does_not_wait_for_a_flood_that_has_aged():
    queue = filled(*[("a", 0, 0.0)] * 100)
    order(queue, 40, now=500.0)
    queue.put("b:0", "b", 0, 504.0)
    assert "b:0" in order(queue, 2, now=504.1)


def test_a_higher_priority_goes_first():
    assert holders(order(filled(("a", 0, 99.0), ("b", 5, 99.5), ("c", 1, 99.0)))) == "bca"


def test_a_step_of_priority_is_worth_so_much_waiting():
    assert holders(order(filled(("a", 0, 79.0), ("b", 2, 100.0)))) == "ab", "21 s for two steps of 10 s"
    assert holders(order(filled(("a", 0, 81.0), ("b", 2, 100.0)))) == "ba"
    assert holders(order(filled(("a", 0, 99.0), ("b", 2, 100.0), ageing=0.4))) == "ab"


def test_nobody_waits_for_ever():
    queue, now = filled(("low", -5, 0.0)), 0.0
    for number in range(1000):
        queue.put(f"high:{number}", "high", 5, now)
        now += 1.0
        if queue.next(now) == "low:0":
            break
    assert 95 <= now <= 105, "ten steps of ten seconds"


def test_a_low_priority_gets_one_turn_in_so_many_and_then_waits_again():
    queue, found, now = filled(*[("low", 0, 0.0)] * 30), Counter(), 0.0
    for number in range(200):
        queue.put(f"high:{number}", "high", 1, now)
        now += 1.0
        one = queue.next(now)
        found[one.split(":")[0]] += 1
    assert 15 <= found["low"] <= 25


def test_one_who_leaves_is_not_waited_for():
    queue: FairQueue[str] = FairQueue(10.0)
    places = [queue.put(f"a:{n}", "a", 0, float(n)) for n in range(3)]
    other = queue.put("b:0", "b", 0, 1.5)
    queue.remove(places[0])
    queue.remove(places[0])
    queue.remove(other)
    assert len(queue) == 2
    assert order(queue) == ["a:1", "a:2"]
    assert queue.next(200.0) is None
    assert not queue._rows


def test_leaving_does_not_make_a_claim_stronger():
    queue: FairQueue[str] = FairQueue(10.0)
    first = queue.put("a:0", "a", 0, 0.0)
    queue.put("a:1", "a", 0, 50.0)
    queue.put("b:0", "b", 0, 40.0)
    queue.remove(first)
    assert holders(order(queue)) == "ba", "what is left came later"


ASKED = st.lists(st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.booleans()), max_size=60)


@given(ASKED)
def test_each_request_gets_one_turn_or_leaves(asked):
    queue: FairQueue[int] = FairQueue(3.0)
    waiting, now, seen = {}, 0.0, []
    for number, (holder, priority, comes) in enumerate(asked):
        now += 1.0
        if comes or not waiting:
            waiting[number] = queue.put(number, holder, priority, now)
        elif priority > 0:
            queue.remove(waiting.pop(next(iter(waiting))))
        else:
            one = queue.next(now)
            mine = [n for n, place in waiting.items() if place.holder == waiting[one].holder]
            assert one == mine[0], "the first of its holder"
            del waiting[one]
            seen.append(one)
        assert len(queue) == len(waiting)
    while (one := queue.next(now)) is not None:
        del waiting[one]
    assert not waiting
    assert not queue._rows
