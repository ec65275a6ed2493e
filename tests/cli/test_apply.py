import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import pytest
from fleet_files import write
from rendered import ESCAPE

from garrison.cli.fleet.wiring import open_fleet
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError
from garrison.testing.targets import refusal

DOWN = TransportError(TransportCause.REFUSED, "connection refused")


@pytest.fixture
def file(tmp_path):
    return write(tmp_path / "garrison.json")


def test_json_is_pinned(cli, world, file, golden):
    done = cli("apply", file, "--yes", "--json")
    assert (done.code, done.err) == (0, "")
    body = json.loads(done.out)
    assert body.pop("command").startswith("2026")
    assert len(body["plan"].pop("fingerprint")) == 32
    body["outcomes"].sort(key=lambda one: (one["target"], one["name"]))
    for one in body["outcomes"]:
        one["notes"], one["seconds"], one["gap_ms"] = [], 0.0, None
    golden("apply.json", json.dumps(body, indent=1) + "\n")


def test_a_first_and_a_second_time(cli, world, file, golden):
    lines = cli("apply", file, "--yes").out.splitlines(keepends=True)
    ended = [line for line in lines if line.startswith("✓ edge")]  # targets are worked on side by side
    place = lines.index(ended[0])
    golden("apply-first.txt", "".join([*lines[:place], *sorted(ended), *lines[place + len(ended) :]]))
    assert world.edge.served == {"sql": "/models/sql", "chat": "/models/chat"}
    golden("apply-again.txt", cli("apply", file).out)


def test_the_form_of_formae(cli, world, file):
    assert cli("apply", "--mode", "reconcile", "--watch", "--yes", file).code == 0


def test_without_a_terminal_it_cannot_ask(cli, world, file, monkeypatch):
    done = cli("apply", file)
    assert done.code == 64
    assert "+ 3 create" in done.out
    assert done.err == (
        "error: confirmation required, but standard input is not a terminal\n  → Confirm with --yes (-y).\n"
    )
    assert world.edge.served == {}


def test_json_does_not_ask(cli, world, file):
    done = cli("apply", file, "--json")
    body = json.loads(done.out)
    assert (done.code, body["code"], body["plan"]["counts"]) == (64, "usage", {"create": 3})


def test_simulate_is_plan(cli, world, file):
    assert cli("apply", file, "--simulate") == cli("plan", file)
    assert cli("apply", file, "--dry-run") == cli("plan", file)
    assert cli("apply", file, "--simulate", "--watch").code == 64


def test_a_conflict_exits_33_with_the_options(cli, world, file):
    cli("apply", file, "--yes")
    world.edge.served["sql"] = "/tmp/theirs"
    done = cli("apply", file, "--yes")
    assert done.code == 33
    assert "conflict" in done.out
    assert "garrison extract" in done.err
    assert "--force" in done.err
    body = json.loads(cli("apply", file, "--yes", "--json").out)
    assert [one["name"] for one in body["conflicts"]] == ["sql"]
    assert cli("apply", file, "--yes", "--force").code == 0
    assert world.edge.served["sql"] == "/models/sql"


def test_a_failure_is_30_with_its_hint(cli, world, file):
    world.edge.broken["/models/sql"] = refusal(
        500, "InternalServerError", "LoRA rank 64 is greater than max_lora_rank 16"
    )
    done = cli("apply", file, "--yes")
    assert done.code == 30
    assert "✗ 1 failed" in done.out
    assert "edge-1/sql  " in done.out
    assert "--max-lora-rank" in done.out
    assert world.targets["edge-2"].served == {"sql": "/models/sql"}


def test_out_of_reach_is_31_and_owed(cli, world, file):
    world.targets["edge-2"].down = DOWN
    done = cli("apply", file, "--yes")
    assert done.code == 31
    assert "○ 1 owed on 1 target: edge-2" in done.out
    assert "garrison agent" in done.out


def test_watch_stays_until_nothing_is_owed(cli, world, file, monkeypatch):
    edge = world.targets["edge-2"]
    edge.down = DOWN
    looks = []

    async def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 3:
            edge.down = None

    from garrison.fleet.operations.watch import watch

    monkeypatch.setattr(watch, "__kwdefaults__", watch.__kwdefaults__ | {"sleep": sleep})
    done = cli("apply", file, "--yes", "--watch")
    assert done.code == 0, done
    assert edge.served == {"sql": "/models/sql"}
    assert "waiting: 1 action owed" in done.out
    assert "✓ 3 created on 2 targets" in done.out
    assert len(looks) == 3


