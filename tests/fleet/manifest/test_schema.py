import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from garrison.fleet.manifest.canonical import spellings
from garrison.fleet.manifest.model import FleetManifest
from garrison.fleet.manifest.schema import manifest_schema

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "fleet"


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(manifest_schema())
    return jsonschema.Draft202012Validator(manifest_schema())


@pytest.mark.parametrize("name", ["box.yaml", "cabinet.yaml", "select.yaml", "cabinet.json", "cabinet.toml"])
def test_the_examples_fit(validator: Any, name: str) -> None:
    text = (EXAMPLES / name).read_text()
    content = tomllib.loads(text) if name.endswith(".toml") else yaml.safe_load(text.replace("on:", "'on':"))
    assert list(validator.iter_errors(content)) == []


MANIFESTS: dict[str, tuple[dict[str, Any], bool]] = {
    "empty": ({}, False),
    "a stack": ({"stack": "s"}, True),
    "PascalCase": ({"Stack": "s"}, True),
    "an unknown key": ({"stack": "s", "adaptors": {}}, False),
    "a time": ({"stack": "s", "policy": {"interval": "5m"}}, True),
    "a time that is none": ({"stack": "s", "policy": {"interval": "soon"}}, False),
    "a variable for a number": ({"stack": "s", "targets": {"t": {"host": "h", "port": "${PORT}"}}}, True),
    "an adapter": ({"stack": "s", "adapters": {"a": {"target": "t", "loraPath": "/a"}}}, True),
    "an adapter on nothing": ({"stack": "s", "adapters": {"a": {"loraPath": "/a"}}}, False),
    "an adapter twice": ({"stack": "s", "adapters": {"a": {"target": "t", "targets": ["t"], "loraPath": "/a"}}}, False),
    "an adapter without a path": ({"stack": "s", "adapters": {"a": {"target": "t"}}}, False),
    "a literal key": ({"stack": "s", "targets": {"t": {"host": "h", "api_key": "sesame"}}}, False),
    "a key by a variable": ({"stack": "s", "targets": {"t": {"host": "h", "api_key": "${KEY}"}}}, True),
    "two secrets": ({"stack": "s", "targets": {"t": {"host": "h", "api_key": {"env": "A", "file": "b"}}}}, False),
}


@pytest.mark.parametrize(("content", "fits"), MANIFESTS.values(), ids=MANIFESTS)
def test_manifests(validator: Any, content: dict[str, Any], fits: bool) -> None:
    assert validator.is_valid(content) is fits


def test_every_key_is_described_in_every_spelling() -> None:
    schema = manifest_schema()
    for definition, body in schema["$defs"].items():
        for name, value in body["properties"].items():
            assert value["description"]
            if definition == "ServeManifest":
                continue
            assert set(spellings(name)) <= set(body["properties"]) or "Same as" in value["description"]
    assert set(FleetManifest.model_fields) <= set(schema["$defs"]["FleetManifest"]["properties"])
