import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import replace
from datetime import timedelta

import pytest
from fleet_files import write
from full_pipe import full_pipe
from server_lab import free_port

from garrison.cli.fleet.agent import _seconds
from garrison.cli.views.agent import AgentView
from garrison.fleet.execute.lease import this_process
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.store.records import AgentRecord, Event
from garrison.testing.clock import FakeClock

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json", policy={"on_drift": "restore"})
    assert cli("apply", path, "--yes").code == 0
    return path


def test_once_restores_and_reports(cli, world, file):
    world.edge.restart()
    done = cli("agent", "--once")
    assert done.code == 0
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}
    kinds = [line.split()[2] for line in done.out.splitlines()]
    assert {"restarted", "drift", "restored"} <= set(kinds)


def test_json_lines(cli, world, file):
    world.edge.restart()
    lines = [json.loads(line) for line in cli("agent", "--once", "--json").out.splitlines()]
    assert {"restarted", "drift", "restored"} <= {one["kind"] for one in lines}
    assert all({"at", "kind"} <= one.keys() for one in lines)


def test_once_says_31_when_a_target_is_out_of_reach(cli, world, file):
    world.targets["edge-2"].down = DOWN
    assert cli("agent", "--once").code == 31


def test_quiet_when_nothing_happens(cli, world, file):
    done = cli("agent", "--once")
    assert (done.code, done.out) == (0, "")


@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_a_single_pass_says_who_does_the_work_here(cli, world, file, json):
    now = world.clock.now()
    alive = this_process("agent")
    world.store.beat(AgentRecord(token="a", holder=alive, since=now, alive_at=now, looked_at=now))
    done = cli("agent", "--once", *json)
    said = f"(pid {alive.pid}) keeps the fleet and does what is due: last look "
    assert (done.code, said in done.out) == (0, True)


def test_a_single_pass_does_not_count_on_an_agent_that_is_silent(cli, world, file):
    long_ago = world.clock.now() - timedelta(minutes=5)
    world.store.beat(AgentRecord(token="a", holder=this_process("agent"), since=long_ago, alive_at=long_ago))
    assert cli("agent", "--once").out == ""


def test_targets_already_out_of_reach_are_reported_once_at_the_start(cli, world, file):
    world.targets["edge-2"].down = DOWN
    assert cli("agent", "--once").code == 31
    done = cli("agent", "--once")
    assert done.code == 31
    assert "· 1 of 2 targets out of reach: edge-2" in done.out
    assert len(done.out.splitlines()) == 1


def test_after_a_destroy_it_says_so(cli, world, file):
    assert cli("destroy", "--stack", "lab", "--yes").code == 0
    assert "nothing is applied: stack lab was destroyed " in cli("agent", "--once").out


def test_with_nothing_applied_it_says_what_to_do_first(cli, world):
    done = cli("agent", "--once")
    assert done.code == 0
    assert done.out.endswith("· nothing applied yet; run `garrison apply` with a manifest\n")


@pytest.mark.parametrize(("text", "seconds"), [("10", 10.0), ("10s", 10.0), ("1m", 60.0), ("500ms", 0.5)])
def test_an_interval_is_written_as_in_the_manifest(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
def test_a_stack_that_does_not_exist(cli, world, file, json):
    done = cli("agent", *json, "--once", "--stack", "nope")
    assert (done.code, "nothing applied" in done.out) == (1, False)
    assert "no stack 'nope' on record" in (done.out if json else done.err)
    assert "On record: lab. `garrison apply` makes a stack of a manifest." in (done.out if json else done.err)


def test_a_single_pass_has_no_port(cli, world, file):
    done = cli("agent", "--once", "--metrics-port", "19000")
    assert done.code == 64
    assert "mutually exclusive" in done.err


@pytest.mark.parametrize("text", ["soon", "0.01", "-1", "2d"])
def test_an_invalid_interval(cli, world, text):
    done = cli("agent", "--once", f"--interval={text}")
    assert done.code == 64
    assert f"--interval {text!r}" in done.err


@pytest.fixture
def running(applied, running_alone):
    """`running("--interval", …)`: the agent over what was applied."""
    return running_alone


@pytest.fixture
def running_alone(clean_environ):
    """The agent in a process of its own."""
    processes = []

    def start(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "garrison.cli.main", "agent", *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(clean_environ),
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda one: one.name)
def test_a_signal_ends_it_gracefully(running, number):
    process = running("--interval", "0.2")
    assert "watching 2 targets in 1 stack" in process.stdout.readline()
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err == ""
    assert "stopping after work in progress" in out
    assert out.splitlines()[-1].endswith("· stopped")


@pytest.mark.system
def test_it_shows_that_it_is_alive(cli, running):
    """In `status`, until it ends; on its port; and as dead, after a kill."""
    port = free_port()
    process = running("--interval", "0.2", "--metrics-port", str(port))
    assert "watching 2 targets in 1 stack" in process.stdout.readline()
    deadline = time.monotonic() + 30
    while not (found := json.loads(cli("status", "--cached", "--json").out)["agents"]) or not found[0]["looked_at"]:
        assert time.monotonic() < deadline
    assert (found[0]["pid"], found[0]["state"]) == (process.pid, "working")
    assert f"(pid {process.pid})" in cli("status", "--cached").out
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=10) as answer:
        told = json.load(answer)
    assert (told["ok"], told["targets"]) == (True, 2)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        assert b"garrison_agent_targets 2.0" in answer.read()
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)
    assert f"(pid {process.pid}) was killed; last look" in cli("status", "--cached").out
    after = running("--interval", "0.2")
    assert "watching" in after.stdout.readline()
    while [one["pid"] for one in json.loads(cli("status", "--cached", "--json").out)["agents"]] != [after.pid]:
        assert time.monotonic() < deadline
    os.kill(after.pid, signal.SIGTERM)
    after.communicate(timeout=30)
    assert json.loads(cli("status", "--cached", "--json").out)["agents"] == []


