"""Gateways side by side: what a request and a chunk of a stream cost each, how long they take, and the memory held.

    python benchmarks/gateway/run.py [--peers direct,nginx,…] [--rounds 5] [--json FILE] [--plot FILE] [--quick]

One core has the gateway and nothing else of ours; another has the load (wrk, `streams.c`), the upstream (`upstream.c`,
answers that cost it nothing) and this program. In each round every gateway is started anew, then each case is measured
with all of them in turn, the order shifted from case to case; `direct` is the load on the upstream without a gateway.
The figures are medians over the rounds; ± is half the distance from the least to the most. The main one is the
gateway's CPU time a request, read from /proc for all its processes; /nginx is that in nginx's (less is better), router/
that of the best router in Rust in it (more is better), both as medians of the rounds' own ratios. /read is how many
chunks came together in a read of the load: a gateway that cannot keep up gets them together too, and each costs it
less; the streams with a pace show what one costs alone.

Needed: two cores, a C compiler, wrk and nginx (`apt-get install gcc libc6-dev wrk nginx-light`), and PyPI for the
routers, which get environments of their own under .cache. LiteLLM (`--peers …,litellm`) is slow to install.

Another gateway:

    --command mine='PROGRAM --port {port} --upstream http://127.0.0.1:{upstream}'

may be given several times. It needs a process that stays in the foreground, listens on 127.0.0.1:{port} and sends
requests for the model `bench` on to http://127.0.0.1:{upstream}; {directory} is an empty directory, {python} this
interpreter. SIGTERM ends it. `--key` is sent as bearer token to all, so that a gateway can check it.
"""

import argparse
import http.client
import json
import os
import platform
import random
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import load
import peers
import plot
from load import Values
from peers import DIRECT, Peer, Place, UnavailableError
from proc_tree import Tree, core_seconds
from report import NOISE, Case, Round, tables

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "benchmarks-gateway"
STREAMS = 256
T = TypeVar("T")
FILES = 12_000  # descriptors: 5,000 idle connections, each with one to the upstream in the worst case, and some
SETTLE = 0.2  # seconds in which a gateway has to be idle before it is measured


@dataclass(frozen=True, slots=True)
class Bench:
    """What does not change during a run."""

    gateway_core: int
    load_core: int
    upstream: int
    streams: Path
    bodies: Path  # a directory with a file for each size
    key: str
    seconds: int
    chunks: int
    tries: int = 1

    def body(self, size: int) -> Path:
        path = self.bodies / f"{size}.json"
        if not path.exists():
            path.write_bytes(load.body(size))
        return path


@dataclass(frozen=True, slots=True)
class Running:
    name: str
    port: int
    tree: Tree | None  # None for `direct`
    start_seconds: float


class Watch:
    """Reads the gateway's CPU time and its core's at the beginning and the end of a measurement, memory in between."""

    def __init__(self, tree: Tree | None, core: int) -> None:
        self._tree, self._core = tree, core
        self._readings: dict[str, tuple[float, float, float]] = {}
        self._resident: float | None = None
        if tree is not None:
            tree.refresh()

    def __call__(self, word: str) -> None:
        if word == "half":
            self._resident = self._tree.resident() if self._tree is not None else None
            return
        used = self._tree.cpu() if self._tree is not None else 0.0
        self._readings[word] = (used, core_seconds(self._core), time.monotonic())

    def values(self, count: float) -> Values:
        """Of what was done `count` times between "begin" and "end"."""
        found: Values = {}
        if self._resident is not None:
            found["rss_mb"] = self._resident
        if "end" in self._readings:
            pairs = zip(self._readings["begin"], self._readings["end"], strict=True)
            used, busy, wall = (after - before for before, after in pairs)
            found["foreign"] = max(0.0, busy - used) / wall
            if self._tree is not None and count:
                found |= {"cpu_us": used / count * 1e6, "cpu_share": used / wall}
        return found


def measure(bench: Bench, running: Running, case: Case) -> Values:
    """Once, or again while others take much of the core: the try with the least of that."""
    found: list[Values] = []
    while len(found) < bench.tries and not (found and found[-1]["foreign"] < NOISE):
        found.append(measure_once(bench, running, case))
    return min(found, key=lambda values: values["foreign"])


def measure_once(bench: Bench, running: Running, case: Case) -> Values:
    settle(running.tree)
    watch = Watch(running.tree, bench.gateway_core)
    if case.kind == "requests":
        data = bench.body(case.size)
        found = load.requests(running.port, data, case.connections, bench.seconds, watch, key=bench.key)
    else:
        found = load.streams(
            *(bench.streams, running.port, case.connections, bench.chunks, case.rate, bench.seconds, watch),
            key=bench.key,
        )
    return found | watch.values(found["count"])


