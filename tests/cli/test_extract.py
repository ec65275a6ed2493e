import json

import pytest
import yaml

pytestmark = pytest.mark.system


def test_an_extract_changes_nothing(cli, applied, tmp_path):
    out = tmp_path / "all.yaml"
    done = cli("extract", "-o", out)
    assert done.code == 0, done.err
    assert "omitted" in done.err
    assert "later on far" in done.err
    written = yaml.safe_load(out.read_text())
    assert written["stack"] == "cabinet-7"
    assert set(written["adapters"]) == {"sql", "stranger"}
    assert "adapter-store" not in written["adapters"]["sql"]["lora_path"]
    plan = json.loads(cli("plan", out, "--json").out)["plan"]
    assert not plan["changes_required"], plan
    assert {action["kind"] for action in plan["actions"]} == {"keep", "adopt"}
    assert cli("apply", out, "--yes").code in (0, 31)
    assert {row["name"]: row["stack"] for row in json.loads(cli("inventory", "--json").out)} == {
        "sql": "cabinet-7",
        "stranger": "cabinet-7",
    }


def test_only_what_is_unmanaged(cli, applied):
    done = cli("extract", "--query", "status:unmanaged", "--stack", "found", "--json")
    body = json.loads(done.out)
    assert (body["stack"], list(body["adapters"])) == ("found", ["stranger"])


def test_a_file_is_not_overwritten(cli, applied, tmp_path):
    out = tmp_path / "mine.yaml"
    out.write_text("precious")
    done = cli("extract", "-o", out)
    assert (done.code, "--force" in done.err, out.read_text()) == (1, True, "precious")
    assert cli("extract", "-o", out, "--force").code == 0
    assert out.read_text() != "precious"
