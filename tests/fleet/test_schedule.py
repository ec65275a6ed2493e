"""When targets are due."""

from hypothesis import given
from hypothesis import strategies as st

from garrison.fleet.agent.schedule import Schedule


def test_the_longest_overdue_comes_first() -> None:
    schedule = Schedule()
    for name, due in (("a", 3.0), ("b", 1.0), ("c", 2.0), ("d", 9.0)):
        schedule.set(name, due)
    assert schedule.take_due(3.0) == ["b", "c", "a"]
    assert schedule.next_due() == 9.0
    assert schedule.take_due(3.0) == []


def test_the_last_time_set_counts() -> None:
    schedule = Schedule()
    schedule.set("a", 1.0)
    schedule.set("a", 5.0)
    assert schedule.take_due(2.0) == []
    schedule.set("a", 0.0)
    assert schedule.take_due(2.0) == ["a"]
    assert "a" not in schedule
    assert schedule.next_due() == float("inf")


def test_what_was_dropped_is_never_due() -> None:
    schedule = Schedule()
    schedule.set("a", 1.0)
    schedule.drop("a")
    schedule.drop("unknown")
    assert schedule.next_due() == float("inf")
    assert schedule.take_due(9.0) == []


def test_outdated_entries_do_not_pile_up() -> None:
    schedule = Schedule()
    for at in range(10_000):
        schedule.set("a", 1e6 - at)
        schedule.set("b", 1e6 + at)
    assert len(schedule._heap) < 200
    assert schedule.take_due(2e6) == ["a", "b"]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.none() | st.floats(0, 9), st.booleans())))
def test_it_does_what_a_scan_of_all_targets_would(steps: list[tuple[str, float | None, bool]]) -> None:
    schedule, plain = Schedule(), dict[str, float]()
    for name, due, take in steps:
        if due is None:
            schedule.drop(name)
            plain.pop(name, None)
        else:
            schedule.set(name, due)
            plain[name] = due
        assert schedule.next_due() == min(plain.values(), default=float("inf"))
        if take:
            found = {name for name, at in plain.items() if at <= 5.0}
            assert set(schedule.take_due(5.0)) == found
            plain = {name: at for name, at in plain.items() if name not in found}
