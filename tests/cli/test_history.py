import json
import os
import signal
import threading
import time
from datetime import UTC, datetime

import pytest
from fleet_files import write
from rendered import in_a_pipe

from garrison.base.errors import UsageError
from garrison.cli.views.age import parse_since
from garrison.cli.views.history import show_event
from garrison.store.records import Event

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    return path


def test_newest_last(cli, world, file):
    lines = cli("history").out.splitlines()
    assert lines[0].startswith("2026-01-01 00:00:00  applied        lab  reconcile")
    assert sum("action-done" in line for line in lines) == 3


def test_json_lines_are_pinned(cli, world, file):
    lines = [json.loads(line) for line in cli("history", "--json", "--kind", "applied").out.splitlines()]
    assert len(lines) == 1
    assert lines[0].pop("command")
    assert lines[0] == {
        "schema": 1,
        "id": 1, "at": "2026-01-01T00:00:00+00:00", "kind": "applied", "stack": "lab", "target": None, "name": None,
        "subject": {"kind": "stack", "name": "lab"}, "cause": "reconcile", "before": None, "after": None,
    }  # fmt: skip


def test_filters(cli, world, file):
    assert len(cli("history", "--target", "edge-2").out.splitlines()) == 1
    assert len(cli("history", "--name", "sql").out.splitlines()) == 2
    assert len(cli("history", "--limit", "2").out.splitlines()) == 2
    world.clock.advance(7200)
    assert cli("history", "--since", "1h").out == "Nothing on record since then.\n"
    assert len(cli("history", "--since", "3h").out.splitlines()) == 4
    assert cli("history", "--stack", "nope").out == "Nothing on record.\n"


def test_a_wrong_kind_suggests(cli, world, file):
    done = cli("history", "--kind", "drifted")
    assert done.code == 64
    assert "Did you mean drift?" in done.err


def test_follow_shows_new_events_of_other_processes_until_ctrl_c(cli, world, file, monkeypatch):
    events, reads = world.store.events, []

    def counted(**asked):
        if asked.get("after_id") is not None:
            reads.append(asked["after_id"])
        return events(**asked)

    def other_process():
        _until(lambda: len(reads) >= 2)  # the follower has begun
        world.store.add_events([Event(at=NOW, kind="drift", target="edge-1", name="sql", cause="unloaded")])
        before = len(reads)
        _until(lambda: len(reads) >= before + 2)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(world.store, "events", counted)
    other = threading.Thread(target=other_process)
    other.start()
    done = cli("history", "--follow", "--kind", "drift")
    other.join()
    assert done.code == 130
    assert done.out == "2026-03-01 12:00:00  drift          edge-1/sql  unloaded\n"


def _until(found, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_change_is_shown_from_to():
    digest = "ab" * 32
    event = Event(
        at=NOW, kind="drift", stack="lab", target="e", name="sql", cause="path",
        before={"served_path": f"/store/{digest}", "parent": "acme/tiny"},
        after={"served_path": "/tmp/x", "parent": "acme/tiny", "served": [1]},
    )  # fmt: skip
    assert in_a_pipe(lambda page: show_event(event, page)) == (
        "2026-03-01 12:00:00  drift          e/sql  lab  path  served_path /store/abababababab… → /tmp/x\n"
    )


SINCE = {
    "90": "2026-03-01T11:58:30+00:00",
    "15m": "2026-03-01T11:45:00+00:00",
    "2h": "2026-03-01T10:00:00+00:00",
    "1.5h": "2026-03-01T10:30:00+00:00",
    "3d": "2026-02-26T12:00:00+00:00",
    "1w": "2026-02-22T12:00:00+00:00",
    "2026-02-01": "2026-02-01T00:00:00+00:00",
    "2026-02-01T10:00": "2026-02-01T10:00:00+00:00",
    "2026-02-01T10:00+02:00": "2026-02-01T08:00:00+00:00",
}


@pytest.mark.parametrize(("text", "at"), SINCE.items(), ids=SINCE)
def test_since(text, at):
    assert parse_since(text, NOW).isoformat() == at


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "-3h", "99999999999999w"])
def test_an_invalid_since(text):
    with pytest.raises(UsageError):
        parse_since(text, NOW)


def test_the_start_of_a_server_is_shown_as_a_time():
    told = Event(
        at=NOW, kind="restarted", target="edge", before={"started_at": 1_772_366_400.5}, after={"started_at": 1e300}
    )
    line = in_a_pipe(lambda page: show_event(told, page))
    assert line.endswith("edge  started_at 2026-03-01 12:00:00 UTC → 1e+300\n")


def test_a_failed_action_says_its_message_and_then_its_hint():
    after = {"step": "load", "code": "InvalidRequest", "message": "rank 128", "recoverable": False, "hint": "Lower it."}
    told = Event(
        at=NOW, kind="action-failed", stack="lab", target="edge", name="sql", cause="create: not there",
        before={"served_path": "/a", "digest": None}, after=after, command="c1",
    )  # fmt: skip
    line = in_a_pipe(lambda page: show_event(told, page))
    assert (
        line
        == "2026-03-01 12:00:00  action-failed  edge/sql  lab  create, reason: not there  rank 128  → Lower it.  c1\n"
    )


REASONS = {
    "create: not served yet": "create because it was not served yet",
    "create: gone from the target since 2026-01-01": "create because it was gone from the target since 2026-01-01",
    "delete: no longer declared": "delete because it is no longer declared",
    "delete: replaced by b": "delete because it is replaced by b",
    "create: replaces b": "create because it replaces b",
    "delete: the stack is destroyed": "delete because the stack is destroyed",
    "update: another path": "update, reason: another path",
    "keep: ": "keep",
}


@pytest.mark.parametrize("kind", ["action-done", "action-failed"])
@pytest.mark.parametrize(("cause", "said"), REASONS.items(), ids=REASONS)
def test_the_reason_of_an_action_does_not_read_as_its_result(cause, said, kind):
    event = Event(at=NOW, kind=kind, stack="lab", target="edge-1", name="sql", cause=cause)
    text = in_a_pipe(lambda page: show_event(event, page))
    assert text.rstrip().endswith(f"edge-1/sql  lab  {said}")


def test_the_cause_of_anything_else_is_shown_as_it_is():
    event = Event(at=NOW, kind="unreachable", target="edge-1", cause="not: served")
    assert "  not: served" in in_a_pipe(lambda page: show_event(event, page))
