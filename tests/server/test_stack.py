"""One manifest for the machine: instances and their adapters, applied by a server and kept as declared."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_model as maker
from server_lab import ServerLab, chat_body, wait_for

pytestmark = pytest.mark.system

MANIFEST = """\
stack: box
instances:
  qwen:
    model: {model}
    engine: sim
    idle: 30m
targets: {{}}
adapters:
  sql: {{targets: [qwen], lora_path: {adapter}}}
policy: {{on_drift: restore, interval: 1s}}
"""


@pytest.fixture
def manifest(tmp_path: Path, tiny_model: Path) -> Path:
    adapter = maker.make_adapter(tmp_path / "sql")
    path = tmp_path / "garrison.yaml"
    path.write_text(MANIFEST.format(model=tiny_model, adapter=adapter))
    return path


def garrison(lab: ServerLab, *arguments: str) -> "subprocess.CompletedProcess[str]":
    argv = [sys.executable, "-m", "garrison.cli.main", *arguments]
    return subprocess.run(argv, env=lab.environ, capture_output=True, text=True, timeout=120, check=False)


def adapters(lab: ServerLab) -> list[str]:
    """What the engine calls them: versions have names of their own."""
    answer = lab.http.get("/api/v1/instances/qwen/proxy/v1/models")
    return [one["id"] for one in answer.json()["data"] if one.get("parent")]


def test_an_instance_and_its_adapter_from_file_to_answer(labs: Any, manifest: Path) -> None:
    lab: ServerLab = labs()
    lab.start("-f", str(manifest))
    wait_for(lambda: lab.http.get("/api/v1/instances/qwen").is_success, 20, "created")
    made = lab.instance("qwen")
    assert (made["state"], made["stack"]) == ("stopped", "box")
    assert lab.chat("qwen").is_success, "a request starts it"
    wait_for(lambda: len(adapters(lab)) == 1, 10, "the adapter is loaded at its start")
    (version,) = adapters(lab)
    assert version.startswith("sql@")
    for name in ("qwen/sql", "sql"):
        assert lab.http.post("/v1/chat/completions", json=chat_body(name, 4)).is_success
    unloaded = lab.http.post(
        "/api/v1/instances/qwen/proxy/v1/unload_lora_adapter", json={"lora_name": version}
    )  # fmt: skip
    assert unloaded.is_success
    wait_for(lambda: adapters(lab) == [version], 15, "healed")
    shown = garrison(lab, "status", "--json")
    assert [one["name"] for one in json.loads(shown.stdout)["stacks"][0]["adapters"]] == ["sql"]


def test_an_apply_beside_a_running_server_goes_through_it(lab: ServerLab, manifest: Path) -> None:
    planned = garrison(lab, "plan", str(manifest))
    assert planned.returncode == 0, planned.stderr
    assert "qwen" in planned.stdout
    done = garrison(lab, "apply", str(manifest), "--yes")
    assert done.returncode in (0, 31), done.stdout + done.stderr
    assert lab.instance("qwen")["stack"] == "box"
    assert lab.chat("qwen").is_success
    pid = lab.instance("qwen")["pid"]
    again = garrison(lab, "up", "-f", str(manifest), "--yes")
    assert again.returncode == 0, again.stdout + again.stderr
    assert lab.instance("qwen")["pid"] == pid, "what did not change was not restarted"
    manifest.write_text(manifest.read_text().replace("idle: 30m", "idle: 40m"))
    changed = garrison(lab, "apply", str(manifest), "--yes")
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert lab.instance("qwen")["options"]["idle_timeout"] == 40
    assert lab.instance("qwen")["pid"] == pid
    gone = garrison(lab, "destroy", "--stack", "box", "--yes")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert lab.api("GET", "/instances") == []


def test_a_second_plan_has_nothing_to_do(lab: ServerLab, tmp_path: Path, tiny_model: Path) -> None:
    path = tmp_path / "garrison.yaml"
    path.write_text(f"stack: box\ninstances: {{one: {{model: {tiny_model}, engine: sim}}}}\n")
    assert garrison(lab, "plan", str(path), "--exit-code").returncode == 32
    assert garrison(lab, "apply", str(path), "--yes").returncode == 0
    for _ in range(2):
        again = garrison(lab, "plan", str(path), "--exit-code")
        assert again.returncode == 0, again.stdout
        assert lab.chat("one").is_success, "then it runs"


def test_an_instance_of_nobody_is_a_conflict(lab: ServerLab, manifest: Path, tiny_model: Path) -> None:
    lab.create("qwen", tiny_model)
    done = garrison(lab, "apply", str(manifest), "--yes")
    assert done.returncode == 33, done.stdout + done.stderr
    assert "--adopt" in done.stdout + done.stderr
    assert lab.instance("qwen")["stack"] is None


def test_without_a_server_an_apply_says_which_command_starts_one(labs: Any, manifest: Path) -> None:
    done = garrison(labs(), "apply", str(manifest), "--yes")
    assert done.returncode == 31
    assert "garrison up -f" in done.stderr


def test_the_config_is_read_again_and_touches_only_what_changed(labs: Any, tmp_path: Path, tiny_model: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("idle_timeout: 30m\n")
    lab: ServerLab = labs()
    lab.start("--config", str(config))
    lab.create("a", tiny_model)
    assert lab.chat("a").is_success
    pid = lab.instance("a")["pid"]
    config.write_text("idle_timeout: 45m\nserver_port: 1\n")
    wait_for(lambda: lab.instance("a")["options"]["idle_timeout"] == 45, 15, "read again")
    assert lab.instance("a")["pid"] == pid
    config.write_text("idle_timeout: 50m\nmax_running_instances: [\n")
    wait_for(lambda: "config.yaml:3:1" in lab.log.read_text(), 15, "refused with line and column")
    assert lab.instance("a")["options"]["idle_timeout"] == 45
    assert lab.chat("a").is_success
