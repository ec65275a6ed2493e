"""`garrison usage` and `garrison requests`, on a server that carries requests."""

import json
from pathlib import Path
from typing import Any

import pytest
from server_lab import ServerLab, chat_body, lines_of, wait_for

from garrison.cli.server.views.traffic import show_ended, show_in_progress, show_usage

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]


def test_what_was_used_and_what_ended(here: Any, server: ServerLab, tiny_model: Path) -> None:
    server.create("used", tiny_model)
    assert server.chat("used", most=4).is_success
    wait_for(lambda: server.api("GET", "/activity?route=used"), 10, "reported")
    rows = json.loads(here("usage", "--route", "used", "--by", "route", "--json").out)["rows"]
    assert [(one["route"], one["requests"], one["tokens_out"]) for one in rows] == [("used", 1, 4)]
    assert "used" in here("usage", "--since", "2d", "--by", "route").out
    assert "no requests from" in here("usage", "--until", "2020-01-01").out
    (one,) = json.loads(here("requests", "ended", "--route", "used", "--json").out)["requests"]
    assert (one["status"], one["outcome"]) == (200, "ok")
    assert here("requests", "ended", "--route", "used", "--failed").out.startswith("no requests have ended")


def test_nothing_is_shown_of_a_request_where_nothing_is_kept(here: Any, server: ServerLab) -> None:
    shown = here("requests", "show", "nobody")
    assert shown.code != 0
    assert "GARRISON_GATEWAY_CAPTURES" in shown.err


def test_a_request_is_listed_and_stopped(here: Any, server: ServerLab, tiny_model: Path) -> None:
    server.create("slow", tiny_model, backend_options={"tokens_per_second": 20})
    body = chat_body("slow", 1000, stream=True, ignore_eos=True)
    with server.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = lines_of(answer)
        assert next(lines)
        (one,) = json.loads(here("requests", "list", "--json").out)["requests"]
        assert one["model"] == "slow"
        assert one["id"][:8] in here("requests", "list").out
        stopped = json.loads(here("requests", "stop", one["id"], "--json").out)
        assert stopped == {"schema": 1, "ok": True, "exit_code": 0, "stopped": [one["id"]]}
    wait_for(lambda: server.instance("slow")["requests"] == 0, 5, "the engine is told")
    again = here("requests", "stop", one["id"])
    assert again.code != 0
    assert "is in progress" in again.err
    assert here("requests", "list").out == "no requests in progress\n"


SUMS = {"requests": 1200, "failed": 1, "tokens_in": 7, "tokens_cached": 2, "tokens_out": 3}


def test_rows_have_names_and_a_total(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    rows = [
        SUMS | {"route": "a", "key_id": 4, "key_name": "ci\x1b[1m"},
        SUMS | {"route": "b", "key_id": 5, "key_name": None},
        SUMS | {"route": "b", "key_id": None, "key_name": None},
    ]
    found = {"group_by": ["key", "route"], "rows": rows, "total": SUMS, "truncated": True, "from": "x", "to": "y"}
    show_usage(found)
    titles, *lines, more = capsys.readouterr().out.splitlines()
    assert titles.split() == ["key", "route", "requests", "failed", "tokens", "in", "cached", "tokens", "out"]
    assert [one.split()[0] for one in lines] == ["ci\ufffd[1m", "#5", "none", "total"]
    assert lines[0].split()[1:] == ["a", "1,200", "1", "7", "2", "3"]
    assert more.startswith("There are more rows")


def test_what_strangers_wrote_cannot_move_the_cursor(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    one = {
        "id": "i-1", "phase": "sent", "seconds": 0.25, "model": "m\x1b[2J", "target": "", "key_id": None,
        "key_name": None, "peer": "::1", "bytes_out": 0, "at": "2026-01-02T03:04:05.678+00:00", "status": 499,
        "outcome": "client-left", "first_byte": None, "tokens": None,
    }  # fmt: skip
    show_in_progress({"requests": [one], "more": 3})
    show_ended([one])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "250 ms" in out
    assert "and 3 more" in out
    assert "2026-01-02 03:04:05" in out
    assert out.count("i-1") == 2