def test_an_unknown_mode_is_a_usage_error(cli, world, file):
    assert cli("apply", file, "--mode", "destroy").code == 64


def test_nothing_declared(cli, world, tmp_path):
    done = cli("apply", write(tmp_path / "empty.json", targets={}, adapters={}), "--yes")
    assert done.code == 0
    assert "the stack declares and owns no adapters" in done.out


# --- at a terminal, in a process of its own


class Terminal:
    """A command on a pseudo terminal."""

    def __init__(self, argv, env, cwd):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(sys.executable, [sys.executable, "-m", "garrison.cli.main", *argv], env)
        self.text = ""

    def until(self, words, seconds=30.0):
        """Read until `words` were shown."""
        deadline = time.monotonic() + seconds
        while words not in self.text:
            assert time.monotonic() < deadline, self.text
            assert self._read(), self.text

    def type(self, keys):
        os.write(self.fd, keys)

    def end(self):
        """The exit code, after everything was read."""
        while self._read():
            pass
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(status)

    def _read(self):
        ready, _, _ = select.select([self.fd], [], [], 30.0)
        try:
            found = os.read(self.fd, 65536) if ready else b""
        except OSError:  # the other end is closed
            return False
        self.text += ESCAPE.sub("", found.decode())
        return bool(found)


def slow_loads(sim, seconds):
    sim.sim.state.faults = replace(sim.sim.state.faults, load_delay=seconds)


def served(sim):
    with urllib.request.urlopen(f"{sim.url}/v1/models", timeout=10) as answer:
        return sorted(one["id"] for one in json.load(answer)["data"] if one["parent"])


@pytest.fixture
def terminal(clean_environ, tmp_path):
    env = dict(clean_environ) | {"TERM": "xterm-256color", "COLUMNS": "100"}
    return lambda *argv: Terminal([str(word) for word in argv], env, tmp_path)