def test_hooks_of_the_manifest_are_called(cli, world, tmp_path):
    told = tmp_path / "told.json"
    hook = {
        "on": ["drift"],
        "command": [sys.executable, "-c", f"import sys; open({str(told)!r}, 'w').write(sys.stdin.read())"],
    }
    assert cli("apply", write(tmp_path / "garrison.json", hooks=[hook]), "--yes").code == 0
    world.targets["edge-2"].served.clear()
    assert cli("agent", "--once").code == 0
    assert json.loads(told.read_text())["target"] == "edge-2"


@pytest.mark.system
@pytest.mark.parametrize("words", [(), ("--json",)], ids=["lines", "json"])
def test_unread_output_does_not_block_the_agent(cli, start, manifest, adapter, clean_environ, until, words):
    """Standard output is a full pipe: the agent keeps looking, does what is due, and obeys SIGTERM."""
    sim = start()
    file = manifest({"edge": {"base_url": sim.url}}, {"sql": {"target": "edge", "lora_path": str(adapter("sql"))}})
    file.write_text(file.read_text() + "policy: {on_drift: restore}\n")
    assert cli("apply", file, "--yes").code == 0
    readable, writable = full_pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "garrison.cli.main", "agent", "--interval", "0.2", *words],
        stdout=writable, stderr=subprocess.PIPE, text=True, env=dict(clean_environ),
    )  # fmt: skip
    try:
        sim.unload("sql")
        until(lambda: "sql" in sim.sim.state.engine.adapters, what="the adapter")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
        os.close(readable)
        os.close(writable)


@pytest.mark.system
def test_a_second_signal_stops_it_now(cli, start, manifest, adapter, running_alone):
    """While a load takes long: the first signal waits for it, the second does not."""
    sim = start()
    targets = {"edge": {"base_url": sim.url}}
    adapters = {"sql": {"target": "edge", "lora_path": str(adapter("sql"))}}
    file = manifest(targets, adapters)
    file.write_text(file.read_text() + "policy: {on_drift: restore}\n")
    assert cli("apply", file, "--yes").code == 0
    sim.unload("sql")
    loading = threading.Event()

    async def hang(seconds):
        loading.set()
        await asyncio.sleep(seconds)

    sim.sim.state.sleep = hang
    sim.sim.state.faults = replace(sim.sim.state.faults, load_delay=60.0)
    process = running_alone("--interval", "0.2")
    assert loading.wait(20), "the agent loads the adapter again"
    for _ in range(2):  # a signal that arrives twice within a second counts once
        os.kill(process.pid, signal.SIGTERM)
    line = ""
    while "stopping" not in line:
        line = process.stdout.readline()
    time.sleep(1.2)
    assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")
    assert "the next start settles interrupted actions" in out


HANGING = """
import sys, threading
from garrison.cli.main import main
from garrison.fleet.artifacts.disk import DiskArtifacts

def digest(self, path):
    print("reading", file=sys.stderr, flush=True)
    threading.Event().wait()

DiskArtifacts.digest = digest
sys.argv = ["garrison", "agent", "--interval", "0.2"]
main()
"""


@pytest.mark.system
def test_a_disk_that_hangs_does_not_hold_the_process(applied, clean_environ):
    """The agent is reading an adapter's files when it is asked to stop, and the read never returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=dict(clean_environ),
    )  # fmt: skip
    try:
        assert process.stderr.readline() == "reading\n"
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
        assert time.monotonic() - begun < 15
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert out.splitlines()[-1].endswith("· stopped")
    assert err.startswith("abandoned, because it does not return: garrison-disk: digest /")


async def test_events_at_one_time_that_are_alike_are_one_line(capfd):
    clock = FakeClock()
    view = AgentView(clock, json=False)
    for number in range(30):
        view.event(Event(at=clock.now(), kind="recovered", target=f"t{number:02}"))
    view.event(Event(at=clock.now(), kind="drift", target="t00", name="sql", stack="lab", cause="restarted"))
    view.event(Event(at=clock.now(), kind="drift", target="t01", name="sql", stack="lab", cause="restarted"))
    view.note("watching")
    view.event(Event(at=clock.now(), kind="recovered", target="t30"))
    view.end()
    lines = [line.partition("  ")[2] for line in capfd.readouterr().out.splitlines()]
    assert lines == [
        "recovered      30 targets  t00, t01, t02, t03, t04 and 25 more",
        "drift          t00/sql  lab  restarted",
        "drift          t01/sql  lab  restarted",
        "· watching",
        "recovered      t30",
    ]
