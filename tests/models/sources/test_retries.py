from datetime import UTC, datetime

import pytest

from garrison.models.sources.retries import Retries, asked_wait

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASKED = {
    "seconds": ({"Retry-After": " 12 "}, 12),
    "a fraction": ({"retry-after": "1.5"}, 1),
    "a date": ({"Retry-After": "Thu, 01 Jan 2026 00:00:30 GMT"}, 30),
    "a date that has passed": ({"Retry-After": "Wed, 31 Dec 2025 00:00:30 GMT"}, 1),
    "zero": ({"Retry-After": "0"}, 1),
    "a limit": ({"RateLimit": '"api";r=0;t=55'}, 55),
    "a limit, in another order": ({"ratelimit": '"api"; t=55; r=0'}, 55),
    "both": ({"Retry-After": "10", "RateLimit": '"api";r=0;t=55'}, 55),
    "a limit with something left": ({"RateLimit": '"api";r=7;t=55'}, None),
    "nonsense": ({"Retry-After": "soon", "RateLimit": "x"}, None),
    "negative": ({"Retry-After": "-5"}, None),
    "digits without end": ({"Retry-After": "9" * 5000}, None),
    "nothing": ({}, None),
}


@pytest.mark.parametrize(("headers", "seconds"), ASKED.values(), ids=ASKED)
def test_what_a_server_asks_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, NOW) == seconds


def test_tries_end() -> None:
    retries = Retries()
    assert [retries.next_wait(None) for _ in range(5)] == [0.5, 1.0, 2.0, 4.0, None]


def test_progress_renews_the_tries() -> None:
    retries = Retries()
    for _ in range(20):
        retries.renew()
        assert retries.next_wait(None) == 0.5


def test_waits_that_were_told_have_a_budget_of_their_own() -> None:
    retries = Retries()
    assert [retries.next_wait(400) for _ in range(3)] == [400, 400, None]
    assert retries.next_wait(None) == 0.5
