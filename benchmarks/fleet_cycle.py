"""What a look at a whole fleet costs when there is nothing to do, in bare clients that list the same models.

    python benchmarks/fleet_cycle.py [--quick] [--targets 100 500 2000] [--rounds 7] [--loop uvloop] [--json FILE]

Simulated targets run in processes of their own. Both sides run in one process and one event loop, in turns; wall and
CPU time are compared round by round. The bare client opens a connection with asyncio's streams, reads to the end and
parses the JSON, as many at a time as the observer has places.

Black-holed targets are ports whose accept queue is full: the kernel drops every further SYN, so that connecting neither
fails nor ends, as with a host that is switched off. They need no privileges and no packet filter. "The rest" is seen
when the last target that is there has been seen.

A cycle is any `async (fleet) -> seconds until the rest was seen`; `compare` says which are measured.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import multiprocessing
import resource
import socket
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from garrison.fleet.observe.observer import Look, Observer
from garrison.fleet.values.observation import Sighting
from garrison.fleet.values.target import TargetSpec
from garrison.net.client import HttpDialer
from garrison.sim.config import SimConfig
from garrison.sim.simulator import Simulator
from garrison.testing.adapter_reader import MemoryAdapters

ADAPTERS = 10
SERVERS = 2
"""Processes that simulate."""
PARALLEL = 128
BLACK_HOLED = 0.05


@dataclass(slots=True)
class Fleet:
    """What a cycle works on.

    Attributes:
        ports: of the targets that are there.
        holes: ports that swallow everything.
        looks: the observer's view, kept from cycle to cycle as the store keeps it.
    """

    ports: list[int]
    holes: list[int] = field(default_factory=list)
    looks: dict[str, Look] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Holes are spread evenly among the others, and new: nobody knows yet that they are holes."""
        step = len(self.ports) // len(self.holes) if self.holes else 0
        ports = list(self.ports)
        for at, hole in enumerate(self.holes):
            ports.insert(at * (step + 1), hole)
        for port in ports:
            spec = TargetSpec(name=f"t{port}", base_url=f"http://127.0.0.1:{port}", timeout=2.0)
            self.looks[spec.name] = Look(target=spec)


Cycle = Callable[[Fleet], Awaitable[float]]


async def bare(fleet: Fleet) -> float:
    """A client that lists the models of all targets and does nothing else."""
    begun = time.perf_counter()
    waiting = iter(fleet.ports)

    async def work() -> None:
        for port in waiting:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            raw = await reader.read()
            writer.close()
            listed = json.loads(raw.partition(b"\r\n\r\n")[2])
            assert len(listed["data"]) == ADAPTERS + 1

    async with asyncio.TaskGroup() as group:
        for _ in range(PARALLEL):
            group.create_task(work())
    return time.perf_counter() - begun


def observing(observer: Observer) -> Cycle:
    """One pass of the observer, which learns from each."""

    async def cycle(fleet: Fleet) -> float:
        begun = last = time.perf_counter()
        left = len(fleet.ports)

        def seen(sighting: Sighting) -> None:
            nonlocal left, last
            if sighting.known:
                left -= 1
                last = time.perf_counter()
                look = fleet.looks[sighting.target]
                if look.served is not sighting.served:
                    fleet.looks[sighting.target] = replace(look, served=sighting.served, base=sighting.base)

        await observer.observe(fleet.looks.values(), seen)
        assert left == 0, f"{left} targets were not seen"
        return last - begun

    return cycle


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds: until the rest was seen, of the whole cycle, and of this process's CPU."""

    rest: float
    whole: float
    cpu: float


async def measure(cycle: Cycle, fleet: Fleet) -> Cost:
    gc.collect()
    cpu, begun = time.process_time(), time.perf_counter()
    rest = await cycle(fleet)
    return Cost(rest, time.perf_counter() - begun, time.process_time() - cpu)


Costs = dict[str, list[Cost]]


async def in_turns(cycles: dict[str, tuple[Cycle, Fleet]], rounds: int) -> dict[str, Cost]:
    """Medians over the rounds."""
    return {name: median(found) for name, found in (await by_round(cycles, rounds)).items()}


async def by_round(cycles: dict[str, tuple[Cycle, Fleet]], rounds: int) -> Costs:
    """What each cycle cost in each round, after one round that does not count."""
    costs: Costs = {name: [] for name in cycles}
    for at in range(rounds + 1):
        for name, (cycle, fleet) in cycles.items():
            cost = await measure(cycle, fleet)
            if at:
                costs[name].append(cost)
    return costs


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, part) for cost in costs) for part in ("rest", "whole", "cpu")))


def ratio(ours: list[Cost], base: list[Cost], part: str) -> float:
    """The median of the rounds' ratios: what else the machine does meanwhile falls on both."""
    return float(statistics.median(getattr(a, part) / getattr(b, part) for a, b in zip(ours, base, strict=True)))


