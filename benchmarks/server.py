"""What the server costs: its start, its memory, lists of instances, and its own part of a cold start.

    python benchmarks/server.py

The engines are the simulator, and a program that writes the time at which it began.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "scripts"), str(HERE.parent / "tests" / "support")]

from server_lab import ServerLab, wait_for  # noqa: E402 - it lies in the directory added above
from tests_environment import environment  # noqa: E402
from tiny_model import make_model  # noqa: E402

GARRISON = str(Path(sys.executable).parent / "garrison")
ROUNDS = 7
STAMP = "import sys, time; open(sys.argv[1], 'w').write(str(time.time()))"


def main() -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(HERE.parent / "src")], check=True)
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        (work / "home").mkdir()
        lab = ServerLab(work, environment(work / "home"))
        model = make_model(work / "tiny")
        try:
            lab.start()
            starting(lab, model)
            memory(lab, model)
            cold_start(lab, model)
            listing(lab, model)
        finally:
            lab.close()


def starting(lab: ServerLab, model: Path) -> None:
    for number in range(100):
        lab.create(f"i{number:04}", model)
    lab.end()
    helping = median(lambda: subprocess.run([GARRISON, "--help"], env=lab.environ, capture_output=True, check=True))

    def start() -> None:
        lab.start()

    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        start()
        times.append(time.perf_counter() - began)
        lab.end()
    lab.start()
    more = statistics.median(times) - helping
    print(f"ready with 100 stopped instances: {more:.2f} s more than garrison --help (aim: under 1 s)")


def memory(lab: ServerLab, model: Path) -> None:
    assert lab.chat("i0000").is_success
    assert lab.process is not None
    status = json.loads((lab.data_dir / "instances" / "i0000" / "status").read_text())
    shim = resident(status["shim"]["pid"])
    print(f"server: {resident(lab.process.pid):.0f} MB resident (aim: under 150), shim: {shim:.1f} MB (aim: under 20)")


def cold_start(lab: ServerLab, model: Path) -> None:
    """From the request to the first line of the engine, and to the first answer, over what the engine itself takes."""
    stamp = lab.data_dir / "stamp"
    custom = {"argv": [sys.executable, "-S", "-c", STAMP, str(stamp), "{port}"]}
    lab.api("POST", "/instances/stamp", {"backend_type": "custom", "custom": custom, "auto_restart": False})
    interpreter = median(lambda: subprocess.run([sys.executable, "-S", "-c", STAMP, str(stamp)], check=True))
    own: dict[float, list[float]] = {1.0: [], 0.0: []}  # seconds since the start before it, which took the spare shim
    for pause in [pause for pause in own for _ in range(ROUNDS)]:
        time.sleep(pause)
        stamp.unlink(missing_ok=True)
        began = time.time()
        lab.api("POST", "/instances/stamp/start")
        wait_for(stamp.exists, 10, "the engine began")
        time.sleep(0.2)
        own[pause].append(float(stamp.read_text()) - began - interpreter / 2)
        lab.api("POST", "/instances/stamp/stop")
    first, next_one = (statistics.median(own[pause]) * 1000 for pause in own)
    print(f"request in to engine spawned: {first:.0f} ms (aim: under 50); right after another start: {next_one:.0f} ms")
    lab.create("slow", model, backend_options={"startup_delay": 1})
    for name in ("i0000", "slow"):
        ratios, rest = [], []
        for _ in range(ROUNDS):
            lab.api("POST", f"/instances/{name}/stop")
            time.sleep(1.0)
            began = time.perf_counter()
            assert lab.chat(name, most=1).is_success
            whole = time.perf_counter() - began
            ready: float = lab.instance(name)["costs"]["start_seconds"]
            ratios.append(whole / ready)
            rest.append(whole - ready)
        more, ratio = statistics.median(rest) * 1000, statistics.median(ratios)
        print(f"a cold request, simulator ready in {ready:.2f} s: {ratio:.2f} of that (aim: 1.1), {more:.0f} ms more")


def listing(lab: ServerLab, model: Path) -> None:
    for number in range(100, 1000):
        lab.create(f"i{number:04}", model)
    for count in (10, 100, 1000):
        seconds = median(lambda count=count: lab.api("GET", f"/instances?limit={count}"))  # type: ignore[misc]  # a default in a lambda
        print(f"listing {count:,} of 1,000 instances: {seconds * 1000:.1f} ms" + (" (aim: under 50)" * (count == 1000)))


def resident(pid: int) -> float:
    found: int = psutil.Process(pid).memory_info().rss
    return found / 1e6


def median(call: Callable[[], object]) -> float:
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


if __name__ == "__main__":
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    main()
