import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from garrison.cli.views.inventory import _ending, show_rows
from garrison.cli.views.page import Page
from garrison.fleet.report.inventory_rows import AdapterRow, Reach, TargetRow
from garrison.fleet.report.status import LAST_SEEN_WELL, TargetStatus

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SEEN = Reach(state="reachable", since=NOW, last_seen=NOW - timedelta(minutes=3), cause=None)
AWAY = Reach(
    state="unreachable", since=NOW - timedelta(hours=30), last_seen=NOW - timedelta(days=2), cause="timeout",
    detail="no answer in 5 s",
)  # fmt: skip
DIGEST = "ab" * 32


def adapter(name="sql", status="served", reach=SEEN, **fields):
    path = f"/store/{DIGEST}"
    return AdapterRow(**{"target": "edge", "name": name, "status": status, "path": path, "reach": reach} | fields)


def shown(noun, rows, *, terminal=False, everything=False, width=160):
    out = io.StringIO()
    page = Page(Console(file=out, force_terminal=terminal, width=width, color_system=None))
    show_rows(noun, rows, page, NOW, everything=everything)
    return out.getvalue()


def test_a_pipe_gets_whole_paths_in_columns():
    rows = [adapter(stack="cabinet-7", base="acme/tiny"), adapter(status="unknown", reach=AWAY, detail=LAST_SEEN_WELL)]
    assert shown("adapters", rows).splitlines() == [
        f"status     target  adapter  stack      {'path':<71}  base model  note",
        f"✓ served   edge    sql      cabinet-7  /store/{DIGEST}  acme/tiny   seen 3 m ago",
        f"? unknown  edge    sql      –          /store/{DIGEST}  –           "
        "out of reach for 30 h (timeout: no answer in 5 s); last seen 2 d ago",
    ]


def test_a_terminal_gets_short_digests_and_a_limit():
    text = shown("adapters", [adapter(f"a{n}") for n in range(250)], terminal=True)
    assert DIGEST not in text
    assert "/store/abababababab…" in text
    assert "… and 50 more (--all, --query or --json)" in text
    assert text.count("✓ served") == 200
    everything = shown("adapters", [adapter(f"a{n}") for n in range(250)], terminal=True, everything=True)
    assert everything.count("✓ served") == 250


def test_what_servers_say_cannot_move_the_cursor():
    assert "\x1b" not in shown("adapters", [adapter("evil\x1b[2J\nx")])
    assert len(shown("adapters", [adapter("evil\nx")]).splitlines()) == 2


def test_an_unverified_certificate_is_prominent():
    status = TargetStatus(
        name="edge",
        base_url="https://edge",
        state="unreachable",
        cause="timeout",
        since=NOW,
        insecure=True,
        adapters={},
    )
    text = shown("targets", [TargetRow(status=status, unmanaged=2)])
    assert "INSECURE" in text
    assert "timeout; out of reach for 0 s" in text
    assert "2 unmanaged" in text


def test_what_was_gone_before_its_target_was_away_says_so():
    (_, line) = shown("adapters", [adapter(status="unknown", reach=AWAY, detail="missing then")]).splitlines()
    assert "missing then; out of reach" in line


def test_at_80_columns_no_word_is_broken():
    store = f"/home/u/.local/share/garrison/adapter-store/{DIGEST}"
    rows = [
        adapter(stack="cabinet-7", base="acme/tiny", path=store),
        adapter(
            "support-v2",
            status="failed",
            path=store,
            detail="/models/xl has rank 128, and edge-2 accepts ranks up to 64",
        ),
    ]
    assert shown("adapters", rows, terminal=True, width=80).splitlines() == [
        "status    target  adapter     stack      path             base model  note",
        "✓ served  edge    sql         cabinet-7  …/abababababab…  acme/tiny",
        "        seen 3 m ago",
        "✗ failed  edge    support-v2  –          …/abababababab…  –",
        "        /models/xl has rank 128, and edge-2 accepts ranks up to 64; seen 3 m ago",
    ]


@pytest.mark.parametrize(
    ("path", "room", "shown"),
    [
        ("/a/b", 16, "/a/b"),
        ("/home/u/adapter-store/5e9752390a96…", 30, "…/adapter-store/5e9752390a96…"),
        ("/home/u/adapter-store/5e9752390a96…", 20, "…/5e9752390a96…"),
        ("/models/a-very-long-name-without-end", 16, "…ame-without-end"),
    ],
)
def test_a_path_is_cut_at_its_beginning(path, room, shown):
    assert _ending(path, room) == shown
    assert len(shown) <= room
