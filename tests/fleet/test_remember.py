"""What a look changes in what is remembered."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from garrison.fleet.observe.record_sighting import last_sighting, remember
from garrison.fleet.values import events
from garrison.fleet.values.observation import Capabilities, Cause, Served, Sighting
from garrison.store.records import TargetRecord

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(minutes=1)
BASE = Served("base", "/base", None)
NEW = TargetRecord(name="edge", spec={}, declared_at=AT)


def seen(*adapters: str, at: datetime = AT, started_at: float | None = None) -> Sighting:
    served = {"base": BASE} | {name: Served(name, f"/{name}", "base") for name in adapters}
    probed = Capabilities(started_at=started_at, lora_routes=True) if started_at else None
    return Sighting(target="edge", at=at, served=served, base="base", capabilities=probed)


def away(cause: Cause = Cause.REFUSED, at: datetime = LATER) -> Sighting:
    return Sighting(target="edge", at=at, cause=cause, detail="why")


KNOWN = remember(NEW, seen("sql", started_at=1.0), ["sql"]).record


def test_the_first_look_is_no_news() -> None:
    after = remember(NEW, seen("sql", "theirs"), ["sql"])
    assert (after.changed, after.events, after.record.state) == (True, (), "reachable")
    assert (after.record.last_seen, after.record.base) == (AT, "base")


def test_the_same_again_changes_nothing_but_the_time() -> None:
    after = remember(KNOWN, seen("sql", at=LATER), ["sql"])
    assert (after.changed, after.events) == (False, ())
    assert after.record == replace(KNOWN, last_seen=LATER, last_checked=LATER)


def test_out_of_reach_keeps_what_was_seen_and_says_since_when() -> None:
    after = remember(KNOWN, away(), ["sql"])
    assert [one.kind for one in after.events] == [events.UNREACHABLE]
    record = after.record
    assert (record.state, record.cause, record.since, record.last_seen) == ("unreachable", "refused", LATER, AT)
    assert record.served == KNOWN.served
    much_later = LATER + timedelta(days=400)
    again = remember(record, away(at=much_later), ["sql"])
    assert again.events == ()
    assert again.record == replace(record, last_checked=much_later)


def test_another_cause_is_history_and_the_since_stays() -> None:
    record = remember(KNOWN, away(), []).record
    after = remember(record, away(Cause.TIMEOUT, LATER + timedelta(1)), [])
    assert [(one.kind, one.cause) for one in after.events] == [(events.CHANGED, "timeout")]
    assert after.record.since == LATER


def test_back_again() -> None:
    record = remember(KNOWN, away(), []).record
    after = remember(record, seen("sql", at=LATER + timedelta(1)), ["sql"])
    assert [one.kind for one in after.events] == [events.RECOVERED]
    assert after.record.state == "reachable"
    assert after.record.cause is None


def test_a_new_process_is_a_restart_and_unlearns_what_it_does_not_say() -> None:
    record = replace(KNOWN, capabilities=KNOWN.capabilities | {"max_lora_rank": 16})
    after = remember(record, seen(at=LATER, started_at=2.0), ["sql"])
    assert [one.kind for one in after.events] == [events.RESTARTED]
    assert after.record.capabilities["max_lora_rank"] is None
    same = remember(record, seen(at=LATER, started_at=1.0), ["sql"])
    assert same.events == ()
    assert same.record.capabilities["max_lora_rank"] == 16


def test_what_others_do_is_told_and_what_is_managed_is_not() -> None:
    after = remember(KNOWN, seen("theirs", at=LATER), ["sql"])
    assert [(one.name, one.cause) for one in after.events] == [("theirs", "appeared")]


def test_what_is_remembered_can_be_looked_at() -> None:
    assert last_sighting(KNOWN).presence("sql") == "present"
    assert last_sighting(NEW).cause is Cause.NEVER_ASKED
    assert last_sighting(remember(KNOWN, away(), []).record).cause is Cause.REFUSED


def test_what_a_target_serves_when_it_is_seen_first_is_no_news() -> None:
    record = remember(NEW, away(), []).record
    assert [one.kind for one in remember(record, seen("theirs", at=LATER), []).events] == [events.RECOVERED]
