import json

import pytest

pytestmark = pytest.mark.system


def rows(cli, *arguments):
    done = cli("inventory", *arguments, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["rows"]


def test_discover_lists_unmanaged_adapters(cli, applied):
    done = cli("discover", "--target", "edge", "--json")
    (edge,) = json.loads(done.out)["targets"]
    assert done.code == 0
    assert [one["name"] for one in edge["models"]] == ["acme/tiny"]
    assert [one["name"] for one in edge["unmanaged"]] == ["stranger"]
    assert (edge["managed"], edge["known"], edge["state"]) == (1, True, "reachable")


def test_discover_looks_at_a_server_that_is_not_on_record(cli, start, adapter):
    sim = start()
    sim.load("stranger", adapter("stranger"))
    done = cli("discover", "--target", f"{sim.url}/v1/")
    assert done.code == 0
    assert "stranger" in done.out
    assert rows(cli, "targets") == []


def test_the_url_of_a_target_on_record_is_that_target(cli, applied):
    (edge,) = json.loads(cli("discover", "--target", f"{applied.url}/", "--json").out)["targets"]
    assert (edge["name"], edge["known"]) == ("edge", True)


def test_discover_of_a_manifest(cli, start, manifest):
    file = manifest({"edge": {"base_url": start().url}, "far": {"base_url": "http://127.0.0.1:1"}}, {})
    done = cli("discover", "-f", file, "--json")
    body = json.loads(done.out)
    assert (done.code, body["exit_code"]) == (31, 31)
    assert {one["name"]: (one["state"], one["cause"]) for one in body["targets"]} == {
        "edge": ("reachable", None),
        "far": ("unreachable", "refused"),
    }
    assert "refused" in cli("discover", "-f", file).out


def test_what_another_address_serves_is_not_remembered_under_a_known_name(cli, applied, start, manifest):
    other = start(model="acme/other")
    file = manifest({"edge": {"base_url": other.url}}, {}, stack="else")
    assert cli("discover", "-f", file).code == 0
    assert [row["name"] for row in rows(cli, "models")] == ["acme/tiny"]


def test_discover_without_any_target(cli):
    done = cli("discover")
    assert (done.code, "--target http://HOST:8000" in done.out) == (0, True)


@pytest.mark.parametrize(("target", "hint"), [("egde", "edge"), ("http://", "http://10.0.0.2:8000"), ("zzz", "Known")])
def test_discover_of_an_invalid_target(cli, applied, target, hint):
    done = cli("discover", "--target", target)
    assert done.code == 1
    assert hint in done.err
