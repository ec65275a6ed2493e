"""`garrison models verify` against `sha256sum` run in parallel, over the same files.

    python benchmarks/verify.py [--fast]

Aim: at least 0.8 of its speed. Both read from the page cache.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

import pyperf
from ratio import show

from garrison.models.verify import verify

FILES, BYTES = 16, 64 * 1024 * 1024


def main() -> None:
    runner = pyperf.Runner(processes=5, values=3, warmups=1)
    runner.parse_args()
    runner.args.inherit_environ = ["BENCH_WORK", "HOME"]
    with tempfile.TemporaryDirectory() as fresh:
        work = Path(os.environ.setdefault("BENCH_WORK", fresh))
        if not any(work.iterdir()):
            block = os.urandom(BYTES)
            for number in range(FILES):
                (work / f"shard-{number:02d}.bin").write_bytes(block)
        ours = runner.bench_time_func("garrison models verify", _ours, work)
        theirs = runner.bench_time_func("sha256sum in parallel", _sha256sum, work)
    show("garrison models verify", ours, theirs, "at most 1.25, which is 0.8 of the speed")


def _ours(loops: int, work: Path) -> float:
    begun = time.perf_counter()
    for _ in range(loops):
        verify(work, record=False)
    return time.perf_counter() - begun


def _sha256sum(loops: int, work: Path) -> float:
    files = [str(path) for path in sorted(work.glob("shard-*"))]
    begun = time.perf_counter()
    for _ in range(loops):
        subprocess.run(
            ["xargs", "-0", "-n", "1", "-P", str(os.cpu_count()), "sha256sum"],
            input="\0".join(files).encode(), stdout=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
