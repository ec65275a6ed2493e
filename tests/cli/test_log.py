"""`--log` and GARRISON_LOG_FORMAT of the commands that run for long."""

import json
import os
import platform
import pty
import signal
import socket
import subprocess
import sys

import pytest
from fleet_files import write
from full_pipe import full_pipe

from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json", policy={"on_drift": "restore"})
    assert cli("apply", path, "--yes").code == 0
    return path


def log_of(done):
    return [json.loads(line) for line in done.err.splitlines()]


def named(lines, event):
    return [line for line in lines if line["event"] == event]


def test_without_being_asked_the_agent_logs_nothing(cli, world, file, monkeypatch):
    monkeypatch.setenv("GARRISON_LOG_LEVEL", "debug")
    world.edge.restart()
    done = cli("agent", "--once")
    assert done.err == ""
    assert "restored" in done.out


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_a_repair_is_logged_with_its_command_and_cause(cli, world, file, monkeypatch, way):
    world.edge.restart()
    words = ["--log", "json"] if way == "flag" else []
    if way == "variable":
        monkeypatch.setenv("GARRISON_LOG_FORMAT", "json")
    done = cli("agent", "--once", *words)
    lines = log_of(done)
    (started,) = named(lines, "started")
    assert started["program"] == "garrison agent"
    assert (started["pid"], started["host"]) == (os.getpid(), platform.node())
    assert started["settings"]["log_format"]["value"] == "json"
    begun, ended = named(lines, "action started"), named(lines, "action ended")
    assert [(one["target"], one["adapter"]) for one in begun] == [("edge-1", "chat"), ("edge-1", "sql")]
    assert all(one["stack"] == "lab" and one["reason"] for one in begun)
    assert [(one["adapter"], one["state"]) for one in ended] == [("chat", "done"), ("sql", "done")]
    ids = {one.id for one in world.fleet.store.commands() if one.kind == "restore"}
    assert {one["command"] for one in (*begun, *ended)} == ids
    assert {one["level"] for one in named(lines, "drift")} == {"warning"}
    assert lines[-1]["event"] == "stopped"
    assert (lines[-1]["actions_done"], lines[-1]["actions_failed"], lines[-1]["forced"]) == (2, 0, False)
    assert {"last_believed", "bugs", "stopping"}.isdisjoint(lines[-1])
    order = [one["event"] for one in lines]
    assert order.index("restarted") < order.index("drift") < order.index("action started"), "why, then what"
    assert max(at for at, one in enumerate(order) if one == "drift") < order.index("action started")
    assert done.out == ""


def test_a_failed_action_is_a_warning_with_its_error(cli, world, file):
    world.edge.restart()
    world.edge.paths = {"/models/chat"}
    done = cli("agent", "--once", "--log", "json")
    assert done.code == 30
    (failed,) = [one for one in named(log_of(done), "action ended") if one["state"] == "failed"]
    assert (failed["level"], failed["adapter"], failed["code"]) == ("warning", "sql", "InvalidRequest")
    assert failed["error"]


def test_a_target_that_goes_and_returns(cli, world, file):
    world.targets["edge-2"].down = TransportError(TransportCause.REFUSED, "connection refused")
    (away,) = named(log_of(cli("agent", "--once", "--log", "json")), "unreachable")
    assert (away["level"], away["target"], away["cause"]) == ("warning", "edge-2", "refused")
    world.targets["edge-2"].down = None
    (back,) = named(log_of(cli("agent", "--once", "--log", "json")), "recovered")
    assert (back["level"], back["target"]) == ("info", "edge-2")


def test_the_level_counts(cli, world, file, monkeypatch):
    monkeypatch.setenv("GARRISON_LOG_LEVEL", "warning")
    world.edge.restart()
    assert {one["level"] for one in log_of(cli("agent", "--once", "--log", "json"))} == {"warning"}


def test_an_error_that_ends_the_command_is_logged(cli, world, file, monkeypatch):
    def broken(**_):
        raise TransportError(TransportCause.REFUSED, "unexpected")

    monkeypatch.setattr(world.fleet.store, "stacks", broken)
    done = cli("agent", "--once", "--log", "json")
    last = json.loads(done.err.splitlines()[-3] if "→" in done.err else done.err.splitlines()[-2])
    assert (last["event"], last["level"]) == ("ended with a bug", "error")
    assert "TransportError" in last["exception"]


