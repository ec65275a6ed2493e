import pytest

from garrison.cli.signals import Wishes

HEARD = {
    "one": ([5.0], 1),
    "timeout sends it twice": ([5.0, 5.01], 1),
    "a second wish": ([5.0, 6.5], 2),
    "two, sent twice each": ([5.0, 5.1, 7.0, 7.1], 2),
    "many in a row": ([5.0, 5.6, 6.2], 2),
}


@pytest.mark.parametrize(("times", "number"), HEARD.values(), ids=HEARD)
def test_signals_in_quick_succession_are_one_request(times, number):
    left = iter(times)
    wishes = Wishes(monotonic=lambda: next(left))
    assert sum(wishes.heard() for _ in times) == wishes.number == number
