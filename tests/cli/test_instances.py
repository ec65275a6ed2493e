"""`plan`, `apply`, `eval` and `destroy` on a manifest with instances, without a server and with one."""

import json
from pathlib import Path
from typing import Any

import pytest

from garrison.base.clock import SystemClock
from garrison.cli.fleet.question import question_of
from garrison.cli.fleet.wiring import open_fleet
from garrison.fleet.values.instance_change import InstanceChange, InstanceKind
from garrison.fleet.values.plan import Action, ActionKind, Plan
from garrison.store.instance_store import InstanceRow

MANIFEST = """\
stack: box
instances:
  qwen:
    model: Qwen/Qwen2.5-7B-Instruct
    options: {max-model-len: 8192}
    idle: 30m
    env: {HF_TOKEN: {env: HF_TOKEN}}
adapters:
  sql: {target: qwen, lora_path: ./adapters/sql}
routes:
  gpt-4o-mini: {to: qwen}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "garrison.yaml"
    path.write_text(MANIFEST)
    return path


def recorded(**fields: Any) -> None:
    """Put an instance into the database of this data directory."""
    now = SystemClock().now()
    spec = {"options": {"model": "old"}, "stack": "box"} | fields
    row = InstanceRow(
        name="qwen", node="main", spec=spec, state="running", since=now, reason="", created=now, updated=now
    )
    with open_fleet() as fleet:
        fleet.store.create_instance(row)


def test_a_plan_without_a_server_reads_the_database(cli: Any, file: Path) -> None:
    done = cli("plan", file, "--json", "--exit-code")
    (one,) = json.loads(done.out)["plan"]["instances"]
    assert (done.code, one["kind"], one["summary"]) == (32, "create", "vllm  Qwen/Qwen2.5-7B-Instruct")
    recorded()
    done = cli("plan", file)
    assert "✎ changed   qwen  restarts its engine" in done.out
    assert "options.model  old → Qwen/Qwen2.5-7B-Instruct" in done.out
    assert "instance qwen is running, and no server is here to ask it" in done.out


def test_a_name_that_is_taken(cli: Any, file: Path) -> None:
    recorded(stack=None)
    done = cli("plan", file)
    assert "⚠ conflict  qwen  instance qwen exists, and no stack declared it" in done.out
    assert "--adopt" in done.out
    assert "taken over; restarts its engine" in cli("plan", file, "--adopt").out


@pytest.mark.parametrize("arguments", [["--yes"], []], ids=["yes", "asked"])
def test_an_apply_without_a_server_names_the_command_that_starts_one(
    cli: Any, file: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garrison.cli.fleet.question.asked", lambda *_: pytest.fail("nobody is asked"))
    done = cli("apply", file, *arguments)
    assert done.code == 31
    assert "no server runs on this data directory" in done.err
    assert "garrison up" in done.err
    assert cli("apply", file, "--simulate").code == 0


def test_eval_prints_the_instances(cli: Any, file: Path) -> None:
    done = cli("eval", file)
    assert "instances:\n  qwen:\n    model: Qwen/Qwen2.5-7B-Instruct\n" in done.out
    assert "HF_TOKEN: {env: HF_TOKEN}" in done.out
    assert "routes:\n  gpt-4o-mini: {to: qwen}\n" in done.out
    assert "targets" not in done.out
    body = json.loads(cli("eval", file, "--json").out)
    assert body["instances"]["qwen"]["options"] == {"max_model_len": 8192}


def test_the_manifest_of_serve_is_planned_too(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garrison.yaml").write_text("model: acme/tiny\nengine: sim\nstack: mine\n")
    done = cli("plan")
    assert done.code == 0
    assert "plan  mine" in done.out
    assert "+ new       tiny  sim  acme/tiny" in done.out


QUESTIONS = {
    "instances": ((), "reconcile", "Change 1 instance?"),
    "both": (("a",), "reconcile", "Change 1 instance, and apply 1 action to 1 target?"),
    "a destroy": (("a",), "destroy", "Unload 1 adapter from 1 target and delete 1 instance?"),
}


@pytest.mark.parametrize(("names", "mode", "question"), QUESTIONS.values(), ids=QUESTIONS)
def test_the_question(names: tuple[str, ...], mode: str, question: str) -> None:
    actions = tuple(Action(kind=ActionKind.CREATE, target="t", name=name, label=name, reason="") for name in names)
    one = InstanceChange(kind=InstanceKind.DELETE, name="qwen")
    assert question_of(Plan(stack="s", mode=mode, actions=actions, instances=(one,))) == question
