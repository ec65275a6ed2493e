from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from garrison.fleet.report.last_failure import last_failures
from garrison.fleet.values import events
from garrison.store.records import Event

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLACE = ("lab", "edge-1", "sql")


def event(kind: str, seconds: int = 0, **after: Any) -> Event:
    stack, target, name = PLACE
    at = NOW + timedelta(seconds=seconds)
    return Event(at=at, kind=kind, stack=stack, target=target, name=name, after=after or None)


FAILED = event(events.ACTION_FAILED, 1, message="no such file", hint="Look.")
NEWEST_FIRST = {
    "failed": ([FAILED], "no such file"),
    "failed, then done": ([event(events.ACTION_DONE, 2), FAILED], None),
    "done, then failed": ([FAILED, event(events.ACTION_DONE, 0)], "no such file"),
    "failed twice": ([event(events.ACTION_FAILED, 3, message="rank"), FAILED], "rank"),
    "the target was lost on the way": ([event(events.ACTION_FAILED, 2, message="reset", cause="reset"), FAILED], None),
    "nothing": ([], None),
}


@pytest.mark.parametrize(("told", "message"), NEWEST_FIRST.values(), ids=NEWEST_FIRST)
def test_the_newest_event_of_a_place_tells(told: list[Event], message: str | None) -> None:
    found = last_failures(told)
    assert {place: one.message for place, one in found.items()} == ({PLACE: message} if message else {})
