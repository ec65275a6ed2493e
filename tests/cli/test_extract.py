import json

import pytest
import yaml

pytestmark = pytest.mark.system


def test_an_extract_changes_nothing(cli, applied, tmp_path):
    out = tmp_path / "all.yaml"
    done = cli("extract", "-o", out)
    assert done.code == 0, done.err
    assert "owed, so that an apply carries it out: far/later" in done.err
    assert "1 adapter that no stack owns is left out" in done.err
    assert "shows what is owed" in done.err
    written = yaml.safe_load(out.read_text())
    assert written["stack"] == "cabinet-7"
    assert set(written["adapters"]) == {"sql", "later"}
    assert "adapter-store" not in written["adapters"]["sql"]["lora_path"]
    plan = json.loads(cli("plan", out, "--json").out)["plan"]
    assert {action["name"]: action["kind"] for action in plan["actions"]} == {"sql": "keep", "later": "blocked"}
    assert cli("apply", out, "--yes").code == 31
    assert {row["name"]: row["stack"] for row in json.loads(cli("inventory", "--json").out)["rows"]} == {
        "sql": "cabinet-7",
        "later": "cabinet-7",
        "stranger": None,
    }


@pytest.mark.parametrize("query", ["name:*", "managed:* target:edge", "status:unmanaged"])
def test_strangers_are_added_when_a_query_asks_for_them(cli, applied, tmp_path, query):
    out = tmp_path / "all.yaml"
    assert cli("extract", "-o", out, "--stack", "cabinet-7", "--query", query).code == 0
    assert "stranger" in yaml.safe_load(out.read_text())["adapters"]
    assert "stranger" not in json.loads(cli("extract", "--query", "target:edge", "--json").out)["manifest"]["adapters"]


def test_only_what_is_unmanaged(cli, applied):
    done = cli("extract", "--query", "status:unmanaged", "--stack", "found", "--json")
    body = json.loads(done.out)["manifest"]
    assert (body["stack"], list(body["adapters"])) == ("found", ["stranger"])


def test_a_file_is_not_overwritten(cli, applied, tmp_path):
    out = tmp_path / "mine.yaml"
    out.write_text("precious")
    done = cli("extract", "-o", out)
    assert (done.code, "--force" in done.err, out.read_text()) == (1, True, "precious")
    assert cli("extract", "-o", out, "--force").code == 0
    assert out.read_text() != "precious"
