import json

import pytest
import yaml
from fleet_files import MANIFEST, write

from garrison.store.records import Operation


@pytest.fixture
def file(cli, world, tmp_path):
    path = write(tmp_path / "garrison.json")
    assert cli("apply", path, "--yes").code == 0
    world.edge.served |= {"mine": "/tmp/mine", "yours": "/tmp/yours"}
    world.targets["edge-2"].served |= {"mine": "/tmp/mine"}
    return path


def test_adopts_unchanged_and_prints_the_manifest_lines(cli, world, file, tmp_path):
    sent = len([one for one in world.targets.requests if one.method == "POST"])
    done = cli("adopt", "edge-1/mine", "--stack", "lab", "--yes")
    assert done.code == 0, done
    lines = yaml.safe_load(done.out.partition("will unload them:\n")[2])
    assert lines == {
        "adapters": {"mine": {"target": "edge-1", "lora_path": "/tmp/mine", "base_model_name": "acme/tiny"}}
    }
    owned = world.recorded("mine")
    assert (owned.operation, owned.served_path, owned.stack) == (Operation.ADOPTED, "/tmp/mine", "lab")
    assert len([one for one in world.targets.requests if one.method == "POST"]) == sent
    assert [one.name for one in world.told("adopted")] == ["mine"]
    with_them = write(tmp_path / "more.json", adapters=MANIFEST["adapters"] | lines["adapters"])
    assert cli("plan", with_them, "--exit-code").code == 0
    assert "✕ delete   mine" in cli("plan", file).out


def test_a_name_on_every_target(cli, world, file):
    body = json.loads(cli("adopt", "mine", "--stack", "lab", "--yes", "--json").out)
    assert body["manifest"]["adapters"] == {
        "mine": {"targets": ["edge-1", "edge-2"], "lora_path": "/tmp/mine", "base_model_name": "acme/tiny"}
    }
    assert [(one["target"], one["name"]) for one in body["adopted"]] == [("edge-1", "mine"), ("edge-2", "mine")]


def test_the_same_name_with_other_paths_gets_labels_of_its_own(cli, world, file):
    world.targets["edge-2"].served["mine"] = "/tmp/other"
    body = json.loads(cli("adopt", "mine", "--stack", "lab", "--yes", "--json").out)
    assert sorted(body["manifest"]["adapters"]) == ["mine", "mine-edge-2"]
    assert body["manifest"]["adapters"]["mine-edge-2"]["lora_name"] == "mine"


def test_a_new_stack_gets_the_targets_too(cli, world, file):
    body = json.loads(cli("adopt", "--query", "name:m* target:edge-1", "--stack", "new", "--yes", "--json").out)
    assert body["manifest"]["targets"] == {"edge-1": {"base_url": "http://edge-1:8000"}}
    assert world.store.stack("new").version == 1


def test_json_is_pinned(cli, world, file):
    body = json.loads(cli("adopt", "edge-1/yours", "--stack", "lab", "--yes", "--json").out)
    assert body.pop("command")
    assert body == {
        "schema": 1,
        "ok": True,
        "exit_code": 0,
        "stack": "lab",
        "adopted": [
            {"target": "edge-1", "type": "VLLM::Inference::LoRAAdapter", "name": "yours", "lora_path": "/tmp/yours"}
        ],
        "already": [],
        "manifest": {
            "adapters": {"yours": {"target": "edge-1", "lora_path": "/tmp/yours", "base_model_name": "acme/tiny"}}
        },
    }


def test_adopting_twice_changes_nothing(cli, world, file):
    cli("adopt", "edge-1/mine", "--stack", "lab", "--yes")
    done = cli("adopt", "edge-1/mine", "--stack", "lab", "--yes")
    assert (done.code, done.out) == (0, "already in lab: edge-1/mine\n")


def test_an_adapter_of_another_stack_is_refused(cli, world, file):
    done = cli("adopt", "edge-1/sql", "--stack", "new", "--yes")
    assert done.code == 33
    assert "sql on edge-1 belongs to stack lab" in done.err
    assert world.store.stack("new") is None


def test_asks_first(cli, world, file):
    done = cli("adopt", "edge-1/mine", "--stack", "lab")
    assert done.code == 64
    assert "confirmation required, but standard input is not a terminal" in done.err
    assert world.recorded("mine") is None
    assert cli("adopt", "edge-1/mine", "--stack", "lab", "--json").code == 64


WRONG = {
    "nothing named": (["--stack", "lab"], 64, "give either adapter names or --query"),
    "both": (["mine", "--query", "name:mine", "--stack", "lab"], 64, "give either adapter names or --query"),
    "no stack": (["mine"], 64, "--stack"),
    "not served": (["nope", "--stack", "lab"], 1, "garrison discover"),
    "bad query": (["--query", "colour:red", "--stack", "lab"], 64, "colour"),
}


@pytest.mark.parametrize(("words", "code", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_adopted(cli, world, file, words, code, said):
    done = cli("adopt", *words)
    assert done.code == code
    assert said in done.err


def test_out_of_reach_is_31(cli, world, file):
    from garrison.net.errors import TransportCause
    from garrison.net.transport import TransportError

    world.targets["edge-2"].down = TransportError(TransportCause.REFUSED, "connection refused")
    done = cli("adopt", "edge-2/mine", "--stack", "lab", "--yes")
    assert done.code == 31
    assert "edge-2 is out of reach" in done.err
