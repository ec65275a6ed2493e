"""What a request costs the gateway as its routes, keys and targets grow: CPU time a request, which should stay flat.

    python benchmarks/gateway/scale.py [--rounds 3] [--json FILE]

One of the three numbers grows at a time, in a worker that is told them at its start; requests of 1 KB from 32
connections go round the routes and the keys, and each route goes to every target. A row is flat when its last column
stays below 1.1.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import load
from load import Values
from lone_worker import numbered
from peers import Peer, Place
from run import CACHE, Bench, Watch, check_machine, machine, say, start

SIZES = {"routes": (1, 10, 100, 1_000, 10_000), "keys": (1, 10, 100, 1_000, 10_000), "targets": (1, 10, 100, 1_000)}
CONNECTIONS = 32
WARM_SECONDS = 5  # for code, connections and heads that only first requests wait for
KEY = "sk-bench"
LONE_WORKER = Path(__file__).with_name("lone_worker.py")


@dataclass(frozen=True, slots=True)
class Scale:
    routes: int = 1
    keys: int = 1
    targets: int = 1


def command(scale: Scale, place: Place) -> list[str]:
    return [
        *(sys.executable, str(LONE_WORKER), str(place.port), str(place.upstream), str(place.directory), "--key", KEY),
        *(word for name, value in asdict(scale).items() for word in (f"--{name}", str(value))),
    ]


def measure(bench: Bench, scale: Scale) -> Values:
    """A gateway of this scale, started, warmed and measured."""
    models, keys = numbered("bench", scale.routes), numbered(KEY, scale.keys)
    peer = Peer("gateway", lambda place: command(scale, place), patience=120)
    listed = {name: bench.bodies / name for name in ("models", "keys")}
    listed["models"].write_text("".join(f"{model}\n" for model in models))
    listed["keys"].write_text("".join(f"{key}\n" for key in keys))
    with start(bench, peer, CACHE) as running:
        for seconds in (WARM_SECONDS, bench.seconds):
            watch = Watch(running.tree, bench.gateway_core)
            found = load.requests(
                *(running.port, bench.body(1024), CONNECTIONS, seconds, watch),
                key=bench.key,
                several=(listed["models"], listed["keys"]),
            )
        assert running.tree is not None
        found["peak_mb"], found["start_s"] = running.tree.peak(), running.start_seconds
    return found | watch.values(found["count"])


def table(rounds: Sequence[dict[str, dict[int, Values]]]) -> str:
    lines = [f"{'':10}{'':>8}{'requests/s':>12}{'CPU µs/request':>16}{'peak MB':>9}{'start s':>9}{'of one':>8}"]
    for what, sizes in rounds[0].items():
        base = [one[what][min(sizes)]["cpu_us"] for one in rounds]
        for size in sizes:
            found = [one[what][size] for one in rounds]
            shown = {name: statistics.median(values[name] for values in found) for name in found[0]}
            ratio = statistics.median(one["cpu_us"] / first for one, first in zip(found, base, strict=True))
            lines.append(
                f"{what:10}{size:>8,}{shown['rate']:>12,.0f}{shown['cpu_us']:>16.1f}{shown['peak_mb']:>9.0f}"
                f"{shown['start_s']:>9.2f}{ratio:>8.2f}"
                + (f"  {shown['errors']:.0f} errors" if shown["errors"] else "")
            )
    return "\n".join(lines)


def main() -> None:
    shell = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shell.add_argument("--rounds", type=int, default=3)
    shell.add_argument("--seconds", type=int, default=3, help="of one measurement")
    shell.add_argument("--most", type=int, default=10_000, help="leave out what is larger")
    shell.add_argument("--json", type=Path, help="write every round here")
    args = shell.parse_args()
    gateway_core, load_core = check_machine(0)
    os.sched_setaffinity(0, {load_core})
    rounds: list[dict[str, dict[int, Values]]] = []
    with (
        tempfile.TemporaryDirectory(prefix="bodies-") as bodies,
        load.upstream(load.compiled("upstream", CACHE)) as upstream,
    ):
        bench = Bench(gateway_core, load_core, upstream, CACHE / "streams", Path(bodies), KEY, args.seconds, 0)
        for number in range(args.rounds):
            found: dict[str, dict[int, Values]] = {}
            for what, sizes in SIZES.items():
                found[what] = {}
                for size in [size for size in sizes if size <= args.most]:
                    say(f"round {number + 1}: {size:,} {what}")
                    grown: dict[str, Any] = {what: size}
                    found[what][size] = measure(bench, Scale(**grown))
            rounds.append(found)
    print(table(rounds))
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": machine(), "one": asdict(Scale()), "rounds": rounds}) + "\n")


if __name__ == "__main__":
    main()
