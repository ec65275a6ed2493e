import json

import pytest
from fleet_files import write

from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def file(cli, world, tmp_path):
    """A manifest that is applied."""
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    return path


@pytest.mark.parametrize("way", ["manifest", "stack"])
def test_unloads_only_what_the_stack_owns(cli, world, file, way):
    world.edge.served["theirs"] = "/tmp/theirs"
    done = cli("destroy", "--yes", *([file] if way == "manifest" else ["--stack", "lab"]))
    assert done.code == 0
    assert "✕ 3 delete" in done.out
    assert "Undeclared adapters are never touched." in done.out
    assert "theirs" not in done.out
    assert "Stack lab is destroyed." in done.out
    assert world.edge.served == {"theirs": "/tmp/theirs"}
    assert world.store.stacks() == []


def test_asks_first(cli, world, file):
    done = cli("destroy", file)
    assert done.code == 64
    assert "confirmation required, but standard input is not a terminal" in done.err
    assert world.edge.served


def test_unloading_stays_owed_on_targets_out_of_reach(cli, world, file):
    world.targets["edge-2"].down = DOWN
    done = cli("destroy", file, "--yes")
    assert done.code == 31
    assert "○ 1 owed on 1 target: edge-2" in done.out
    assert "Stack lab will be destroyed once nothing is owed." in done.out
    assert "being destroyed" in cli("status", "--cached").out
    world.targets["edge-2"].down = None
    assert cli("agent", "--once").code == 0
    assert world.targets["edge-2"].served == {}
    assert world.store.stacks() == []


def test_json_is_pinned(cli, world, file):
    body = json.loads(cli("destroy", file, "--yes", "--json").out)
    assert {key: body[key] for key in ("ok", "exit_code", "destroyed")} == {
        "ok": True,
        "exit_code": 0,
        "destroyed": True,
    }
    assert sorted((one["kind"], one["target"], one["name"], one["state"]) for one in body["outcomes"]) == [
        ("delete", "edge-1", "chat", "done"), ("delete", "edge-1", "sql", "done"), ("delete", "edge-2", "sql", "done"),
    ]  # fmt: skip


def test_an_unknown_stack(cli, world, file):
    done = cli("destroy", "--stack", "nope")
    assert done.code == 1
    assert "On record: lab." in done.err


def test_manifest_and_stack_exclude_each_other(cli, world, file):
    assert cli("destroy", file, "--stack", "lab").code == 64


@pytest.mark.parametrize("left_out", [{"adapters": {}}, {"adapters": {}, "targets": {}}], ids=["adapters", "targets"])
def test_a_stack_that_serves_nothing_goes_too(cli, world, tmp_path, left_out):
    path = write(tmp_path / "garrison.json", **left_out)
    assert cli("apply", path, "--yes").code == 0
    assert [one.name for one in world.store.stacks()] == ["lab"]
    done = cli("destroy", "--stack", "lab", "--yes")
    assert (done.code, done.err) == (0, "")
    assert "No changes needed" not in done.out
    assert "The stack owns nothing to unload." in done.out
    assert "Stack lab is destroyed." in done.out
    assert world.store.stacks() == []
    assert world.store.targets() == []


def test_without_a_manifest_the_hint_names_the_stack_option(cli, world, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = cli("destroy")
    assert done.code == 1
    assert "no stack given, and no garrison.yaml in this directory" in done.err
    assert "garrison destroy --stack NAME" in done.err


def test_a_second_destroy_is_no_error(cli, world, file):
    assert cli("destroy", "--stack", "lab", "--yes").code == 0
    for words in (["--yes"], []):
        done = cli("destroy", "--stack", "lab", *words)
        assert (done.code, done.err) == (0, "")
        assert "Stack lab is destroyed." in done.out
    body = json.loads(cli("destroy", file, "--yes", "--json").out)
    assert (body["ok"], body["destroyed"], body["outcomes"]) == (True, True, [])
    assert cli("destroy", "--stack", "lob", "--yes").code == 1, "that one never was"
    assert cli("apply", file, "--yes").code == 0
    assert cli("destroy", "--stack", "lab", "--yes").code == 0
    assert world.edge.served == {}
