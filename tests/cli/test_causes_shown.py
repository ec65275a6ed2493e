"""What apply, status, discover, drift and the agent say of servers that answer, and not as they should."""

import json
import re

import pytest

from garrison.sim.faults import Faults

pytestmark = pytest.mark.system

CURES = {
    "key": "`api_key`",
    "tls": "`tls.ca`",
    "redirect": "redirects are not followed",
    "wrong": "`base_model`",
    "gone": "Start the server",
}


@pytest.fixture
def servers(start, certify):
    cert = certify("lab")
    tls = start(ssl_certfile=cert.cert, ssl_keyfile=cert.key)
    return {
        "key": start(api_keys=("secret-key-1",)).url,
        "tls": tls.url.replace("http:", "https:"),
        "redirect": start(faults=Faults(disguise="redirect")).url,
        "wrong": start(faults=Faults(disguise="wrong-base")).url,
        "gone": "http://127.0.0.1:1",
    }


@pytest.fixture
def file(servers, adapter, manifest):
    targets = {name: {"base_url": url, "base_model": "acme/tiny"} for name, url in servers.items()}
    return manifest(targets, {"sql": {"targets": list(targets), "lora_path": str(adapter("sql"))}})


def test_each_names_its_own_cure(cli, file):
    done = cli("apply", file, "--yes")
    assert done.code == 31
    silent, answering = done.out.split("not usable  4 targets")
    assert "out of reach  1 target" in silent
    assert "Their silence proves nothing; 1 action stays owed" in silent
    assert "silence" not in answering
    assert "What they answer proves nothing; 4 actions stay owed until that is corrected." in answering
    summary = answering.partition("owed on 5 targets")[2]
    for name, cure in CURES.items():
        assert cure in done.out, name
        if name != "gone":
            assert any(line.startswith(f"  {name}: ") and cure in line for line in summary.splitlines()), name
    for command in (["status"], ["status", "--cached"], ["discover"], ["drift"], ["agent", "--once"]):
        shown = cli(*command).out
        missing = [name for name, cure in CURES.items() if cure not in shown and command != ["drift"]]
        assert not missing, (command, shown)
    assert "of 5 targets not usable: key  unauthorized: 401" in shown


def test_the_json_of_status_has_the_hint(cli, file):
    cli("apply", file, "--yes")
    hints = {one["name"]: one["hint"] for one in json.loads(cli("status", "--json").out)["targets"]}
    assert hints.keys() == CURES.keys()
    for name, cure in CURES.items():
        assert cure in hints[name]


def test_a_load_that_takes_too_long_names_load_timeout(cli, start, adapter, manifest):
    sim = start(faults=Faults(load_delay=30))
    targets = {"slow": {"base_url": sim.url, "load_timeout": "1s"}}
    file = manifest(targets, {"sql": {"target": "slow", "lora_path": str(adapter("sql"))}})
    done = cli("apply", file, "--yes")
    assert done.code == 30, "the target is not out of reach, and the load was not done"
    assert "◐ 1 cut short on 1 target: slow" in done.out
    assert "owed" not in done.out
    assert "load_timeout, 1 s" in done.out
    assert "Raise the target's `load_timeout`" in done.out
    status = cli("status").out
    assert "was cut short just now by a load timeout on slow/sql; the next apply or the agent settles it" in re.sub(
        r"\d+ s ago", "just now", status
    )
    told = json.loads(cli("status", "--json").out)["stacks"][0]["interrupted"]
    assert [one["late"] for one in told] == [["slow/sql"]]
    assert "✗ failed  slow/sql" in status
    assert "Raise the target's `load_timeout`" in status
    again = cli("agent", "--once")
    assert again.code == done.code
    assert "interrupted" not in again.out
