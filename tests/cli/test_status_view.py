from dataclasses import replace
from datetime import timedelta

import pytest
from plan_samples import NOW, fleet_status, target_status
from rendered import in_a_pipe, on_a_terminal

from garrison.cli.views.status import show_status
from garrison.fleet.report.agents import AgentStatus
from garrison.fleet.report.status import FleetStatus


def show(status, *, everything=False):
    return lambda page: show_status(status, page, everything=everything)


@pytest.mark.parametrize("width", [80, 120])
def test_two_thousand_targets(golden, width):
    golden(f"status-{width}.txt", on_a_terminal(show(fleet_status()), width))


def test_in_a_pipe(golden):
    golden("status-pipe.txt", in_a_pipe(show(fleet_status())))


def test_one_target(golden):
    status = FleetStatus(at=NOW, cached=True, stacks=(), targets=(target_status("local", adapters={}),))
    golden("status-one.txt", in_a_pipe(show(status)))


def test_all_shows_all():
    text = in_a_pipe(show(fleet_status(nodes=30), everything=True))
    assert text.count("/models/a") == 300
    assert text.count("http://") == 37


def test_nothing_declared_says_how_to_begin():
    assert "garrison apply" in in_a_pipe(show(FleetStatus(at=NOW, cached=False, stacks=(), targets=())))


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(width):
    lines = on_a_terminal(show(fleet_status(3)), width).splitlines()
    assert [line for line in lines if len(line) > width] == []


def test_insecure_is_prominent():
    text = in_a_pipe(show(fleet_status(0)))
    assert text.count("INSECURE") == 2
    assert "! INSECURE: the certificate of edge-1 is not verified" in text.splitlines()[3]


def an_agent(state, seconds=0, **values):
    at = NOW - timedelta(seconds=seconds)
    plain = {"holder": "ada@node", "pid": 8, "since": NOW - timedelta(hours=3), "alive_at": at, "looked_at": at}
    return AgentStatus(state=state, **plain | values)


@pytest.mark.parametrize(
    ("agents", "lines"),
    [
        ((), ["  agent     none runs; `garrison agent` keeps the fleet as applied"]),
        (
            (an_agent("working", 3),),
            ["  agent     ✓ ada@node (pid 8)  since 2026-03-01 09:00:00 UTC, last look 3 s ago"],
        ),
        (
            (an_agent("working", looked_at=None, stacks=("lab",)),),
            ["  agent     ✓ ada@node (pid 8)  since 2026-03-01 09:00:00 UTC, no look yet; keeps lab"],
        ),
        (
            (an_agent("stale", 300),),
            [
                "  agent     ! ada@node (pid 8) has been silent for 5 m, and may hang; last look 5 m ago",
                "    → Until `garrison agent` runs again, nothing is repaired.",
            ],
        ),
        (
            (an_agent("stale", -86400),),
            [
                "  agent     ! ada@node (pid 8) may hang: its last sign of life is of 2026-03-02 12:00:00 UTC, so its "
                "clock was wrong; last look 2026-03-02 12:00:00 UTC",
                "    → Until `garrison agent` runs again, nothing is repaired.",
            ],
        ),
        (
            (an_agent("dead", 30),),
            [
                "  agent     ! ada@node (pid 8) was killed; last look 30 s ago",
                "    → Until `garrison agent` runs again, nothing is repaired.",
            ],
        ),
        (
            (an_agent("dead", 30), an_agent("working", pid=9)),
            [
                "  agent     ! ada@node (pid 8) was killed; last look 30 s ago",
                "  agent     ✓ ada@node (pid 9)  since 2026-03-01 09:00:00 UTC, last look just now",
            ],
        ),
    ],
    ids=["none", "working", "new", "stale", "clock", "killed", "succeeded"],
)
def test_who_keeps_the_fleet(agents, lines):
    shown = in_a_pipe(show(replace(fleet_status(1), agents=agents))).splitlines()
    at = shown.index(lines[0])
    assert shown[at : at + len(lines) + 1] == [*lines, ""]
