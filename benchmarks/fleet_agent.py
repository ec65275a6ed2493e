"""What a whole cycle of the agent costs when there is nothing to do: look, decide, write down that all is well.

    python benchmarks/fleet_agent.py [--quick] [--targets 100 500 2000] [--rounds 7] [--json FILE]

Simulated targets with ten adapters each, all of them recorded as applied in a SQLite database; `agent` runs as the
command does, on uvloop, with a connection kept to each target. The bare client opens one for each list of models, and
does nothing else, in the same process and event loop, in turns; ratios are taken round by round, and their medians
shown. Targets, black holes and the bare client: see `fleet_cycle`.
"""

import argparse
import json
import resource
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import uvloop
from fleet_cycle import (
    ADAPTERS,
    BLACK_HOLED,
    Cycle,
    Fleet,
    bare,
    black_holes,
    by_round,
    many_descriptors,
    median,
    ratio,
    simulated,
)

from garrison.fleet.agent.loop import Agent
from garrison.fleet.artifacts.disk import DiskArtifacts
from garrison.fleet.context import Fleet as FleetContext
from garrison.fleet.execute.commands import new_command
from garrison.fleet.observe.kept_connections import lasting_observer
from garrison.fleet.values.declaration import ADAPTER_TYPE, AdapterDeclaration, Declaration
from garrison.fleet.values.target import NO_STORE, TargetSpec
from garrison.fleet.values.view import SilentView
from garrison.net.client import HttpDialer
from garrison.store.records import Key, Operation, Resource, StackRecord, TargetRecord
from garrison.store.sql.store import open_store

BASE = "acme/tiny"
_ANEW = "agent, new connections"


def declared(fleet: Fleet) -> Declaration:
    """Every target with every adapter."""
    targets = {
        name: TargetSpec(name=name, base_url=look.target.base_url, timeout=2.0, adapter_store=NO_STORE)
        for name, look in fleet.looks.items()
    }
    adapters = tuple(
        AdapterDeclaration(
            target=name,
            label=f"adapter-{at}",
            lora_name=f"adapter-{at}",
            lora_path=f"/models/adapters/adapter-{at}",
            base_model_name=BASE,
        )
        for name in targets
        for at in range(ADAPTERS)
    )
    return Declaration(stack="bench", targets=targets, adapters=adapters)


async def agent_for(fleet: Fleet, directory: Path, kept: ExitStack | None) -> Agent:
    """An agent over a database in which all of it is applied.

    Args:
        kept: closes the connections that it keeps, as the command does; None opens one for each look.
    """
    store = open_store(directory / "garrison.db")
    declaration, now = declared(fleet), datetime.now(UTC)
    command = new_command("bench", "apply", now)
    records = [
        TargetRecord(name=name, spec=spec.to_json(), declared_at=now) for name, spec in declaration.targets.items()
    ]
    store.declare(StackRecord(name="bench", declaration=declaration.to_json(), at=now), records, command, [])
    store.put(
        [
            Resource(
                key=Key(spec.target, ADAPTER_TYPE, spec.lora_name),
                stack="bench",
                label=spec.label,
                operation=Operation.CREATED,
                spec=spec.to_json(),
                served_path=spec.lora_path,
                parent=BASE,
                at=now,
            )
            for spec in declaration.adapters
        ]
    )
    store.finish(command)
    artifacts = DiskArtifacts(directory, store.identity(), record=store)
    context = FleetContext(store=store, dialer=HttpDialer(), artifacts=artifacts)
    observer = kept.enter_context(lasting_observer(context)) if kept is not None else None
    agent = Agent(context, SilentView(), observer=observer)
    await agent.startup()
    return agent


def cycling(agent: Agent) -> Cycle:
    """One pass of the agent; the rest was seen when the last list was believed."""

    async def cycle(fleet: Fleet) -> float:
        begun = time.monotonic()
        looks = agent.state.looks
        await agent.once()
        assert agent.state.looks - looks == len(fleet.looks), "each target was looked at once"
        assert agent.state.repaired == 0, "there was nothing to do"
        return agent.state.last_believed - begun

    return cycle


async def compare(ports: list[int], holes: list[int], rounds: int, directory: Path) -> dict[str, Any]:
    """One size of fleet: the agent against the bare client, and against itself with a part of the targets gone."""
    gone = max(1, int(len(ports) * BLACK_HOLED))
    fleets = {
        "agent": Fleet(ports),
        "agent without 5 %": Fleet(ports[gone:]),
        "agent, 5 % black-holed": Fleet(ports[gone:], holes[:gone]),
        _ANEW: Fleet(ports),
    }
    cycles: dict[str, tuple[Cycle, Fleet]] = {"bare": (bare, Fleet(ports))}
    agents: list[Agent] = []
    kept = ExitStack()
    for name, fleet in fleets.items():
        place = directory / f"{len(ports)}-{len(agents)}"
        place.mkdir()
        agents.append(await agent_for(fleet, place, None if name == _ANEW else kept))
        cycles[name] = (cycling(agents[-1]), fleet)
        if name == "agent":
            await agents[-1].once()
            rss = psutil.Process().memory_info().rss / 2**20
    costs = await by_round(cycles, rounds)
    for agent in agents:
        await agent.shutdown()
    kept.close()
    medians = {name: median(found) for name, found in costs.items()}
    for name, cost in medians.items():
        print(f"  {name:24} {cost.rest * 1000:7.1f} ms, {cost.cpu * 1000:7.1f} ms CPU", flush=True)
    without, with_holes = costs["agent without 5 %"], costs["agent, 5 % black-holed"]
    wall, cpu = ratio(costs["agent"], costs["bare"], "whole"), ratio(costs["agent"], costs["bare"], "cpu")
    beside = ratio(with_holes, without, "rest")
    anew = ratio(costs[_ANEW], costs["bare"], "cpu")
    print(f"  wall: ratio {wall:.2f}; CPU: ratio {cpu:.2f}, with new connections {anew:.2f} (aim: at most 2)")
    print(f"  the rest beside black holes: ratio {beside:.2f} (aim: below 1.10)")
    print(f"  memory with one agent: {rss:.0f} MiB (aim: below 400)", flush=True)
    return {
        "targets": len(ports),
        "seconds": {name: {"rest": cost.rest, "whole": cost.whole, "cpu": cost.cpu} for name, cost in medians.items()},
        "ratios": {"wall": wall, "cpu": cpu, "cpu, new connections": anew, "rest beside black holes": beside},
        "rss_mib": rss,
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    shell = argparse.ArgumentParser(description="What a whole cycle of the agent costs.")
    shell.add_argument("--targets", type=int, nargs="+", default=[100, 500, 2000])
    shell.add_argument("--rounds", type=int, default=7)
    shell.add_argument("--quick", action="store_true", help="a smoke test: 60 targets, 2 rounds")
    shell.add_argument("--json", type=Path, help="write the figures here")
    args = shell.parse_args()
    if args.quick:
        args.targets, args.rounds = [60], 2
    many_descriptors()
    found = []
    most = max(args.targets)
    with (
        simulated(most) as ports,
        black_holes(max(1, int(most * BLACK_HOLED))) as holes,
        tempfile.TemporaryDirectory(prefix="garrison-bench.") as directory,
    ):
        for count in args.targets:
            print(f"{count} targets with {ADAPTERS} adapters each", flush=True)
            found.append(uvloop.run(compare(ports[:count], holes, args.rounds, Path(directory))))
    if args.json is not None:
        args.json.write_text(json.dumps({"sizes": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
