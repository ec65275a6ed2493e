"""Many targets that fail alike are one entry; one that answers is never called unreachable."""

import json
import threading
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from fleet_world import World

from garrison.cli.fleet import wiring
from garrison.cli.views.alike import alike, counted_unknown
from garrison.net.errors import TransportCause
from garrison.net.thread_pool import ThreadPool
from garrison.net.transport import TransportError
from garrison.testing.targets import refusal

STATUSES = (401, 403, 404, 500, 302)
EACH = 4
COMMANDS = (
    ["plan"],
    ["apply", "--yes"],
    ["status"],
    ["status", "--cached"],
    ["drift"],
    ["discover"],
    ["inventory", "targets"],
    ["inventory", "adapters"],
    ["history"],
    ["agent", "--once"],
)


class Answer(BaseHTTPRequestHandler):
    """`/401/…` is answered with 401, and so on."""

    def do_GET(self):
        status = int(self.path.split("/")[1])
        self.send_response(status)
        if status == 302:
            self.send_header("Location", "http://127.0.0.1:1/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def fleet(manifest):
    """A manifest of targets that answer, four of each status, and four that do not."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    here = f"http://127.0.0.1:{server.server_port}"
    targets = {f"a{status}-{one}": {"base_url": f"{here}/{status}/{one}"} for status in STATUSES for one in range(EACH)}
    targets |= {f"gone-{one}": {"base_url": f"http://127.0.0.1:1/{one}"} for one in range(EACH)}
    yield manifest(targets, {"sql": {"targets": list(targets), "lora_path": "/models/sql"}})
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.system
def test_one_that_answers_is_never_called_unreachable(cli, fleet):
    for command in COMMANDS:
        done = cli(*command, *([fleet] if command[0] in ("plan", "apply") else []))
        lines = done.out.splitlines()
        section = ""
        for line in lines:
            if not line.startswith(" "):
                section = line
            if any(f"a{status}-" in line for status in STATUSES) and "gone-" not in line:
                assert "unreachable" not in line, (command, line)
                assert "out of reach" not in line, (command, line)
                assert not section.startswith("out of reach"), (command, line)
    summary = json.loads(cli("status", "--json").out)
    assert summary["summary"]["targets"] == {"unreachable": EACH, "unusable": EACH * len(STATUSES)}
    states = {one["name"]: one["state"] for one in summary["targets"]}
    assert {name: state for name, state in states.items() if state != "unusable"} == {
        f"gone-{one}": "unreachable" for one in range(EACH)
    }
    found = json.loads(cli("discover", "--json").out)["targets"]
    assert {one["state"] for one in found if not one["name"].startswith("gone")} == {"unusable"}
    rows = json.loads(cli("inventory", "targets", "-q", "status:unusable", "--json").out)["rows"]
    assert len(rows) == EACH * len(STATUSES)
    assert "24 targets, 4 out of reach, 20 not usable" in cli("discover").out


@pytest.mark.system
def test_a_cause_is_one_entry(cli, fleet):
    """In every command that looks: how many, a few of the names, and the next step once."""
    for command in (
        ["plan", fleet],
        ["apply", fleet, "--yes"],
        ["status"],
        ["drift"],
        ["discover"],
        ["agent", "--once"],
    ):
        out = cli(*command).out
        assert out.count("the API key is missing or wrong") == (2 if command[0] == "apply" else 1), (command, out)
        assert out.count("redirects are not followed") <= 4, (command, out)
        assert "a401-0, a401-1, a401-2, a401-3" in out, (command, out)
    status = cli("status").out
    assert "? 4 targets  refused: connection refused  out of reach since" in status
    assert "? 4 targets  unauthorized: 401: the API key is missing or wrong  not usable since" in status
    assert "○ owed    sql on 20 targets  will be loaded when the target answers as it should: a302-0" in status
    assert "○ owed    sql on 4 targets   will be loaded when the target is seen again: gone-0, gone-1" in status
    assert len(status.splitlines()) < 40
    everything = cli("status", "--all").out
    assert everything.count("the API key is missing or wrong") == EACH
    assert len(json.loads(cli("plan", fleet, "--json").out)["plan"]["unknown"]) == 24


@pytest.fixture
def many(monkeypatch):
    """Six targets in memory."""
    world = World(targets=6)

    @contextmanager
    def open_fleet():
        pools = {"_database": ThreadPool("store"), "_readers": ThreadPool("reader", 2), "_disk": ThreadPool("disk")}
        fleet = replace(world.fleet, **pools)
        try:
            yield fleet
        finally:
            fleet.close()

    monkeypatch.setattr(wiring, "open_fleet", open_fleet)
    yield world
    world.fleet.close()


def declared(tmp_path):
    targets = {f"edge-{one}": {"base_url": f"http://edge-{one}:8000"} for one in range(1, 7)}
    body = {
        "stack": "lab",
        "targets": targets,
        "adapters": {"sql": {"targets": list(targets), "lora_path": "/models/sql"}},
        "policy": {"on_drift": "restore"},
    }
    path = tmp_path / "lab.yaml"
    path.write_text(yaml.safe_dump(body))
    return path


def test_a_pass_of_the_agent_has_one_line_for_what_fails_alike(cli, many, tmp_path):
    assert cli("apply", declared(tmp_path), "--yes").code == 0
    for one in many.targets.targets.values():
        one.down = TransportError(TransportCause.REFUSED, "connection refused")
    done = cli("agent", "--once")
    assert done.code == 31
    lines = [line[21:] for line in done.out.splitlines()]
    assert lines == [
        "· 6 of 6 targets out of reach: edge-1, edge-2, edge-3, edge-4, edge-5 and 1 more  refused: connection refused"
        "  → Start the server, or correct the target's `base_url`.",
        "unreachable    6 targets  refused  → Start the server, or correct the target's `base_url`.  "
        "edge-1, edge-2, edge-3, edge-4, edge-5 and 1 more",
    ]
    told = [json.loads(line) for line in cli("history", "--json").out.splitlines()]
    assert sum(one["kind"] == "unreachable" for one in told) == 6


def test_actions_that_fail_alike_are_one_line_of_a_pass_and_of_an_apply(cli, many, tmp_path):
    for one in many.targets.targets.values():
        one.broken["/models/sql"] = refusal(404, "NotFoundError", "no adapter there")
    done = cli("apply", declared(tmp_path), "--yes")
    assert done.code == 30
    assert done.out.count("no adapter there") == 6 + 1, "a line as it happens, and one in the summary"
    assert "  sql on 6 targets  no adapter there: edge-1, edge-2, edge-3, edge-4, edge-5 and 1 more" in done.out
    status = cli("status").out
    assert status.count("no adapter there") == 1
    assert "✗ failed  sql on 6 targets  no adapter there: edge-1" in status
    once = cli("agent", "--once")
    assert once.code == 30
    assert once.out.count("no adapter there") <= 1


def test_details_that_differ_do_not_keep_targets_apart():
    said = {f"e{one}": f"timeout: no connection within 4.9{one} s" for one in range(5)} | {
        f"x{one}": "timeout: no connection within 5 s" for one in range(4)
    }
    (group,) = alike(said)
    assert (group.kind, group.title) == ("out of reach", "9 targets")
    assert group.said == "timeout: no connection within 4.90 s (and alike)"
    assert group.listed == "e0, e1, e2, e3, e4 and 4 more"


def test_few_are_shown_one_by_one_and_the_largest_group_comes_first():
    said = {"a": "refused: x", "b": "refused: x"} | {f"z{one}": "unauthorized: 401" for one in range(3)}
    assert [(one.title, one.kind) for one in alike(said)] == [
        ("3 targets", "not usable"), ("a", "out of reach"), ("b", "out of reach"),
    ]  # fmt: skip
    assert len(alike(said, everything=True)) == 5
    said = {f"t{one}": "local: KEY is not set" for one in range(3)}
    (group,) = alike(said)
    assert (group.kind, group.said) == ("not asked", "not asked: KEY is not set")
    assert "export it" in group.step


def test_what_is_counted():
    assert (
        counted_unknown(["refused", "timeout", "tls", "local"]) == "2 targets out of reach, 1 not usable, 1 not asked"
    )
    assert counted_unknown(["unauthorized"]) == "1 target not usable"
