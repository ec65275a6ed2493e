import json

import pytest
from fleet_files import MANIFEST, write

from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    world.targets["edge-2"].down = DOWN
    return path


def test_says_what_is_lost(cli, world, file, golden):
    done = cli("forget", "edge-2", "--yes")
    assert done.code == 0
    golden("forget.txt", done.out)
    assert [one.name for one in world.store.targets()] == ["edge-1"]
    assert world.recorded("sql", "edge-2") is None
    assert [one.target for one in world.told("forgotten")] == ["edge-2"]


def test_the_agent_does_not_bring_it_back_and_an_apply_does(cli, world, file):
    cli("forget", "edge-2", "--yes")
    world.targets["edge-2"].down = None
    assert json.loads(cli("status", "--cached", "--json").out)["summary"]["adapters"] == {"served": 2}
    assert cli("agent", "--once").code == 0
    assert [one.name for one in world.store.targets()] == ["edge-1"]
    assert world.targets["edge-2"].served == {"sql": "/models/sql"}
    assert cli("apply", file, "--yes").code == 0
    assert world.recorded("sql", "edge-2") is not None


def test_owed_deletes_go_too(cli, world, file, tmp_path):
    less = write(tmp_path / "less.json", adapters={"chat": MANIFEST["adapters"]["chat"]})
    assert cli("apply", less, "--yes").code == 31
    done = cli("forget", "edge-2", "--yes", "--json")
    body = json.loads(done.out)
    assert body.pop("last_seen").startswith("2026")
    assert body == {
        "schema": 1, "ok": True, "exit_code": 0, "forgotten": True, "target": "edge-2", "reachable": False,
        "adapters": [{"stack": "lab", "name": "sql"}], "owed": ["sql"], "declared_by": ["lab"],
    }  # fmt: skip
    assert cli("plan", less, "--exit-code").code == 32  # the target is new again


def test_a_destroyed_stack_goes_with_its_last_target(cli, world, file):
    assert cli("destroy", file, "--yes").code == 31
    assert cli("forget", "edge-2", "--yes").code == 0
    assert world.store.stacks() == []


def test_a_target_that_answers_is_kept_unless_forced(cli, world, file):
    done = cli("forget", "edge-1", "--yes")
    assert done.code == 1
    assert "edge-1 is reachable" in done.err
    assert "--force" in done.err
    assert cli("forget", "edge-1", "--yes", "--force").code == 0
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}


def test_asks_first(cli, world, file):
    done = cli("forget", "edge-2")
    assert done.code == 64
    assert "confirmation required, but standard input is not a terminal" in done.err
    assert len(world.store.targets()) == 2


def test_an_unknown_target(cli, world, file):
    done = cli("forget", "nope")
    assert done.code == 1
    assert "On record: edge-1, edge-2." in done.err


def test_an_unknown_target_among_many(cli, world, tmp_path):
    targets = {f"rack-{number}": {"host": f"10.0.0.{number}"} for number in range(1, 36)}
    file = write(tmp_path / "m.json", targets=targets, adapters={"sql": {"target": "rack-1", "lora_path": "/sql"}})
    assert cli("apply", file, "--yes").code == 31
    done = cli("forget", "rack35")
    assert done.code == 1
    assert "Did you mean 'rack-35'? On record: rack-35, " in done.err
    assert "and 25 more." in done.err
