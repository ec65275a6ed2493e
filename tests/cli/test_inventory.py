import json

import pytest

pytestmark = pytest.mark.system


def rows(cli, *arguments):
    done = cli("inventory", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["rows"]


def test_everything_on_record(cli, applied):
    found = {row["name"]: row for row in rows(cli)}
    assert {name: (row["status"], row["managed"]) for name, row in found.items()} == {
        "sql": ("served", True),
        "stranger": ("unmanaged", False),
        "later": ("owed", True),
    }
    assert found["later"]["target_state"]["cause"] == "refused"
    assert "adapter-store" in found["sql"]["path"]
    assert [row["name"] for row in rows(cli, "--query", "stack:cabinet-7 status:served")] == ["sql"]
    assert [row["state"] for row in rows(cli, "targets")] == ["reachable", "unreachable"]
    assert [row["name"] for row in rows(cli, "models")] == ["acme/tiny"]
    assert [row["adapters"] for row in rows(cli, "stacks")] == [{"served": 1, "owed": 1}]


def test_what_is_away_keeps_its_rows_with_its_age(cli, applied):
    applied.stop()
    assert cli("discover", "--target", "edge").code == 31
    found = {row["name"]: row for row in rows(cli, "-q", "target:edge")}
    assert {name: row["status"] for name, row in found.items()} == {"sql": "unknown", "stranger": "unknown"}
    lines = cli("inventory").out.splitlines()
    (line,) = [line for line in lines if " sql " in line]
    assert "out of reach for " in line
    assert "refused" in line
    assert "last seen " in line
    assert "just now" in line or " ago" in line


@pytest.mark.parametrize("noun", ["adapters", "targets", "models", "stacks"])
def test_a_pipe_gets_a_line_a_row(cli, applied, noun):
    lines = cli("inventory", noun).out.splitlines()
    assert len(lines) == 1 + len(rows(cli, noun))
    assert all(line == line.rstrip() for line in lines)


@pytest.mark.parametrize("noun", ["adapters", "targets", "models", "stacks"])
def test_an_empty_list_says_what_to_do(cli, noun):
    done = cli("inventory", noun)
    assert (done.code, "garrison apply" in done.out) == (0, True)
    assert rows(cli, noun) == []


def test_a_query_without_matches(cli, applied):
    done = cli("inventory", "--query", "name:nope")
    assert (done.code, "none of 3 adapters" in done.out) == (0, True)
    assert rows(cli, "--query", "name:nope") == []


def test_a_query_with_a_mistake(cli):
    done = cli("inventory", "--query", "name:sql tarket:edge")
    assert done.code == 64
    assert "column 10" in done.err
    assert "Did you mean target?" in done.err
