"""Garrison's own time in `garrison serve` before the engine is exec'd, for a local model of 200 shards.

    python benchmarks/serve.py [--fast]

The engine is a program that ends at once. Aim: under 0.4 s more than `garrison --help`.
"""

import os
import sys
import tempfile
from pathlib import Path

import pyperf

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "scripts"))
BIN = Path(sys.executable).parent
SHARDS = 200


def main() -> None:
    runner = pyperf.Runner(processes=10, values=3, warmups=1)
    runner.parse_args()
    runner.args.inherit_environ = ["GARRISON_DATA_DIR", "GARRISON_SKIP_GPU_CHECK", "HOME", "BENCH_WORK"]
    with tempfile.TemporaryDirectory() as fresh:
        work = Path(os.environ.setdefault("BENCH_WORK", fresh))
        model, engine = work / "model", work / "engine" / "bin" / "vllm"
        os.environ |= {"GARRISON_DATA_DIR": str(work / "data"), "GARRISON_SKIP_GPU_CHECK": "1"}
        if not engine.exists():
            _make(model, engine)
        serve = [str(BIN / "garrison"), "serve", str(model), "--executable", str(engine), "--port", "18199", "--exec"]
        help_ = runner.bench_command("garrison --help", [str(BIN / "garrison"), "--help"])
        started = runner.bench_command("garrison serve --exec", serve)
    if help_ is not None and started is not None:
        more = started.median() - help_.median()
        print(f"garrison serve before exec, {SHARDS} shards: {more * 1000:.0f} ms more than --help (aim: under 400 ms)")


def _make(model: Path, engine: Path) -> None:
    from tiny_model import make_model

    make_model(model, shards=SHARDS)
    engine.parent.mkdir(parents=True)
    engine.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    engine.chmod(0o755)
    # The version is read from the metadata beside the program, as it is for an installed engine.
    site = engine.parent.parent / "lib" / "python3.11" / "site-packages"
    (site / "vllm-0.32.0.dist-info").mkdir(parents=True)


if __name__ == "__main__":
    main()
