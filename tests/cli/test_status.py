import json

import pytest
from fleet_files import write

from garrison.fleet.observation import Cause
from garrison.fleet.transport import TransportError

DOWN = TransportError(Cause.REFUSED, "connection refused")


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


def test_cached_asks_nobody(cli, world, file):
    asked = len(world.targets.requests)
    world.edge.served.clear()
    done = cli("status", "--cached")
    assert "nobody was asked" in done.out
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
    assert "Nothing is declared yet" in done.out
