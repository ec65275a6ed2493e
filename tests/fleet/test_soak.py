"""Some seconds of a fleet with real sockets, files and processes that are ended at random moments; then calm."""

import asyncio
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet_nursery import Nursery
from tiny_model import make_adapter

from garrison.fleet.values.declaration import AdapterDeclaration, Declaration, Policy
from garrison.fleet.values.target import TargetSpec
from garrison.sim.config import SimConfig
from garrison.sim.faults import DISGUISES, Faults
from garrison.sim.simulator import Simulator
from garrison.store.records import ActionState, CommandState
from garrison.store.sql.store import open_store

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SECONDS, MOST_SECONDS = 10.0, 60.0
NAMES = ("sql", "chat")
THEIRS = ("theirs-1", "theirs-2")


@pytest.fixture
def nursery(tmp_path: Path) -> Iterator[Nursery]:
    made = Nursery(tmp_path / "home")
    yield made
    made.close()


@pytest.mark.parametrize("seed", [1, 2])
async def test_killed_at_random_moments(nursery: Nursery, tmp_path: Path, seed: int) -> None:
    nursery.open()
    files = tmp_path / "adapters"
    for number, name in enumerate(("v1", "v2")):
        make_adapter(files / name, seed=number)
    draws = random.Random(seed)
    config = SimConfig(port=0, model="acme/tiny", enable_lora=True, runtime_lora=True, max_cpu_loras=8)
    async with Simulator(config) as one, Simulator(config) as other:
        sims = {"one": one, "other": other}
        place: dict[str, Any] = {"db": str(tmp_path / "garrison.db"), "data": str(tmp_path)}
        open_store(tmp_path / "garrison.db").close()
        over = asyncio.Event()
        kills = {"agent": 0, "apply": 0}

        def manifest() -> Declaration:
            adapters = tuple(
                AdapterDeclaration(
                    target=target, label=name, lora_name=name, lora_path=str(files / draws.choice(("v1", "v2")))
                )
                for target in sims
                for name in NAMES
                if draws.random() < 0.7
            )
            targets = {
                name: TargetSpec(name=name, base_url=sim.url, base_model="acme/tiny") for name, sim in sims.items()
            }
            policy = Policy(on_drift="restore", interval=0.3)
            return Declaration(stack="lab", targets=targets, adapters=adapters, policy=policy)

        async def agents() -> None:
            while not over.is_set():
                done = await nursery.run(do="agent", **place, seconds=3600, die_after=draws.uniform(0.2, 1.2))
                kills["agent"] += done["signal"] is not None

        async def applies() -> None:
            while not over.is_set():
                wanted = manifest().to_json()
                done = await nursery.run(
                    do="apply", **place, declaration=wanted, options={"force": True}, die_after=draws.uniform(0.05, 0.5)
                )
                kills["apply"] += done["signal"] is not None

        async def others() -> None:
            while not over.is_set():
                await asyncio.sleep(draws.uniform(0.02, 0.2))
                sim = draws.choice(list(sims.values()))
                match draws.randrange(5):
                    case 0:
                        sim.restart()
                    case 1:
                        sim.state.engine.unload(draws.choice(NAMES))
                    case 2:
                        sim.state.engine.load(draws.choice(THEIRS), str(files / "v1"), in_place=False)
                    case _:
                        sim.faults = Faults(disguise=draws.choice(DISGUISES)) if draws.random() < 0.5 else Faults()

        tasks = [asyncio.create_task(work()) for work in (agents, applies, others)]
        begun = time.monotonic()
        # On a slow machine the first kills take longer than the seconds that are wanted at least.
        while (spent := time.monotonic() - begun) < SECONDS or (min(kills.values()) < 3 and spent < MOST_SECONDS):
            await asyncio.sleep(0.1)
        over.set()
        await asyncio.gather(*tasks)
        for sim in sims.values():
            sim.faults = Faults()
        theirs = {name: _of(sim, THEIRS) for name, sim in sims.items()}
        last = manifest()
        for do in ({"do": "agent"}, {"do": "apply", "declaration": last.to_json(), "options": {"force": True}}):
            done = await nursery.run(**do, **place)
            assert done["code"] == 0, done
        assert kills["agent"] > 2
        assert kills["apply"] > 2
        _check(tmp_path / "garrison.db", sims, last)
        assert {name: _of(sim, THEIRS) for name, sim in sims.items()} == theirs


def _check(db: Path, sims: dict[str, Simulator], last: Declaration) -> None:
    store = open_store(db)
    try:
        served = {(target, name): path for target, sim in sims.items() for name, path in _of(sim, NAMES).items()}
        assert served.keys() == {(spec.target, spec.lora_name) for spec in last.adapters}
        assert {(one.key.target, one.key.name): one.served_path for one in store.resources()} == served
        wanted = {(spec.target, spec.lora_name): spec.lora_path for spec in last.adapters}
        assert {one.spec["lora_path"] == wanted[one.key.target, one.key.name] for one in store.resources()} <= {True}
        for command in store.commands(limit=10_000):
            assert command.state is not CommandState.RUNNING
            assert ActionState.STARTED not in {one.state for one in store.actions(command.id)}
    finally:
        store.close()


def _of(sim: Simulator, names: tuple[str, ...]) -> dict[str, str]:
    return {name: one.path for name, one in sim.state.engine.adapters.items() if name in names}
