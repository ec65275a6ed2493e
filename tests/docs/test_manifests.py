"""The manifests of the docs can be loaded as they stand."""

import io
import re
from pathlib import Path

import pytest
import tiny_model as maker

from garrison.fleet.manifest.load import load_declaration

PAGE = Path(__file__).resolve().parents[2] / "docs" / "fleet.md"
BLOCK = re.compile(r"^```yaml\n(# (\S+)\n.*?)^```$", re.MULTILINE | re.DOTALL)
MANIFESTS = {name: text for text, name in BLOCK.findall(PAGE.read_text(encoding="utf-8"))}


def load(name, directory):
    return load_declaration(["-"], environ={}, stdin=io.StringIO(MANIFESTS[name]), directory=directory).declaration


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_can_be_loaded(name, tmp_path):
    assert load(name, tmp_path).adapters


def test_versions_and_adapters_on_demand_are_what_the_page_says(tmp_path):
    for name in ("sql", "legal"):
        maker.make_adapter(tmp_path / "adapters" / name)
    found = load("versions.yaml", tmp_path)
    by_place = {(one.target, one.lora_name): one for one in found.adapters}
    assert {place: one.versioned for place, one in by_place.items()} == {
        ("qwen", "sql"): True, ("edge-2", "mail"): False, ("qwen", "legal"): True, ("edge-2", "legal"): False,
    }  # fmt: skip
    assert {place for place, one in by_place.items() if one.on_demand} == {("qwen", "legal"), ("edge-2", "legal")}
    assert {name: one.adapter_slots for name, one in found.targets.items()} == {"qwen": 4, "edge-2": 8}
