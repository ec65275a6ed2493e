import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.base.errors import InvalidError
from garrison.fleet.manifest.load import Loaded, load_declaration
from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, ModelSpec, Policy
from garrison.fleet.values.target import TargetSpec
from garrison.net.endpoint import Secret

FORMA: dict[str, Any] = {
    "Description": {"Text": "a fleet", "Confirm": True},
    "Properties": {},
    "Stacks": [{"Label": "fleet", "Description": "x", "Policies": [{"Type": "auto-reconcile", "IntervalSeconds": 20}]}],
    "Targets": [
        {
            "Label": "node-a",
            "Namespace": "VLLM",
            "Config": {"Type": "vllm", "BaseUrl": None, "Host": "10.0.0.1", "Port": 8000, "Scheme": None},
            "Discoverable": True,
        },
        {
            "Label": "node-b",
            "Namespace": "VLLM",
            "Config": {"Type": "vllm", "BaseUrl": "http://b:9000/v1", "Host": "x"},
        },
    ],
    "Resources": [
        {
            "Label": "a-chat",
            "Type": "VLLM::Inference::LoRAAdapter",
            "Stack": "fleet",
            "Target": "node-a",
            "Schema": {"Identifier": "$.loraName", "Fields": ["loraName"]},
            "Properties": {
                "loraName": "chat",
                "loraPath": "/adapters/${chat}",
                "baseModelName": "acme/tiny",
                "is3dLoraWeight": False,
            },
            "Managed": True,
        },
        {
            "Label": "b-base",
            "Type": "VLLM::Inference::Model",
            "Stack": "fleet",
            "Target": {"$label": "node-b", "$type": "Formae::Target", "$res": True},
            "Properties": {"id": "acme/tiny", "root": "/models/tiny"},
        },
    ],
}


def load(forma: Any, **environ: str) -> Loaded:
    return load_declaration(["-"], environ=environ, stdin=io.StringIO(json.dumps(forma, indent=1)))


def changed(change: Any) -> dict[str, Any]:
    forma = copy.deepcopy(FORMA)
    change(forma)
    return forma


def test_a_forma() -> None:
    loaded = load(FORMA)
    assert loaded.declaration == Declaration(
        stack="fleet",
        targets={
            "node-a": TargetSpec(name="node-a", base_url="http://10.0.0.1:8000"),
            "node-b": TargetSpec(name="node-b", base_url="http://b:9000"),
        },
        adapters=(
            AdapterDeclaration(
                target="node-a",
                label="a-chat",
                lora_name="chat",
                lora_path="/adapters/${chat}",
                base_model_name="acme/tiny",
            ),
        ),
        models=(ModelSpec(target="node-b", label="b-base", id="acme/tiny", root="/models/tiny"),),
        policy=Policy(on_drift="restore", interval=20.0),
    )
    assert loaded.warnings == ()


def test_lower_case_parts_are_the_same() -> None:
    forma = {key[:1].lower() + key[1:]: value for key, value in FORMA.items()}
    assert load(forma).declaration == load(FORMA).declaration


def test_the_plugin_key_is_sent_to_forma_targets_with_a_warning() -> None:
    loaded = load(FORMA, VLLM_API_KEY="sesame")
    keys = {name: target.api_key for name, target in loaded.declaration.targets.items()}
    assert keys == {"node-a": Secret("env", "VLLM_API_KEY"), "node-b": Secret("env", "VLLM_API_KEY")}
    assert "VLLM_API_KEY" in loaded.warnings[0]
    assert "sesame" not in repr(loaded)


def test_a_native_manifest_does_not_use_the_plugin_key() -> None:
    text = io.StringIO("stack: s\ntargets: {t: {host: localhost}}")
    loaded = load_declaration(["-"], environ={"VLLM_API_KEY": "sesame"}, stdin=text)
    assert loaded.declaration.targets["t"].api_key is None


def test_defaults() -> None:
    """No stack, and one target that the resource does not name."""
    forma = {"Targets": FORMA["Targets"][:1], "Resources": [dict(FORMA["Resources"][0], Stack=None, Target=None)]}
    declaration = load(forma).declaration
    assert declaration.stack == "default"
    assert [one.target for one in declaration.adapters] == ["node-a"]
    assert declaration.policy == Policy()


def test_what_is_read_back_is_left_out() -> None:
    read_back = {"id": "chat", "parent": "acme/tiny", "root": "/adapters/chat"}
    loaded = load(changed(lambda forma: forma["Resources"][0]["Properties"].update(read_back)))
    assert loaded.declaration == load(FORMA).declaration
    assert [warning.split("ignored ")[1][:4] for warning in loaded.warnings] == ["'id'", "'par", "'roo"]


