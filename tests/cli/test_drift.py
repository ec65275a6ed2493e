import json

import pytest
from fleet_files import write

from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    return path


def test_no_drift(cli, world, file):
    done = cli("drift", "--exit-code")
    assert (done.code, done.out) == (0, "✓ no drift  3 adapters compared with what was last applied\n")


def test_missing_and_another_path(cli, world, file, golden):
    world.edge.served.pop("chat")
    world.edge.served["sql"] = "/tmp/other"
    world.targets["edge-2"].down = DOWN
    assert cli("drift").code == 0
    done = cli("drift", "--exit-code")
    assert done.code == 32
    golden("drift.txt", done.out)
    done = cli("drift", "--json", "--exit-code")
    assert done.code == 32
    golden("drift.json", json.dumps(json.loads(done.out), indent=1) + "\n")


def test_out_of_reach_is_not_drift(cli, world, file):
    for target in world.targets.targets.values():
        target.down = DOWN
    done = cli("drift", "--exit-code")
    assert done.code == 31
    assert "? no drift seen  0 adapters compared" in done.out
    assert "unknown: not counted as drift  2 targets" in done.out
    assert cli("drift").code == 0


def test_a_server_that_cannot_load_what_is_missing_is_unknown(cli, world, file):
    for target in world.targets.targets.values():
        target.lora_routes = False
        target.restart()
    done = cli("drift", "--exit-code")
    assert done.code == 31
    assert "? no drift seen  0 adapters compared" in done.out
    assert "no-lora-routes: cannot load adapters at run time" in done.out
    body = json.loads(cli("drift", "--exit-code", "--json").out)
    assert (body["exit_code"], body["checked"], sorted(body["unknown"])) == (31, 0, ["edge-1", "edge-2"])
    assert "no-lora-routes" in cli("status").out
    assert cli("agent", "--once").code == 31
    assert "no-lora-routes" in cli("inventory", "targets").out
    assert "no-lora-routes" in cli("history").out


def test_out_of_reach_with_nothing_loaded_yet_is_unknown(cli, world, tmp_path):
    for target in world.targets.targets.values():
        target.down = DOWN
    assert cli("apply", write(tmp_path / "garrison.json"), "--yes").code == 31
    assert cli("drift", "--exit-code").code == 31


def test_unmanaged_is_not_drift(cli, world, file):
    world.edge.served["theirs"] = "/tmp/theirs"
    assert cli("drift", "--exit-code").code == 0


def test_looking_writes_no_tombstone(cli, world, file):
    world.edge.served.clear()
    cli("drift")
    assert all(one.operation.serves for one in world.store.resources())


def test_a_tombstone_tells_since_when_it_is_gone(cli, world, file):
    world.edge.served.pop("chat")
    world.clock.advance(90)
    cli("agent", "--once")
    world.clock.advance(8)
    (line,) = [line for line in cli("drift").out.splitlines() if "edge-1/chat" in line]
    assert "gone since 2026-01-01 00:01:30 UTC (8 s ago, unloaded)" in line
    assert "applied" not in line


def test_a_changed_entry_of_the_store_is_no_all_clear(cli, world, file):
    """It is the same path as ever, and the files in it are others."""
    world.artifacts.spoiled.add(world.edge.served["sql"])
    done = cli("drift", "--exit-code")
    assert done.code == 32
    assert "≠ content" in done.out
    assert "no longer holds what was applied" in " ".join(done.out.split())
    (found,) = [one for one in json.loads(cli("drift", "--json").out)["drift"] if one["target"] == "edge-1"]
    assert (found["kind"], found["name"]) == ("content", "sql")
    adapters = json.loads(cli("status", "--json").out)["stacks"][0]["adapters"]
    assert {one["name"]: one["state"] for one in adapters if one["target"] == "edge-1"}["sql"] == "drifted"
    listed = json.loads(cli("inventory", "adapters", "-q", "status:drifted", "--json").out)["rows"]
    assert {one["name"] for one in listed} == {"sql"}
