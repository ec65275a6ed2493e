import json
from dataclasses import replace
from datetime import timedelta

import pytest
from fleet_files import write

from garrison.fleet.execute.lease import this_process
from garrison.fleet.report.status import FleetStatus
from garrison.fleet.values.failure import Failure, FailureCode
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import Lease

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    return path


def test_all_well(cli, world, file, golden):
    golden("status-well.txt", cli("status").out)


def test_json_is_pinned(cli, world, file, golden):
    world.targets["edge-2"].down = DOWN
    world.edge.served.pop("chat")
    world.edge.served |= {"sql": "/tmp/other", "theirs": "/tmp/theirs"}
    done = cli("status", "--json")
    assert (done.code, done.err) == (0, "")
    golden("status.json", json.dumps(json.loads(done.out), indent=1) + "\n")


def test_cached_contacts_no_target(cli, world, file):
    asked = len(world.targets.requests)
    world.edge.served.clear()
    done = cli("status", "--cached")
    assert "no target was asked" in done.out
    assert "✓ 3 served" in done.out
    assert len(world.targets.requests) == asked


def test_one_stack(cli, world, file):
    assert "stack lab" in cli("status", "--stack", "lab").out
    done = cli("status", "--stack", "nope")
    assert done.code == 1
    assert "On record: lab." in done.err


def test_nothing_yet(cli, world):
    done = cli("status")
    assert done.code == 0
    assert "nothing applied yet; run `garrison apply`" in done.out


def test_what_was_destroyed_was_applied(cli, world, file):
    assert cli("destroy", "--stack", "lab", "--yes").code == 0
    said = cli("status").out
    assert "nothing is applied: stack lab was destroyed " in said
    assert "yet" not in said
    found = FleetStatus.from_json(json.loads(cli("status", "--json").out))
    assert found.destroyed == ("lab", world.clock.now())
    assert FleetStatus.from_json(found.to_json()) == found


def test_a_permanent_failure_is_shown_with_its_hint_until_it_is_applied(cli, world, tmp_path):
    failure = Failure(code=FailureCode.INVALID_REQUEST, message="/models/chat has rank 128", hint="Train it anew.")
    world.artifacts.refused["/models/chat"] = failure
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 30
    lines = cli("status").out.splitlines()
    (number,) = (number for number, line in enumerate(lines) if "edge-1/chat" in line)
    assert "✗ failed" in lines[number]
    assert "/models/chat has rank 128" in lines[number]
    assert lines[number + 1] == "    → Train it anew."
    rows = json.loads(cli("inventory", "--query", "status:failed", "--json").out)["rows"]
    assert [(row["name"], row["detail"]) for row in rows] == [("chat", "/models/chat has rank 128")]
    world.artifacts.refused.clear()
    assert cli("apply", path, "--yes").code == 0
    assert "failed" not in cli("status").out


def test_a_holder_that_was_killed_holds_nothing(cli, world, file):
    now = world.clock.now()
    gone = replace(this_process("apply"), started=1)
    lease = Lease(stack="lab", token="t", holder=gone, acquired_at=now, expires_at=now + timedelta(seconds=30))
    assert world.store.acquire(lease, now) is None
    told = cli("status").out
    assert "which was killed: apply; the next command settles its actions" in told
    world.store.release("t")
    world.store.acquire(replace(lease, holder=this_process("apply")), now)
    assert "held by" in cli("status").out
    assert "killed" not in cli("status").out