@pytest.mark.parametrize(("name", "value"), [("FORMAT", "xml"), ("LEVEL", "loud")])
def test_an_unknown_value(cli, world, file, monkeypatch, name, value):
    monkeypatch.setenv(f"GARRISON_LOG_{name}", value)
    done = cli("agent", "--once")
    assert done.code == 1
    assert f"GARRISON_LOG_{name} must be one of " in done.err
    assert cli("status", "--cached").code == 0  # no business of a command that does not log


def test_a_database_password_is_not_logged(run, clean_environ):
    environ = {**clean_environ, "GARRISON_DATABASE_URL": "postgresql://u:correct-horse@127.0.0.1:1/x"}
    done = run("-m", "garrison.cli.main", "agent", "--once", "--log", "json", env=environ)
    assert done.code != 0
    lines = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    assert [line["event"] for line in lines] == ["started", "ended with an error"]
    assert "correct-horse" not in done.err
    assert lines[0]["database"] == "***"


def test_a_command_that_does_not_log_imports_no_structlog(run, clean_environ):
    for words in (["agent", "--once"], ["status", "--cached"]):
        program = (
            f"import sys; sys.argv = ['garrison', *{words!r}]\n"
            "from garrison.cli.main import main\n"
            "print(main(), 'structlog' in sys.modules)\n"
        )
        assert run("-c", program).out.splitlines()[-1] == "0 False"


@pytest.mark.system
@pytest.mark.parametrize("output", ["journal", "container", "terminal", "json"])
def test_no_line_is_there_twice(clean_environ, applied, output):
    """The view is shown beside the log only on a terminal of its own."""
    ours, theirs = pty.openpty()
    words = ["--json"] if output == "json" else []
    process = subprocess.Popen(
        [sys.executable, "-m", "garrison.cli.main", "agent", "--interval", "0.2", "--log", "json", *words],
        stdout={"journal": subprocess.PIPE, "terminal": theirs}.get(output, subprocess.PIPE),
        stderr=subprocess.STDOUT if output == "journal" else subprocess.PIPE,
        text=True,
        env=dict(clean_environ),
    )
    os.close(theirs)
    log = process.stdout if output == "journal" else process.stderr
    logged = [json.loads(log.readline())]
    while logged[-1]["event"] != "watching":
        logged.append(json.loads(log.readline()))
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    logged += [json.loads(line) for line in (out if output == "journal" else err).splitlines()]
    assert [one["targets"] for one in named(logged, "stopped")] == [2]
    assert [one["signal"] for one in named(logged, "stopping after work in progress")] == ["SIGTERM"]
    if output == "terminal":
        out = os.read(ours, 65536).decode()
        assert "watching 2 targets" in out
        assert "· stopped" in out
    elif output == "json":
        assert {"watching 2 targets in 1 stack", "stopped"} <= {json.loads(one).get("text") for one in out.splitlines()}
    elif output == "container":
        assert out == ""
    os.close(ours)


@pytest.mark.system
def test_an_unread_log_does_not_block_the_agent(clean_environ, applied, until):
    """Standard error is a full pipe: the agent keeps looking, and obeys SIGTERM."""
    readable, writable = full_pipe()
    process = subprocess.Popen(
        [sys.executable, "-m", "garrison.cli.main", "agent", "--interval", "0.1", "--log", "json"],
        stdout=subprocess.PIPE, stderr=writable, text=True, env={**clean_environ, "GARRISON_LOG_LEVEL": "debug"},
    )  # fmt: skip
    try:
        looks = applied.sim.counters.requests["/v1/models"]
        until(lambda: applied.sim.counters.requests["/v1/models"] > looks + 3, what="more looks")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
        os.close(readable)
        os.close(writable)


@pytest.mark.system
def test_serve_logs_its_phases_and_the_output_of_the_engine(clean_environ, tiny_model):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-m", "garrison.cli.main", "serve", tiny_model, "-e", "sim", "-p", str(port), "--log", "json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean_environ, "GARRISON_SKIP_GPU_CHECK": "1"},
    ) as process:
        lines = []
        for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "ready":
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 0
    assert lines[0]["program"] == "garrison serve"
    events = [line["event"] for line in lines if line["logger"] == "garrison.serve"]
    assert {"phase", "ready", "stopping", "stopped"} <= set(events)
    assert events[-1] == "stopped"
    assert [line for line in lines if line["logger"] == "garrison.engine"]
