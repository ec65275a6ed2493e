"""An adapter whose patterns would keep Python's `re` busy for years, in everything that reads it.

Each case runs in a process of its own: a match that never ends cannot be interrupted from within.
"""

import json
import struct
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SLOW = "([a-z_.0-9]+)+!"
CONFIGS: dict[str, dict[str, Any]] = {
    "target_modules": {"target_modules": SLOW},
    "rank_pattern": {"target_modules": ["q_proj"], "rank_pattern": {SLOW: 8}},
    "rank_pattern among others": {
        "target_modules": ["q_proj"],
        "rank_pattern": {"v_proj": 8, "(.*)*!": 4, SLOW: 8},
    },
}
MODULE = f"model.layers.0.{'self_attn.' * 8}q_proj"
FLEET = """
import asyncio, sys
from pathlib import Path
sys.path += [{support!r}, {scripts!r}]
from fleet_world import World, adapter
from garrison.fleet.artifacts.disk import DiskArtifacts
from dataclasses import replace

world = World()
world.fleet = replace(world.fleet, artifacts=DiskArtifacts(Path(sys.argv[2]), "db1"))
declared = world.declaration(adapter(lora_path=sys.argv[1]), on_drift="restore")

async def main():
    print(*[action.kind for action in (await world.plan(declared)).actions], flush=True)
    await world.apply(declared)
    print("applied", flush=True)
    world.edge.restart()
    await world.agent_pass()
    print(sorted(world.edge.served), flush=True)

asyncio.run(main())
world.fleet.close()
"""


def write(path: Path, **config: Any) -> Path:
    path.mkdir()
    written = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "acme/tiny"} | config
    (path / "adapter_config.json").write_text(json.dumps(written))
    tensors = {}
    for number, (side, shape) in enumerate({"A": [8, 16], "B": [16, 8]}.items()):
        offsets = [256 * number, 256 * (number + 1)]
        name = f"base_model.model.{MODULE}.lora_{side}.weight"
        tensors[name] = {"dtype": "BF16", "shape": shape, "data_offsets": offsets}
    header = json.dumps(tensors).encode()
    (path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(512))
    return path


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_library(config: dict[str, Any], run: Any, tmp_path: Path) -> None:
    made = write(tmp_path / "sql", **config)
    done = run("-m", "garrison.cli.main", "adapters", "import", made, "--json", seconds=30)
    body = json.loads(done.out)
    if "rank_pattern" in config:
        assert (done.code, body["ok"], body["rank"]) == (0, True, 8)
        assert run("-m", "garrison.cli.main", "adapters", "show", "sql", seconds=30).code == 0
    else:
        assert (done.code, body["ok"]) == (11, False)
        assert "does not target" in str(body)
    assert done.err == "" or "error:" in done.err


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_plan_apply_and_the_agent(config: dict[str, Any], run: Any, tmp_path: Path) -> None:
    made = write(tmp_path / "sql", **config)
    script = FLEET.format(support=str(ROOT / "tests" / "support"), scripts=str(ROOT / "scripts"))
    done = run("-c", script, made, tmp_path / "data", seconds=60)
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == ("['sql']" if "rank_pattern" in config else "[]")
