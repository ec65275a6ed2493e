from datetime import UTC, datetime

from garrison.base.clock import SystemClock
from garrison.testing.clock import FakeClock


def test_fake_time_passes_only_by_sleeping_and_advancing() -> None:
    clock = FakeClock(datetime(2026, 5, 1, tzinfo=UTC))
    assert clock.monotonic() == 0
    clock.sleep(2.5)
    clock.advance(60)
    assert clock.monotonic() == 62.5
    assert clock.now() == datetime(2026, 5, 1, 0, 1, 2, 500000, tzinfo=UTC)


def test_a_negative_sleep_does_not_turn_time_back() -> None:
    clock = FakeClock()
    clock.sleep(-5)
    assert clock.monotonic() == 0


def test_system_time_is_utc_and_never_goes_back() -> None:
    clock = SystemClock()
    first = clock.monotonic()
    clock.sleep(-1)
    assert clock.monotonic() >= first
    assert clock.now().tzinfo is UTC
