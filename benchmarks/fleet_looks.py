"""Whether the agent keeps its rate at short intervals, and what a look costs with and without kept connections.

    python benchmarks/fleet_looks.py [--quick] [--targets 1000] [--interval 1] [--seconds 60] [--json FILE]

Simulated targets with ten adapters each in processes of their own; all of it is recorded as applied in a SQLite
database, with `on_drift: restore`. While the agent runs, one target in a hundred is restarted each minute, in turn: it
loses its adapters, and the agent loads them again. The rate is looks done in looks wanted, one per target and interval;
the agent aims a twentieth higher, because it looks up to a tenth early. CPU is that of this process, with repairs.
"""

import argparse
import asyncio
import contextlib
import json
import math
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import uvloop
from fleet_agent import declared
from fleet_cycle import ADAPTERS, Fleet, many_descriptors, simulated

from garrison.fleet.agent.loop import Agent
from garrison.fleet.artifacts.disk import DiskArtifacts
from garrison.fleet.context import Fleet as FleetContext
from garrison.fleet.observe.kept_connections import lasting_observer
from garrison.fleet.observe.observer import Observer
from garrison.fleet.operations.apply import apply
from garrison.fleet.plan.context import PlanOptions
from garrison.fleet.values.declaration import Policy
from garrison.fleet.values.view import SilentView
from garrison.net.client import HttpDialer
from garrison.net.endpoint import Server
from garrison.store.sql.store import open_store

_SETTLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one run does. `restarts`: the share of the targets that is restarted each minute."""

    interval: float
    seconds: float
    restarts: float


async def run(ports: list[int], directory: Path, load: Load, *, kept: bool) -> dict[str, float]:
    """One agent over all targets for `load.seconds`."""
    store = open_store(directory / "garrison.db")
    artifacts = DiskArtifacts(directory, store.identity(), record=store)
    fleet = FleetContext(store=store, dialer=HttpDialer(), artifacts=artifacts)
    policy = Policy(on_drift="restore", interval=load.interval)
    everything = replace(declared(Fleet(ports)), policy=policy)
    # The simulators serve all of it already, so that this only records it.
    await apply(fleet, everything, SilentView(), options=PlanOptions())
    with observing(fleet, kept=kept) as observer:
        agent = Agent(fleet, SilentView(), observer=observer)
        await agent.startup()
        loop = asyncio.create_task(agent.main_loop())
        await asyncio.sleep(_SETTLE_SECONDS)
        looks, repaired, cpu, begun = _looks(agent), _repaired(agent), time.process_time(), time.perf_counter()
        await restarting(ports, load)
        wall, spent = time.perf_counter() - begun, time.process_time() - cpu
        looks, repaired = _looks(agent) - looks, _repaired(agent) - repaired
        agent.request_stop()
        await loop
        await agent.shutdown()
    fleet.close()
    return {
        "rate": looks / (len(ports) * wall / load.interval),
        "us CPU a look": spent / looks * 1e6,
        "cores": spent / wall,
        "adapters repaired": repaired,
    }


@contextlib.contextmanager
def observing(fleet: FleetContext, *, kept: bool) -> Iterator[Observer]:
    """The observer of `garrison agent`, or one that opens a connection for each look."""
    if kept:
        with lasting_observer(fleet) as observer:
            yield observer
    else:
        yield Observer(fleet.dialer, fleet.clock)


async def restarting(ports: list[int], load: Load) -> None:
    """Restart targets in turn until the time is over."""
    every = 60.0 / (load.restarts * len(ports)) if load.restarts else math.inf
    dialer, begun, done = HttpDialer(), time.perf_counter(), 0
    while (left := load.seconds - (time.perf_counter() - begun)) > 0:
        await asyncio.sleep(min(left, every))
        if left <= every:
            continue
        server = Server(base_url=f"http://127.0.0.1:{ports[done * 7919 % len(ports)]}")
        async with dialer.open(server) as connection:
            await connection.request("POST", "/_sim/restart", json={"downtime": 0}, timeout=5.0)
        done += 1


def _looks(agent: Agent) -> int:
    return agent.state.looks


def _repaired(agent: Agent) -> int:
    return agent.state.repaired


def main() -> None:
    shell = argparse.ArgumentParser(description="Whether the agent keeps its rate, and what a look costs.")
    shell.add_argument("--targets", type=int, default=1000)
    shell.add_argument("--interval", type=float, default=1.0)
    shell.add_argument("--seconds", type=float, default=60.0, help="of each run")
    shell.add_argument("--restarts", type=float, default=0.01, help="share of the targets restarted each minute")
    shell.add_argument("--rounds", type=int, default=1)
    shell.add_argument("--quick", action="store_true", help="a smoke test: 40 targets, 6 seconds")
    shell.add_argument("--json", type=Path, help="write the figures here")
    args = shell.parse_args()
    if args.quick:
        args.targets, args.seconds, args.restarts = 40, 6.0, 1.0
    load = Load(interval=args.interval, seconds=args.seconds, restarts=args.restarts)
    many_descriptors()
    found: dict[str, list[dict[str, Any]]] = {"new connections": [], "kept connections": []}
    print(f"{args.targets} targets with {ADAPTERS} adapters each, a look every {args.interval:g} s", flush=True)
    with simulated(args.targets) as ports, tempfile.TemporaryDirectory(prefix="garrison-bench.") as directory:
        for at in range(args.rounds):
            for name, runs in found.items():
                place = Path(directory) / f"{at}-{name.replace(' ', '-')}"
                place.mkdir()
                runs.append(uvloop.run(run(ports, place, load, kept=name == "kept connections")))
                shown = ", ".join(f"{value:.3f} {what}" for what, value in runs[-1].items())
                print(f"  {name:18} {shown}", flush=True)
    print(f"  peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
