"""The commands on a fleet through a server elsewhere: the same pages, JSON and exit codes as on its own machine."""

import json
import re
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
import yaml
from server_lab import ServerLab, wait_for
from tests_environment import environment
from threaded_sims import simulators

from garrison.cli.fleet import question

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

KEY = "sk-management-0123456789"
NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def start() -> Iterator[Any]:
    with simulators() as start:
        yield start


@pytest.fixture
def url(server: ServerLab) -> str:
    return f"http://127.0.0.1:{server.port}"


@pytest.fixture
def there(cli: Any, url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`there("plan", file)`: a command on a machine of its own, through that server."""
    monkeypatch.setenv("COLUMNS", "100")
    return lambda *words: cli(*words, "--server", url)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(stack, targets, adapters, …)`: a manifest in a directory of its own."""

    def make(stack: str, targets: Mapping[str, Any], adapters: Mapping[str, Any], **more: Any) -> Path:
        path = tmp_path / stack / "garrison.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump({"stack": stack, "targets": targets, "adapters": adapters, **more}))
        return path

    return make


@pytest.fixture
def lab(start: Any, write: Any, adapter: Any, request: Any) -> tuple[Any, Path, str]:
    """A simulated target, a manifest with a relative path and two adapters for it, and the name of its stack."""
    stack = request.node.originalname.removeprefix("test_")[:40].replace("_", "-")
    sim = start()
    adapters = {name: {"target": f"{stack}-edge", "lora_path": f"./{name}"} for name in ("sql", "chat")}
    file = write(stack, {f"{stack}-edge": {"base_url": sim.url}}, adapters)
    for name in adapters:
        maker.make_adapter(file.parent / name, seed=len(name))
    return sim, file, stack


def served(sim: Any) -> list[str]:
    with urllib.request.urlopen(f"{sim.url}/v1/models", timeout=10) as answer:
        return sorted(one["id"] for one in json.load(answer)["data"] if one["parent"])


def test_from_plan_to_destroy(there: Any, lab: Any, server: ServerLab, tiny_model: Path) -> None:
    sim, file, stack = lab
    body = yaml.safe_load(file.read_text())
    body["instances"] = {"remote-qwen": {"model": str(tiny_model), "engine": "sim", "idle": "30m"}}
    file.write_text(yaml.safe_dump(body))
    planned = there("plan", file, "--exit-code")
    assert (planned.code, planned.err) == (32, "")
    assert "+ new       remote-qwen" in planned.out
    assert "+ create   sql" in planned.out
    assert served(sim) == []
    done = there("apply", file, "--yes")
    assert (done.code, done.err) == (0, "")
    assert "✓ 1 instance created" in done.out
    assert "✓ 2 created on 1 target" in done.out
    assert served(sim) == ["chat", "sql"]
    assert server.instance("remote-qwen")["stack"] == stack
    again = there("plan", file, "--exit-code", "--json")
    assert (again.code, json.loads(again.out)["plan"]["changes_required"]) == (0, False)
    assert "No changes needed: everything is as declared." in there("apply", file).out
    body["instances"]["remote-qwen"]["idle"] = "40m"
    file.write_text(yaml.safe_dump(body))
    changed = there("apply", file, "--yes", "--json")
    assert changed.code == 0
    (one,) = json.loads(changed.out)["instances"]
    assert (one["kind"], one["name"], one["ok"]) == ("update", "remote-qwen", True)
    gone = there("destroy", "--stack", stack, "--yes")
    assert gone.code == 0
    assert f"Stack {stack} is destroyed." in gone.out
    assert served(sim) == []
    assert server.http.get("/api/v1/instances/remote-qwen").status_code == 404
    assert there("destroy", "--stack", stack, "--yes").code == 1


def test_pages_and_json_are_those_of_the_servers_own_machine(
    there: Any, here: Any, lab: Any, server: ServerLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim, file, stack = lab
    file.write_text(f"{file.read_text()}policy: {{interval: 1s}}\n")

    def both(*words: Any) -> tuple[Any, Any]:
        """The command on the server's machine, and through the server."""
        return here(*words), there(*words)

    monkeypatch.setenv("COLUMNS", "100")
    for words in (("plan", file), ("plan", file, "--json")):
        local, remote = both(*words)
        assert remote == local
    assert there("apply", file, "--yes").code == 0
    sim.load("stranger", file.parent / "sql")
    sim.unload("sql")
    drifted = f"/api/v1/history?stack={stack}&kind=drift"
    wait_for(lambda: server.http.get(drifted).json(), 30, "the agent has seen it, and nothing changes any more")
    assert here("discover").code in (0, 31)
    views = [("plan", file, "--all"), ("drift", "--stack", stack), ("status", "--stack", stack)]
    views += [("inventory", noun, "--query", f"{field}:{stack}*")
              for noun, field in (("adapters", "target"), ("targets", "name"), ("models", "target"), ("stacks", "name"))
             ]  # fmt: skip
    views += [("history", "--stack", stack), ("history", "--stack", stack, "--kind", "applied", "--limit", "1")]
    for words in views:
        local, remote = both(*words, "--json")
        assert (remote.code, remote.err) == (local.code, local.err)
        assert steady(remote.out) == steady(local.out), words
        assert aged(both(*words)[1].out) == aged(both(*words)[0].out)


def steady(text: str) -> list[Any]:
    """JSON without the times at which something was looked at."""
    found = [json.loads(line) for line in text.splitlines()]

    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(one) for one in value]
        if not isinstance(value, dict):
            return value
        times = ("at", "last_seen", "last_checked")
        return {key: without(one) for key, one in value.items() if key not in times or "kind" in value}

    return [without(one) for one in found]


def aged(text: str) -> str:
    """A page without how long ago something was."""
    return re.sub(r" +", " ", re.sub(r"\d+ [smhd] ago|just now", "… ago", text))


def test_a_target_out_of_reach_is_31_and_the_server_carries_it_out(
    there: Any, write: Any, adapter: Any, url: str
) -> None:
    file = write("away", {"away-far": {"base_url": NOWHERE}}, {"a": {"target": "away-far", "lora_path": "/models/a"}})
    assert there("plan", file, "--exit-code").code == 32
    done = there("apply", file, "--yes")
    assert done.code == 31
    assert f"→ {url} carries them out once the targets answer." in done.out
    body = json.loads(there("apply", file, "--yes", "--json").out)
    assert (body["ok"], body["exit_code"], [one["state"] for one in body["outcomes"]]) == (False, 31, ["skipped"])
    assert json.loads(there("drift", "--stack", "away", "--exit-code", "--json").out)["exit_code"] == 31


def test_an_adapter_that_is_not_there_is_30(there: Any, start: Any, write: Any) -> None:
    file = write(
        "bad", {"bad-edge": {"base_url": start().url}}, {"a": {"target": "bad-edge", "lora_path": "/nowhere/a"}}
    )
    done = there("apply", file, "--yes", "--json")
    assert done.code == 30
    (one,) = json.loads(done.out)["outcomes"]
    assert (one["state"], one["failure"]["code"]) == ("failed", "InvalidRequest")
    assert "✗ 1 failed" in there("apply", file, "--yes").out


def test_what_changes_at_the_question_is_33(there: Any, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sim, file, _ = lab
    questions = []

    def ask(words: str, _: Any) -> bool:
        questions.append(words)
        sim.load("sql", file.parent / "sql")
        return True

    monkeypatch.setattr(question, "asked", ask)
    refused = there("apply", file)
    assert refused.code == 33
    assert questions == ["Apply 2 actions to 1 target?"]
    assert "/sql: create, now adopt" in refused.err
    assert "Nothing was done." in refused.err
    assert served(sim) == ["sql"]
    monkeypatch.setattr(question, "asked", lambda *_: True)
    done = there("apply", file)
    assert done.code == 0
    assert done.out.count("reconcile") == 1, "the plan is shown once"
    assert served(sim) == ["chat", "sql"]


def test_no_is_41_and_nothing_is_done(there: Any, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sim, file, _ = lab
    monkeypatch.setattr(question, "asked", lambda *_: False)
    assert there("apply", file).code == 41
    assert there("apply", file, "--json").code == 64
    assert served(sim) == []


def test_conflicts_are_33(there: Any, lab: Any, server: ServerLab, tiny_model: Path) -> None:
    sim, file, _ = lab
    sim.load("sql", file.parent / "chat")
    refused = there("apply", file, "--yes")
    assert refused.code == 33
    assert "⚠" in refused.out
    assert there("apply", file, "--yes", "--adopt").code == 0
    server.create("conflicting", tiny_model)
    body = yaml.safe_load(file.read_text())
    body["instances"] = {"conflicting": {"model": str(tiny_model), "engine": "sim"}}
    file.write_text(yaml.safe_dump(body))
    taken = there("apply", file, "--yes", "--json")
    assert taken.code == 33
    assert json.loads(taken.out)["conflicts"][0]["name"] == "conflicting"


def test_a_patch_adds_only(there: Any, lab: Any, write: Any) -> None:
    sim, file, stack = lab
    body = yaml.safe_load(file.read_text())
    assert there("apply", file, "--yes").code == 0
    file.write_text(yaml.safe_dump(body | {"adapters": {"more": {"target": f"{stack}-edge", "lora_path": "./sql"}}}))
    assert "delete" not in there("apply", file, "--mode", "patch", "--simulate").out
    assert there("apply", file, "--mode", "patch", "--yes").code == 0
    assert served(sim) == ["chat", "more", "sql"]


def test_the_url_may_be_a_setting(cli: Any, url: str, monkeypatch: pytest.MonkeyPatch, lab: Any) -> None:
    _, file, stack = lab
    monkeypatch.setenv("GARRISON_SERVER_URL", url)
    assert cli("apply", file, "--yes").code == 0
    found = json.loads(cli("inventory", "stacks", "--query", f"name:{stack}", "--json").out)["rows"]
    assert [one["name"] for one in found] == [stack]
    monkeypatch.delenv("GARRISON_SERVER_URL")
    assert json.loads(cli("inventory", "stacks", "--json").out)["rows"] == [], "nothing was recorded on this machine"


def test_watch_is_refused(there: Any, lab: Any, url: str) -> None:
    sim, file, _ = lab
    refused = there("apply", file, "--yes", "--watch")
    assert refused.code == 64
    assert f"{url} carries owed actions out by itself" in refused.err
    assert served(sim) == []


def test_references_to_the_server_are_refused_with_their_places(there: Any, lab: Any) -> None:
    _, file, stack = lab
    body = yaml.safe_load(file.read_text())
    body["targets"][f"{stack}-edge"]["api_key"] = {"env": "EDGE_KEY"}
    file.write_text(yaml.safe_dump(body))
    for command in (("plan", file), ("apply", file, "--yes")):
        refused = there(*command)
        assert refused.code == 40
        assert f"targets.{stack}-edge.api_key" in refused.err
        assert "→ Have the owner apply it on the server once." in refused.err


def test_a_manifest_that_is_wrong_is_refused_with_its_line(there: Any, lab: Any) -> None:
    _, file, _ = lab
    file.write_text("stack: a\nadaptors: {}\n")
    refused = there("plan", file)
    assert refused.code == 1
    assert f"{file}:2:1" in refused.err


def test_history_is_followed(line: Any, url: str, lab: Any, there: Any, clean_environ: Any) -> None:
    _, file, stack = lab
    assert there("apply", file, "--yes").code == 0
    argv = line("history", "--follow", "--stack", stack, "--json", "--server", url)
    with subprocess.Popen(argv, env=dict(clean_environ), stdout=subprocess.PIPE, text=True) as told:
        assert told.stdout is not None
        try:
            kinds = [json.loads(told.stdout.readline())["kind"] for _ in range(3)]
            assert sorted(kinds) == ["action-done", "action-done", "applied"]
            assert there("destroy", "--stack", stack, "--yes").code == 0
            kinds = [json.loads(told.stdout.readline())["kind"] for _ in range(4)]
            assert sorted(kinds) == ["action-done", "action-done", "applied", "destroyed"]
            told.send_signal(signal.SIGINT)
            assert told.wait(20) == 130
        finally:
            told.kill()


def test_ctrl_c_leaves_the_server_at_work(line: Any, url: str, lab: Any, clean_environ: Any, server: ServerLab) -> None:
    sim, file, stack = lab
    sim.sim.state.faults = replace(sim.sim.state.faults, load_delay=2.0)
    pipe = subprocess.PIPE
    argv = line("apply", str(file), "--yes", "--server", url)
    with subprocess.Popen(argv, env=dict(clean_environ), stdout=pipe, stderr=pipe, text=True) as applying:
        try:
            recorded = f"/api/v1/stacks/{stack}"
            wait_for(lambda: server.http.get(recorded).is_success, 30, "the server has begun")
            applying.send_signal(signal.SIGINT)
            out, err = applying.communicate(timeout=20)
        finally:
            applying.kill()
    assert applying.returncode == 130, out + err
    assert served(sim) == [], "the command does not wait for the server"
    assert f"interrupted: what was sent to {url} is carried out there all the same." in out
    assert "Traceback" not in out + err
    wait_for(lambda: served(sim) == ["chat", "sql"], 30, "the server goes on")


# What is not that server


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerLab]:
    """A server that wants a key."""
    root = tmp_path_factory.mktemp("locked")
    made = ServerLab(root, environment(root), require_management_auth="1", management_keys=KEY)
    made.http.headers["Authorization"] = f"Bearer {KEY}"
    made.start()
    yield made
    made.close()


COMMANDS = [("plan",), ("apply", "--yes"), ("destroy", "--stack", "a", "--yes"), ("status",), ("drift",),
            ("inventory",), ("history",)]  # fmt: skip


def with_file(words: tuple[str, ...], file: Path) -> tuple[Any, ...]:
    return (words[0], file, *words[1:]) if words[0] in ("plan", "apply") else words


def test_a_key_is_needed(cli: Any, locked: ServerLab, lab: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, file, _ = lab
    url = f"http://127.0.0.1:{locked.port}"
    for key in (None, "sk-another"):
        if key is not None:
            monkeypatch.setenv("GARRISON_SERVER_KEY", key)
        for words in COMMANDS:
            refused = cli(*with_file(words, file), "--server", url)
            assert (refused.code, refused.out) == (40, ""), words
            assert "key" in refused.err
    monkeypatch.setenv("GARRISON_SERVER_KEY", KEY)
    assert cli("apply", file, "--yes", "--server", url).code == 0
    assert cli("status", "--server", url).code == 0


def test_a_server_that_is_not_there(cli: Any, lab: Any) -> None:
    for words in COMMANDS:
        refused = cli(*with_file(words, lab[1]), "--server", NOWHERE)
        assert (refused.code, refused.out) == (31, ""), words
        assert f"{NOWHERE} does not answer" in refused.err
    assert cli("status", "--server", "10.0.0.5").code == 1


def test_something_else_that_answers(cli: Any, lab: Any) -> None:
    sim, file, _ = lab
    for words in COMMANDS:
        refused = cli(*with_file(words, file), "--server", sim.url)
        assert (refused.code, refused.out) == (31, ""), words
        assert f"{sim.url} is no Garrison server" in refused.err