@pytest.fixture
def slow(start, manifest, adapter):
    """A manifest for a simulated server whose loads take their time."""
    sim = start()
    slow_loads(sim, 0.7)
    adapters = {name: {"target": "edge", "lora_path": str(adapter(name, seed=7))} for name in ("a", "b", "c")}
    return sim, manifest({"edge": {"base_url": sim.url}}, adapters)


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("answer", "said", "code"), [(b"n\n", "Nothing was done.", 41), (b"\x03", "nothing was started", 130)]
)
def test_no_and_ctrl_c_at_the_question(terminal, slow, answer, said, code):
    sim, file = slow
    shown = terminal("apply", file)
    shown.until("[y/N]")
    shown.type(answer)
    assert shown.end() == code
    assert said in shown.text
    assert "Traceback" not in shown.text
    assert served(sim) == []
    with open_fleet() as fleet:
        assert (fleet.store.stacks(), fleet.store.commands(), fleet.store.leases()) == ([], [], [])


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_nothing_is_held_at_the_question_and_what_was_shown_is_done(terminal, slow, cli, manifest, adapter):
    sim, file = slow
    slow_loads(sim, 0.0)
    shown = terminal("apply", file)
    shown.until("[y/N]")
    with open_fleet() as fleet:
        assert fleet.store.leases() == []
    other = manifest(
        {"edge": {"base_url": sim.url}}, {"d": {"target": "edge", "lora_path": str(adapter("d"))}}, "other"
    )
    assert cli("apply", other, "--yes").code == 0
    shown.type(b"y\n")
    assert shown.end() == 0
    assert served(sim) == ["a", "b", "c", "d"]
    assert shown.text.count("Apply 3 actions to 1 target?") == 1


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_a_plan_that_changed_at_the_question_is_33_and_nothing_is_done(terminal, slow, adapter):
    sim, file = slow
    slow_loads(sim, 0.0)
    shown = terminal("apply", file)
    shown.until("[y/N]")
    sim.load("b", adapter("b", seed=7))
    shown.type(b"y\n")
    assert shown.end() == 33
    text = " ".join(shown.text.split())
    assert "rejected: the plan for stack cabinet-7 has changed since it was shown: edge/b: create, now adopt" in text
    assert "Nothing was done." in text
    assert "Traceback" not in text
    assert served(sim) == ["b"]
    with open_fleet() as fleet:
        assert (fleet.store.stacks(), fleet.store.commands(), fleet.store.leases()) == ([], [], [])


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_ctrl_c_finishes_work_in_progress_and_the_next_apply_continues(terminal, slow):
    sim, file = slow
    shown = terminal("apply", file)
    shown.until("[y/N]")
    shown.type(b"y\n")
    shown.until("load 0 s")
    shown.type(b"\x03")
    assert shown.end() == 130
    assert "interrupted: 1 done, 2 still owed." in shown.text
    assert "`garrison apply` continues from here" in shown.text
    assert "Traceback" not in shown.text
    assert served(sim) == ["a"]
    slow_loads(sim, 0.0)
    again = terminal("apply", file, "--yes")
    assert again.end() == 0
    assert served(sim) == ["a", "b", "c"]


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_a_second_ctrl_c_stops_now_and_is_settled_later(terminal, slow):
    sim, file = slow
    slow_loads(sim, 5.0)
    shown = terminal("apply", file, "--yes")
    shown.until("load 0 s")
    shown.type(b"\x03")
    shown.until("stopping")
    time.sleep(1.2)  # what comes sooner is the same wish
    shown.type(b"\x03")
    assert shown.end() == 130
    assert "interrupted: 0 done, 2 still owed, 1 cut short" in shown.text
    assert "Traceback" not in shown.text
    slow_loads(sim, 0.0)
    again = terminal("apply", file, "--yes")
    assert again.end() == 0
    assert "was cut short" in again.text
    assert served(sim) == ["a", "b", "c"]


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
def test_sigterm_acts_like_ctrl_c(terminal, slow):
    _, file = slow
    shown = terminal("apply", file, "--yes")
    shown.until("load 0 s")
    os.kill(shown.pid, signal.SIGTERM)
    assert shown.end() == 130
    assert "interrupted: 1 done, 2 still owed." in shown.text


@pytest.mark.system
def test_without_a_terminal_it_says_that_it_is_stopping(slow, clean_environ, until):
    sim, file = slow
    slow_loads(sim, 2.0)
    command = [sys.executable, "-m", "garrison.cli.main", "apply", str(file), "--yes"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(clean_environ)) as process:
        assert process.stdout is not None
        until(_loading, what="the first load")
        for _ in range(2):  # as `timeout` does
            os.kill(process.pid, signal.SIGTERM)
        out = process.stdout.read()
    assert process.returncode == 130
    lines = out.splitlines()
    told = lines.index("· stopping after work in progress; press Ctrl-C again to stop now")
    assert "created" in "".join(lines[told:])
    assert "interrupted: 1 done, 2 still owed." in out


def _loading():
    with open_fleet() as fleet:
        return any(one.started_at for _, actions in fleet.store.unfinished("cabinet-7") for one in actions)


def test_the_manifest_names_the_place(cli, world, tmp_path):
    done = cli("apply", write(tmp_path / "bad.json", adapters={"sql": {"target": "nope", "lora_path": "/x"}}), "--yes")
    assert done.code == 1
    assert "bad.json" in done.err


@pytest.mark.system
@pytest.mark.filterwarnings("ignore:.*forkpty.*:DeprecationWarning")
@pytest.mark.parametrize(
    "words", [("apply", "--yes"), ("plan",), ("status",), ("drift",), ("destroy", "--yes")], ids=str
)
def test_a_clock_runs_from_second_0(terminal, slow, words):
    """Before the manifest is read and the database is open."""
    sim, file = slow
    slow_loads(sim, 0.0)
    assert terminal("apply", file, "--yes").end() == 0
    shown = terminal(*words, *([file] if words[0] in ("apply", "plan", "destroy") else []))
    first = "reading the manifest" if words[0] in ("apply", "plan") else "opening the record"
    shown.until(f"{first}  0 s")
    assert shown.text[2:].startswith(first), "nothing comes before it"
    assert shown.end() == 0
    assert "Traceback" not in shown.text
