import json
import os
import signal
import subprocess
import sys

import pytest
from fleet_files import write

from garrison.fleet.observation import Cause
from garrison.fleet.transport import TransportError

DOWN = TransportError(Cause.REFUSED, "connection refused")


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json", policy={"on_drift": "restore"})
    assert cli("apply", path, "--yes").code == 0
    return path


def test_once_restores_and_tells(cli, world, file):
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


@pytest.fixture
def running(applied, clean_environ):
    """`running("--interval", …)`: the agent in a process of its own."""
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
    assert "watching 2 targets of 1 stack" in process.stdout.readline()
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    assert err == ""
    assert "stopping: what is under way is ended first" in out
    assert out.splitlines()[-1].endswith("· stopped")
