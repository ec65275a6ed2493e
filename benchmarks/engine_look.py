"""Counting the CPU time and memory of an engine beside many other processes: by the kernel's lists of children, and by
reading the whole process table. Microseconds a look, medians. `python benchmarks/engine_look.py [--others 500]`."""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from garrison.base.identity import ProcessId, start_time
from garrison.processes.descendants import Descendants
from garrison.processes.procfs import Procfs
from garrison.processes.tree import post_order

LOOKS = 200
WORKERS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--others", type=int, default=500)
    others = [subprocess.Popen(["sleep", "600"]) for _ in range(parser.parse_args().others)]
    # An engine as vLLM's: a server with threads, and workers below it.
    code = (
        "import os, threading, time\n"
        f"for _ in range({WORKERS}):\n"
        "    if os.fork() == 0: break\n"
        "else:\n"
        "    for _ in range(60): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "print(flush=True)\ntime.sleep(600)\n"
    )
    engine = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert engine.stdout is not None
    for _ in range(WORKERS + 1):
        engine.stdout.readline()
    root = ProcessId(engine.pid, start_time(engine.pid) or 0)
    try:
        print(f"{len(others)} other processes, an engine of {WORKERS + 1} processes, {LOOKS} looks")
        now = [0.0]
        cached = Descendants(root, now=lambda: now[0])
        walked = Descendants(root)
        table = _table_look(root)
        for name, look in (
            ("whole table, CPU time", table),
            ("lists of children, CPU time, walk at each look", lambda: (walked.alive(), walked.cpu_seconds())),
            ("lists of children, CPU time, a tree seen once", lambda: _once(root)),
            ("lists of children, CPU time, between walks", cached.cpu_seconds),
            ("lists of children, memory, between walks", cached.memory_bytes),
        ):
            print(f"{name:50} {_median(look):8.0f} µs")
    finally:
        for worker in Descendants(root).alive():
            os.kill(worker.pid, 9)
        for process in (engine, *others):
            process.kill()
            process.wait()


def _table_look(root: ProcessId) -> Callable[[], object]:
    """What a look was before: the tree in one snapshot, its processes' times in a second one."""
    processes = Procfs()

    def look() -> int:
        found = post_order([root], processes.snapshot())
        snapshot = processes.snapshot()
        return sum(snapshot[one.pid].cpu for one in found if one.pid in snapshot)

    return look


def _once(root: ProcessId) -> int:
    """A look at the tree of another command, as preflight does it."""
    return sum(process.cpu for process in Procfs().subtree(root).values())


def _median(look: Callable[[], object]) -> float:
    times = []
    for _ in range(LOOKS):
        begun = time.perf_counter()
        look()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


if __name__ == "__main__":
    main()
