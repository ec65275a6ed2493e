"""Fixtures for the commands: simulated servers, in-memory fleets, golden files."""

import os
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from fleet_world import World
from threaded_sims import simulators

from garrison.net.thread_pool import ThreadPool

FIXTURES = Path(__file__).with_name("fixtures")


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
    """One target with a managed and an unmanaged adapter, and one that was never reachable."""
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


@pytest.fixture
def world(monkeypatch):
    """Targets `edge-1` and `edge-2`, a store and files in memory; `open_fleet` opens them."""
    from garrison.cli.fleet import wiring as fleet_wiring

    made = World(targets=2)

    @contextmanager
    def open_fleet():
        fleet = replace(
            made.fleet, _database=ThreadPool("store"), _readers=ThreadPool("reader", 2), _disk=ThreadPool("disk")
        )
        try:
            yield fleet
        finally:
            fleet.close()

    monkeypatch.setattr(fleet_wiring, "open_fleet", open_fleet)
    yield made
    made.fleet.close()


@pytest.fixture
def golden():
    """`golden("plan-80.txt", text)`: compares with tests/cli/fixtures; `GOLDEN_UPDATE=1` rewrites the file."""

    def compare(name, text):
        path = FIXTURES / name
        if os.environ.get("GOLDEN_UPDATE") == "1":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return compare
