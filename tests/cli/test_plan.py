import json
from dataclasses import replace

import pytest
from fleet_files import MANIFEST, write

from garrison.cli.fleet.plan import exit_code_of
from garrison.fleet.values.plan import ActionKind, Plan, TargetChange
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "garrison.json")


def test_json_is_pinned(cli, world, file, golden):
    done = cli("plan", file, "--json")
    assert (done.code, done.err) == (0, "")
    body = json.loads(done.out)
    assert len(body["plan"].pop("fingerprint")) == 32
    golden("plan.json", json.dumps(body, indent=1) + "\n")


def test_a_plan_changes_nothing(cli, world, file):
    assert cli("plan", file).code == 0
    assert world.store.stacks() == []
    assert [one for one in world.targets.requests if one.method == "POST"] == []


def test_both_ways_to_name_a_file(cli, world, file, tmp_path, monkeypatch):
    by_position, by_option = cli("plan", file), cli("plan", "-f", file)
    assert by_position == by_option
    monkeypatch.chdir(tmp_path)
    file.rename(tmp_path / "garrison.yaml")
    assert cli("plan") == by_position


def test_exit_code_32_then_0(cli, world, file):
    assert cli("plan", file, "--exit-code").code == 32
    assert cli("apply", file, "--yes").code == 0
    done = cli("plan", file, "--exit-code")
    assert done.code == 0
    assert "No changes needed" in done.out


def test_exit_code_31_when_a_target_is_out_of_reach(cli, world, file):
    cli("apply", file, "--yes")
    world.targets["edge-2"].down = DOWN
    done = cli("plan", file, "--exit-code")
    assert done.code == 31
    assert "edge-2  refused: connection refused  last seen just now" in done.out
    assert cli("plan", file).code == 0


def test_what_is_owed_by_a_target_out_of_reach_is_a_change(cli, world, file):
    world.targets["edge-2"].down = DOWN
    done = cli("plan", file, "--exit-code")
    assert done.code == 32
    assert "○ 1 owed" in done.out
    assert "never seen" in done.out


def test_a_conflict_is_shown_and_is_not_an_error(cli, world, file):
    world.edge.served["sql"] = "/tmp/theirs"
    done = cli("plan", file)
    assert done.code == 0
    assert "⚠ sql on edge-1 was loaded by another party, from /tmp/theirs" in done.out
    assert cli("plan", file, "--exit-code").code == 32
    assert "⚠" not in cli("plan", file, "--adopt").out


def test_patch_keeps_what_is_not_declared(cli, world, file, tmp_path):
    cli("apply", file, "--yes")
    less = write(tmp_path / "less.json", adapters={"sql": MANIFEST["adapters"]["sql"]})
    assert "✕ delete" in cli("plan", less).out
    assert "No changes needed" in cli("plan", less, "--mode", "patch").out


def test_a_secret_is_never_shown(cli, world, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_KEY", "hunter2-hunter2")
    targets = {"edge-1": {"base_url": "http://edge-1:8000", "api_key": {"env": "EDGE_KEY"}}}
    file = write(tmp_path / "k.json", targets=targets, adapters={"chat": MANIFEST["adapters"]["chat"]})
    for words in (
        ["plan", file],
        ["plan", file, "--json"],
        ["apply", file, "--yes"],
        ["status", "--json"],
        ["history"],
    ):
        done = cli(*words)
        assert "hunter2" not in done.out + done.err


KEEP = Plan(stack="s", mode="reconcile", actions=())
CODES = {
    "nothing": (KEEP, 0),
    "unknown": (replace(KEEP, unknown={"a": "away"}), 31),
    "a new target": (replace(KEEP, targets=(TargetChange(kind="create", name="a"),)), 32),
    "a kept target": (replace(KEEP, targets=(TargetChange(kind="keep", name="a"),)), 0),
}
KINDS = {kind: 0 if kind in (ActionKind.KEEP, ActionKind.ADOPT) else 32 for kind in ActionKind}


@pytest.mark.parametrize(("plan", "code"), CODES.values(), ids=CODES)
def test_exit_codes(plan, code):
    assert exit_code_of(plan) == code


@pytest.mark.parametrize(("kind", "code"), KINDS.items(), ids=map(str, KINDS))
def test_exit_code_of_an_action(kind, code):
    from plan_samples import action

    assert exit_code_of(replace(KEEP, actions=(action(kind, "a"),))) == code