def settle(tree: Tree | None) -> None:
    """Waits while the gateway works on what the case before has left behind, but not for ever."""
    until = time.monotonic() + 15
    while True:
        before = tree.cpu() if tree is not None else 0.0
        time.sleep(SETTLE)
        used = tree.cpu() - before if tree is not None else 0.0
        if used < SETTLE / 5 or time.monotonic() > until:
            return


@contextmanager
def start(bench: Bench, peer: Peer, environment: Path) -> Iterator[Running]:
    """Runs a peer pinned to its core, from its first answer on."""
    if peer is DIRECT:
        yield Running(peer.name, bench.upstream, None, 0.0)
        return
    with tempfile.TemporaryDirectory(prefix=f"{peer.name}-") as made:
        directory = Path(made)
        place = Place(directory, free_port(), free_port(), bench.upstream, environment)
        words = ["taskset", "-c", str(bench.gateway_core), *peer.command(place)]
        log = directory / "log"
        environ = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
        environ |= {"HOME": made, "TMPDIR": made, **peer.environ}
        with log.open("wb") as sink:
            begun = time.monotonic()
            process = subprocess.Popen(words, stdout=sink, stderr=sink, cwd=made, env=environ, start_new_session=True)
        tree = Tree(process)
        try:
            wait_for_answer(bench, peer, place.port, process, words, log)
            yield Running(peer.name, place.port, tree, time.monotonic() - begun)
        finally:
            tree.end()


def wait_for_answer(
    bench: Bench, peer: Peer, port: int, process: subprocess.Popen[bytes], words: Sequence[str], log: Path
) -> None:
    data = bench.body(1024).read_bytes()
    until, last = time.monotonic() + peer.patience, "no answer"
    while time.monotonic() < until and process.poll() is None:
        try:
            status, answer = load.post(port, data, bench.key)
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        else:
            if status == 200:
                return
            last = f"{status} {answer[:200]!r}"
        time.sleep(0.005)
    ended = f"ended with {process.returncode}" if process.poll() is not None else f"had {peer.patience:.0f} s"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise SystemExit(
        f"{peer.name} {ended} and did not answer a request for `bench` with 200; the last was: {last}\n"
        f"{shlex.join(map(str, words))}\n{tail}"
    )


def free_port() -> int:
    """Below the range that outgoing connections take theirs from."""
    for _ in range(100):
        port = random.randint(20_000, 31_999)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise SystemExit("no free port between 20000 and 31999; end what holds them")


def run_round(
    bench: Bench, chosen: Sequence[tuple[Peer, Path]], cases: Sequence[Case], number: int, idle: int
) -> Round:
    with ExitStack() as stack:
        running = [stack.enter_context(start(bench, *one)) for one in shifted(chosen, number)]
        found: Round = {peer.name: {} for peer, _environment in chosen}
        for one in running:  # code and connections that only the first requests wait for
            load.requests(one.port, bench.body(1024), 32, 1, lambda _word: None, key=bench.key)
        for at, case in enumerate(cases):
            say(f"round {number + 1}: {case.title}")
            for one in shifted(running, number + at):
                found[one.name][case.key] = measure(bench, one, case)
        for one in running:
            if one.tree is not None:
                one.tree.refresh()
                found[one.name]["whole"] = {"start_s": one.start_seconds, "peak_mb": one.tree.peak()}
                found[one.name]["idle"] = measure_idle(bench, one, idle)
    return found


def measure_idle(bench: Bench, one: Running, count: int) -> Values:
    if not count:
        return {}
    say(f"{count:,} idle connections: {one.name}")
    settle(one.tree)
    watch = Watch(one.tree, bench.gateway_core)
    found = load.idle(one.port, bench.body(1024).read_bytes(), count, watch, key=bench.key)
    return found | watch.values(count)


def shifted(items: Sequence[T], by: int) -> list[T]:
    by %= len(items)
    return [*items[by:], *items[:by]]


def say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def make_cases(sizes: Sequence[int], connections: Sequence[int], rate: int, kinds: Sequence[str]) -> list[Case]:
    found = []
    if "requests" in kinds:
        found += [
            Case(
                f"{size}KB-c{count}",
                f"POST {size} KB, {count} connection{'s' * (count > 1)}",
                "requests",
                size * 1024,
                count,
            )
            for size in sizes
            for count in connections
        ]
    if "streams" in kinds:
        found += [
            Case("paced", f"{STREAMS} streams at {rate} chunks/s each", "paced", 0, STREAMS, rate),
            Case("flood", f"{STREAMS} streams as fast as they go", "flood", 0, STREAMS),
        ]
    return found