def test_what_is_not_vllms_is_left_out() -> None:
    def add(forma: Any) -> None:
        forma["Resources"].append({"Label": "ui", "Type": "Docker::Compose::Stack", "Properties": {"a": "${B}"}})
        forma["Targets"].append({"Label": "docker", "Namespace": "DOCKER", "Config": {"Type": "docker"}})
        forma["Stacks"][0]["Policies"].append({"Type": "ttl", "TTLSeconds": 4})

    loaded = load(changed(add))
    assert loaded.declaration == load(FORMA).declaration
    assert [warning.split("ignored ")[1] for warning in loaded.warnings] == [
        "resources that are not vLLM's: 1 Docker::Compose::Stack",
        "target 'docker' of namespace DOCKER",
        "a policy of type ttl",
    ]


def test_a_shared_policy() -> None:
    def share(forma: Any) -> None:
        forma["Policies"] = [{"Type": "auto-reconcile", "Label": "heal", "IntervalSeconds": 60}]
        forma["Stacks"][0]["Policies"] = [{"$ref": "policy://heal"}]

    assert load(changed(share)).declaration.policy == Policy(on_drift="restore", interval=60.0)


REFUSED: dict[str, tuple[Any, str]] = {
    "another type of the plugin": (
        lambda f: f["Resources"][0].update(Type="VLLM::X::Y"),
        "Known types: VLLM::Inference::LoRAA",
    ),
    "no type": (lambda f: f["Resources"][0].pop("Type"), "unknown resource type"),
    "no label": (lambda f: f["Resources"][0].pop("Label"), ":43:3: a resource has no Label"),
    "a label twice": (lambda f: f["Resources"].append(f["Resources"][0]), "duplicate resource 'a-chat'"),
    "a target twice": (lambda f: f["Targets"].append(f["Targets"][0]), "duplicate target 'node-a'"),
    "no properties": (lambda f: f["Resources"][0].pop("Properties"), "has no Properties"),
    "no target": (lambda f: f["Resources"][0].pop("Target"), "has no Target"),
    "an unknown target": (lambda f: f["Resources"][0].update(Target="node-c"), "unknown target 'node-c'"),
    "no config": (lambda f: f["Targets"][0].pop("Config"), "has no Config"),
    "two stacks": (lambda f: f["Resources"][1].update(Stack="other"), "several stacks: fleet, other"),
    "a reference": (
        lambda f: f["Targets"][0]["Config"].update(Host={"$res": True, "$label": "vm"}),
        ":26:5: target 'node-a': Host",
    ),
    "an unknown property": (
        lambda f: f["Resources"][0]["Properties"].update(loraPth="x"),
        ":59:5: unknown key 'adapters.a-chat.loraPth'",
    ),
    "no path": (lambda f: f["Resources"][0]["Properties"].pop("loraPath"), "missing key 'adapters.a-chat.lora_path'"),
    "entries that are none": (lambda f: f.update(Resources=[1]), "an entry is not a mapping"),
    "parts that are none": (lambda f: f.update(Stacks={}), "Stacks is not a list"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(change: Any, message: str) -> None:
    with pytest.raises(InvalidError) as caught:
        load(changed(change))
    assert message in f"{caught.value.message} {caught.value.hint}"


WORDS = ["Label", "label", "Type", "Stack", "Target", "Namespace", "Config", "Properties", "Policies", "$ref", "$label"]
VALUES = st.recursive(
    st.none() | st.integers() | st.sampled_from(["a", "VLLM", "ttl", "VLLM::Inference::LoRAAdapter", "policy://a"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=10,
)
ENTRIES = st.lists(st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=6) | VALUES, max_size=3)


@given(st.dictionaries(st.sampled_from(["Stacks", "Targets", "Resources", "Policies"]), ENTRIES | VALUES, min_size=1))
def test_garbage_is_refused_or_read(forma: Any) -> None:
    with contextlib.suppress(InvalidError):
        load(forma, VLLM_API_KEY="x")


def test_a_file_keeps_its_places(tmp_path: Path) -> None:
    file = tmp_path / "forma.json"
    file.write_text(json.dumps(FORMA, indent=1))
    loaded = load_declaration([str(file)], environ={})
    line = next(n for n, text in enumerate(file.read_text().splitlines(), 1) if "loraPath" in text)
    assert loaded.where("adapters", "a-chat", "lora_path") == f"{file}:{line}:5"
