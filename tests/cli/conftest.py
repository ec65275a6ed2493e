"""Simulated servers and what was applied to them, for the commands that only look."""

import pytest
import yaml
from threaded_sims import simulators


@pytest.fixture
def start():
    """`start(**SimConfig fields)`: a simulated vLLM with LoRA routes."""
    with simulators() as start:
        yield start


@pytest.fixture
def manifest(tmp_path):
    """`manifest(targets, adapters)`: a file."""

    def write(targets, adapters, stack="cabinet-7"):
        path = tmp_path / f"{stack}.yaml"
        path.write_text(yaml.safe_dump({"stack": stack, "targets": targets, "adapters": adapters}))
        return path

    return write


@pytest.fixture
def applied(cli, start, adapter, manifest):
    """One target with a managed and an unmanaged adapter, and one that was never there."""
    sim = start()
    sql = adapter("sql", seed=1)
    file = manifest(
        {"edge": {"base_url": sim.url, "labels": {"site": "lab"}}, "far": {"base_url": "http://127.0.0.1:1"}},
        {"sql": {"target": "edge", "lora_path": str(sql)}, "later": {"target": "far", "lora_path": str(sql)}},
    )
    assert cli("apply", file, "--yes").code == 31
    sim.load("stranger", adapter("stranger", seed=2))
    assert cli("discover").code == 31
    return sim