def choose(names: Sequence[str], commands: Sequence[str]) -> list[tuple[Peer, Path]]:
    """The peers and their environments; installs what is missing of PyPI."""
    own = [peers.from_command(text) for text in commands]
    replaced = {peer.name for peer in own}
    if unknown := [name for name in names if name not in peers.PEERS and name not in replaced]:
        raise SystemExit(f"no peer is called {', '.join(unknown)}; there are {', '.join(peers.PEERS)}, and --command")
    wanted = [*(peers.PEERS[name] for name in names if name not in replaced), *own]
    try:
        return [(peer, peer.install(CACHE)) for peer in wanted]
    except UnavailableError as why:
        raise SystemExit(str(why)) from None


def check_machine(idle: int) -> tuple[int, int]:
    """The gateway's core and the load's. Raises SystemExit with what is missing."""
    missing = {"wrk": "wrk", "taskset": "util-linux", load.COMPILER: "gcc libc6-dev"}
    lacking = {program: package for program, package in missing.items() if shutil.which(program) is None}
    if lacking:
        raise SystemExit(f"{', '.join(lacking)} not found: apt-get install {' '.join(lacking.values())}")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit(f"two cores are needed, one for the gateway and one for the load; allowed: {cores}")
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if idle and hard != resource.RLIM_INFINITY and hard < FILES:
        raise SystemExit(f"the hard limit of open files is {hard}, {FILES} are needed: raise it, or --idle 0")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return cores[-1], cores[0]


def machine() -> dict[str, object]:
    named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "processor": named[0].partition(":")[2].strip() if named else platform.processor(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
    }


def arguments() -> argparse.Namespace:
    def words(text: str) -> list[str]:
        return [word for word in text.split(",") if word]

    def numbers(text: str) -> list[int]:
        return [int(word) for word in words(text)]

    shell = argparse.ArgumentParser(
        description=(__doc__ or "").partition("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    shell.add_argument("--peers", type=words, default=",".join(peers.DEFAULT), help=f"of {', '.join(peers.PEERS)}")
    shell.add_argument("--command", action="append", default=[], metavar="NAME=COMMAND", help="another gateway")
    shell.add_argument("--rounds", type=int, default=5)
    shell.add_argument("--seconds", type=int, default=3, help="of one measurement")
    shell.add_argument("--kinds", type=words, default="requests,streams", help="what to measure")
    shell.add_argument("--sizes", type=numbers, default="1,16,256", help="KB of a body")
    shell.add_argument("--connections", type=numbers, default="1,32,256")
    shell.add_argument("--rate", type=int, default=50, help="chunks a second a stream")
    shell.add_argument("--chunks", type=int, default=100, help="of a stream")
    shell.add_argument("--idle", type=int, default=5000, help="idle connections to hold; 0 for none")
    shell.add_argument("--tries", type=int, default=1, help="of one measurement while others use the gateway's core")
    shell.add_argument("--key", default="", help="bearer token that every request carries")
    shell.add_argument("--quick", action="store_true", help="a smoke test: one short round of few cases")
    shell.add_argument("--json", type=Path, help="write every round here")
    shell.add_argument("--plot", type=Path, help="draw the CPU times here, as SVG")
    args = shell.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.sizes, args.connections, args.idle = 1, 1, [1, 256], [32], min(args.idle, 500)
    return args


def main() -> None:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))  # so that what was started is ended
    gateway_core, load_core = check_machine(args.idle)
    chosen = choose(args.peers, args.command)
    cases = make_cases(args.sizes, args.connections, args.rate, args.kinds)
    os.sched_setaffinity(0, {load_core})
    whole = {
        "machine": machine(),
        "settings": {name: value for name, value in vars(args).items() if name not in ("json", "plot")},
        "versions": {peer.name: peer.version() for peer, _environment in chosen},
        "cases": [asdict(case) for case in cases],
    }
    rounds: list[Round] = []
    with (
        tempfile.TemporaryDirectory(prefix="bodies-") as bodies,
        load.upstream(load.compiled("upstream", CACHE)) as upstream,
    ):
        streams = load.compiled("streams", CACHE)
        bench = Bench(
            gateway_core, load_core, upstream, streams, Path(bodies), args.key, args.seconds, args.chunks, args.tries
        )
        for number in range(args.rounds):
            rounds.append(run_round(bench, chosen, cases, number, args.idle))
            if args.json is not None:
                args.json.write_text(json.dumps(whole | {"rounds": rounds}, indent=1) + "\n")
    print(tables(rounds, cases, args.idle))
    if args.plot is not None:
        args.plot.write_text(plot.draw(rounds, cases), encoding="utf-8")


if __name__ == "__main__":
    main()