async def compare(ports: list[int], holes: list[int], rounds: int) -> dict[str, Any]:
    """One size of fleet: the observer against the bare client, and against itself with a part of the targets gone."""
    observer = Observer(HttpDialer())
    cycle = observing(observer)
    gone = max(1, int(len(ports) * BLACK_HOLED))
    costs = await by_round(
        {
            "bare": (bare, Fleet(ports)),
            "observe": (cycle, Fleet(ports)),
            "observe without 5 %": (cycle, Fleet(ports[gone:])),
            "observe, 5 % black-holed": (cycle, Fleet(ports[gone:], holes[:gone])),
        },
        rounds,
    )
    medians = {name: median(found) for name, found in costs.items()}
    for name, cost in medians.items():
        print(f"  {name:26} {cost.rest * 1000:7.1f} ms, {cost.cpu * 1000:7.1f} ms CPU", flush=True)
    ours, base = costs["observe"], costs["bare"]
    without, with_holes = costs["observe without 5 %"], costs["observe, 5 % black-holed"]
    rss = psutil.Process().memory_info().rss / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    wall, cpu, beside = ratio(ours, base, "rest"), ratio(ours, base, "cpu"), ratio(with_holes, without, "rest")
    print(f"  wall: ratio {wall:.2f}; CPU: ratio {cpu:.2f} (aim: at most 2)")
    print(f"  the rest beside black holes: ratio {beside:.2f} (aim: below 1.10)")
    print(f"  memory: {rss:.0f} MiB, at most {peak:.0f} MiB (aim: below 400)", flush=True)
    return {
        "targets": len(ports),
        "seconds": {name: {"rest": cost.rest, "whole": cost.whole, "cpu": cost.cpu} for name, cost in medians.items()},
        "ratios": {"wall": wall, "cpu": cpu, "rest beside black holes": beside},
        "rss_mib": rss,
        "peak_rss_mib": peak,
    }


# --- the fleet


def serve(count: int, talk: Connection) -> None:
    """A process with `count` simulators; it ends when the other end of `talk` is closed."""

    async def run() -> None:
        shelf = MemoryAdapters()
        names = [(f"adapter-{at}", f"/models/adapters/adapter-{at}") for at in range(ADAPTERS)]
        for name, path in names:
            shelf.put(path, name)
        config = SimConfig(port=0, model="acme/tiny", enable_lora=True, runtime_lora=True, max_cpu_loras=ADAPTERS)
        servers = [Simulator(config, adapters=shelf) for _ in range(count)]
        for server in servers:
            for name, path in names:
                server.state.engine.load(name, path, in_place=False)
            await server.start()
        talk.send([server.port for server in servers])
        with contextlib.suppress(EOFError):
            await asyncio.to_thread(talk.recv)
        for server in servers:
            await server.stop()

    import uvloop

    many_descriptors()
    uvloop.run(run())


@contextlib.contextmanager
def simulated(count: int) -> Iterator[list[int]]:
    """Ports of `count` targets."""
    context = multiprocessing.get_context("spawn")
    talks, processes = [], []
    for at in range(SERVERS):
        ours, theirs = context.Pipe()
        share = count // SERVERS + (at < count % SERVERS)
        process = context.Process(target=serve, args=(share, theirs), daemon=True)
        process.start()
        theirs.close()
        talks.append(ours)
        processes.append(process)
    try:
        yield [port for talk in talks for port in talk.recv()]
    finally:
        for talk in talks:
            talk.close()
        for process in processes:
            process.join(10)


@contextlib.contextmanager
def black_holes(count: int) -> Iterator[list[int]]:
    """Ports that complete no connection: each accepts none, and its queue is full."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(2):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            ports.append(listener.getsockname()[1])
        yield ports


def many_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    shell = argparse.ArgumentParser(description="What a look at a whole fleet costs.")
    shell.add_argument("--targets", type=int, nargs="+", default=[100, 500, 2000])
    shell.add_argument("--rounds", type=int, default=7)
    shell.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    shell.add_argument("--quick", action="store_true", help="a smoke test: 60 targets, 2 rounds")
    shell.add_argument("--json", type=Path, help="write the figures here")
    args = shell.parse_args()
    if args.quick:
        args.targets, args.rounds = [60], 2
    many_descriptors()
    run: Callable[..., Any] = asyncio.run
    if args.loop == "uvloop":
        import uvloop

        run = uvloop.run
    found = []
    with (
        simulated(max(args.targets)) as ports,
        black_holes(max(1, int(max(args.targets) * BLACK_HOLED))) as holes,
    ):
        for count in args.targets:
            print(f"{count} targets with {ADAPTERS} adapters each ({args.loop})", flush=True)
            found.append(run(compare(ports[:count], holes, args.rounds)))
    if args.json is not None:
        args.json.write_text(json.dumps({"loop": args.loop, "sizes": found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
