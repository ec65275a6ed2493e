"""docs/json.md against what the commands print."""

import json
import re
from pathlib import Path

import pytest
from fleet_files import write
from json_calls import FLEET, HEAD

from garrison.cli.json_answer import SCHEMA
from garrison.net.errors import TransportCause
from garrison.net.transport import TransportError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "json.md"


def documented():
    """The keys of each command, as the page lists them."""
    rows = re.findall(r"^\| (`[^|]+`[^|]*) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    found = {}
    for commands, keys in rows:
        names = re.findall(r"`([^`]+)`", keys.partition(". With")[0].partition("; `instances`")[0])
        for command in re.findall(r"`([^`]+)`", commands):
            found[command.split()[0]] = set(names)
    return found


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    world.edge.served["mine"] = "/tmp/mine"
    return path


@pytest.mark.parametrize("command", FLEET)
def test_each_command_prints_what_the_page_says(cli, file, command):
    (words,) = FLEET[command]
    done = cli(*(file if word == "FILE" else word for word in words), "--json")
    body = json.loads(done.out)
    assert body.keys() == HEAD | documented()[command]
    assert (body["schema"], body["exit_code"]) == (SCHEMA, done.code)
    assert body["ok"] is True


@pytest.mark.parametrize("command", ["history", "agent"])
def test_a_line_of_a_stream(cli, world, file, command):
    world.edge.restart()
    done = cli("agent", "--once", "--json")
    lines = done.out if command == "agent" else cli("history", "--json").out
    named = re.search(r"with `schema` and no `ok`: (.+?)\. A note", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    keys = {"schema", *re.findall(r"`([^`]+)`", named[1])}
    for line in map(json.loads, lines.splitlines()):
        assert line.keys() == ({"schema", "at", "kind", "text"} if line["kind"] == "note" else keys)
        assert line["schema"] == SCHEMA


@pytest.mark.parametrize(
    "words",
    [["status", "--nonsense"], ["plan", "nothing.yaml"], ["destroy", "--stack", "nobody", "--yes"], ["nonsense"],
     ["models", "remove", "nothing", "--yes"], ["apply", "nothing.yaml"], ["apply", "--watch", "--simulate", "FILE"],
     ["eval", "nothing.yaml"], ["status", "--stack", "nobody"], ["drift", "--stack", "no"], ["discover", "-t", "no"],
     ["inventory", "-q", "no:1"], ["extract", "--query", "no:1"], ["history", "--kind", "no"], ["forget", "nobody"],
     ["adopt", "nobody", "--stack", "lab"], ["agent", "--once", "--stack", "nobody"], ["agent", "--interval", "no"],
     ["agent", "--once", "--metrics-port", "1"], ["status", "--server", "http://127.0.0.1:1"]],
    ids=lambda words: words[0],
)  # fmt: skip
def test_an_error_of_any_command(cli, file, words):
    done = cli(*(file if word == "FILE" else word for word in words), "--json")
    body = json.loads(done.out)
    assert HEAD | {"code", "error"} <= body.keys()
    assert (body["schema"], body["ok"], body["exit_code"]) == (SCHEMA, False, done.code)


def test_the_rows_have_the_fields_of_the_model_list(cli, file):
    rows = {one["id"]: one for one in json.loads(cli("inventory", "--json").out)["rows"]}
    assert (rows["sql"]["parent"], rows["sql"]["root"]) == (rows["sql"]["base"], rows["sql"]["path"])
    (model,) = {one["id"]: one for one in json.loads(cli("inventory", "models", "--json").out)["rows"]}.values()
    assert (model["parent"], model["root"]) == (None, model["path"])


def test_counts_agree_with_the_text(cli, world, file, tmp_path):
    world.targets["edge-2"].down = TransportError(TransportCause.REFUSED, "connection refused")
    world.targets["edge-1"].served["sql"] = "/tmp/somebody"
    more = json.loads(file.read_text())
    more["adapters"] |= {name: {"targets": ["edge-1", "edge-2"], "lora_path": f"/m/{name}"} for name in ("a", "b")}
    path = tmp_path / "more.json"
    path.write_text(json.dumps(more))
    counts = json.loads(cli("plan", path, "--json").out)["plan"]["counts"]
    head = cli("plan", path).out.splitlines()[1]
    assert {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", head)} == counts
    assert counts["owed"] == 2
    assert counts["conflict"] == 1


def test_a_target_that_was_not_asked_is_counted_as_that(cli, world, file):
    world.targets["edge-2"].down = TransportError(TransportCause.LOCAL, "api_key: KEY is not set")
    assert "! 1 not asked" in cli("status").out
    counts = json.loads(cli("status", "--json").out)["summary"]["targets"]
    assert counts == {"not_asked": 1, "reachable": 1}
