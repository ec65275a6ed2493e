"""The question of each command that changes something, with what happens while it waits for the answer."""

import json

import pytest
from fleet_files import write

from garrison.cli.fleet import question
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError


@pytest.fixture
def answer(monkeypatch, world):
    """`answer(True, meanwhile)`: what the person says, and what happens before; returns the questions."""
    asked = []

    def give(said, meanwhile=lambda: None):
        def ask(words, _stopped):
            asked.append(words)
            assert world.store.leases() == [], "nothing is held while a person thinks"
            meanwhile()
            return said

        monkeypatch.setattr(question, "asked", ask)
        return asked

    return give


@pytest.fixture
def file(cli, world, tmp_path):
    """A manifest that is applied, with an unmanaged adapter on one target and the other out of reach."""
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    world.edge.served["mine"] = "/tmp/mine"
    return path


def _gone(world):
    world.targets["edge-2"].down = TransportError(TransportCause.REFUSED, "connection refused")


def test_yes_no_and_changed_meanwhile_at_adopt(cli, world, file, answer):
    asked = answer(False)
    done = cli("adopt", "mine", "--stack", "lab")
    assert (done.code, done.err) == (41, "Nothing was done.\n")
    assert asked == ["Adopt 1 adapter into lab?"]
    answer(True, lambda: world.edge.served.update(mine="/tmp/other"))
    done = cli("adopt", "mine", "--stack", "lab")
    assert done.code == 33
    assert "the adapters to adopt into lab have changed since they were shown" in done.err
    answer(True)
    done = cli("adopt", "mine", "--stack", "lab")
    assert done.code == 0
    assert done.out.count("edge-1/mine") == 1
    assert "✓ 1 adopted into lab" in done.out


def test_nobody_is_asked_where_nothing_is_to_be_adopted(cli, world, file, answer):
    asked = answer(False)
    assert "already in lab: edge-1/chat" in cli("adopt", "edge-1/chat", "--stack", "lab").out
    assert asked == []


def test_yes_no_and_changed_meanwhile_at_forget(cli, world, file, answer):
    _gone(world)
    asked = answer(False)
    done = cli("forget", "edge-2")
    assert (done.code, done.err) == (41, "Nothing was done.\n")
    assert asked == ["Forget edge-2?"]
    other = write(file.with_name("other.json"), stack="other", adapters={})
    answer(True, lambda: cli("apply", other, "--yes"))
    done = cli("forget", "edge-2")
    assert done.code == 33, done
    assert "has changed since it was shown" in done.err
    answer(True)
    done = cli("forget", "edge-2")
    assert (done.code, done.out.splitlines()[-1]) == (0, "✓ edge-2 forgotten")


def test_yes_no_and_changed_meanwhile_at_destroy(cli, world, file, answer):
    asked = answer(False)
    done = cli("destroy", "--stack", "lab")
    assert (done.code, done.err) == (41, "Nothing was done.\n")
    assert asked == ["Unload 3 adapters from 2 targets?"]
    answer(True, lambda: world.edge.served.pop("chat"))
    done = cli("destroy", "--stack", "lab")
    assert done.code == 33
    assert "edge-1/chat: delete, now release" in " ".join(done.err.split())
    assert "sql" in world.edge.served
    answer(True)
    done = cli("destroy", "--stack", "lab")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "Stack lab is destroyed."
    assert world.edge.served == {"mine": "/tmp/mine"}


def test_the_plan_is_shown_once(cli, world, file, answer):
    world.edge.served.pop("chat")
    answer(True)
    done = cli("apply", file)
    assert done.code == 0
    assert done.out.count("plan  lab  reconcile") == 1


def test_json_asks_nobody(cli, world, file, answer):
    world.edge.served.pop("chat")
    asked = answer(True)
    for command in (["apply", file], ["destroy", "--stack", "lab"], ["adopt", "mine", "-s", "lab"]):
        done = cli(*command, "--json")
        assert done.code == 64
        body = json.loads(done.out)
        assert "--json does not ask" in body["error"]
        assert ("plan" in body) == (command[0] != "adopt")
    assert asked == []
    assert world.store.leases() == []


def test_a_conflict_is_rejected_without_a_question(cli, world, file, answer):
    asked = answer(True)
    world.edge.served["chat"] = "/tmp/theirs"
    assert cli("apply", file).code == 33
    assert asked == []


def test_nothing_to_do_asks_nobody(cli, world, file, answer):
    asked = answer(False)
    assert cli("apply", file).code == 0
    assert asked == []
